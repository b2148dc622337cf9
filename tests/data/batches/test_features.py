import errno
import json
import os
import pickle
import shutil
import threading
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from tests.models.tiny import tiny

from crossray.data.batches import features
from crossray.data.batches.features import FeatureCache, build_features
from crossray.data.batches.loading import Collator
from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.models.parts.backbones import BackboneConfig

TRANSFORM = ImageTransform(size=12, resize=14)


@pytest.fixture
def dataset(noise_dataset, tmp_path) -> Dataset:
    """A copy of its own, because features are written into it."""
    shutil.copytree(noise_dataset.path, tmp_path / "set")
    return Dataset.open(tmp_path / "set")


class Encoder:
    """Stands for a frozen backbone; counts the images that it sees and can be stopped."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen, self.stop_after = 0, stop_after

    def __call__(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.stop_after is not None and self.seen >= self.stop_after:
            raise KeyboardInterrupt
        self.seen += len(images)
        return {"map": images[:, :, ::3, ::3].flatten(2), "code": (images.mean((1, 2, 3)) * 1000).long()}


def stored(dataset: Dataset, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.from_numpy(dataset.image(row).copy())
    return pixels[None, None], torch.tensor([pixels.shape])


def test_variant_0_is_the_evaluation_transform(dataset):
    cache = build_features(dataset, Encoder(), TRANSFORM, "weights", dtype="float32", batch_size=7)
    assert cache.variants == 1 and set(cache.names) == {"map", "code"}
    read = cache.read(np.array([5, 0, 33]))
    for place, row in enumerate([5, 0, 33]):
        expected = Encoder()(TRANSFORM.apply(*stored(dataset, row), train=False))
        torch.testing.assert_close(read["map"][place], expected["map"][0], atol=1e-5, rtol=1e-5)
        assert (read["code"][place] - expected["code"][0]).abs() <= 1
    assert read["code"].dtype == torch.int64 and read["map"].dtype == torch.float32


def test_half_precision_is_read_as_float32(dataset):
    half = build_features(dataset, Encoder(), TRANSFORM, "weights")
    full = build_features(dataset, Encoder(), TRANSFORM, "weights", dtype="float32")
    assert half.path != full.path
    assert np.load(half.path / "map.npy", mmap_mode="r").dtype == np.float16
    rows = np.arange(dataset.images)
    torch.testing.assert_close(half.read(rows)["map"], full.read(rows)["map"].half().float(), atol=0, rtol=0)


def test_other_variants_are_random_crops_that_do_not_depend_on_the_batch_size(dataset):
    first = build_features(dataset, Encoder(), TRANSFORM, "a", variants=3, batch_size=5, dtype="float32")
    second = build_features(dataset, Encoder(), TRANSFORM, "b", variants=3, batch_size=64, dtype="float32")
    rows = np.arange(dataset.images)
    for variant in range(3):
        torch.testing.assert_close(
            first.read(rows, variant)["map"], second.read(rows, variant)["map"], atol=1e-5, rtol=1e-5
        )
    maps = [first.read(rows, variant)["map"] for variant in range(3)]
    assert not torch.allclose(maps[1], maps[2])
    # three pixels of room in both directions: 9 crops, one of which every augmented image must be
    wide = np.argmax(dataset.image_sizes.prod(1))
    image, size = stored(dataset, int(wide))
    draws = torch.cartesian_prod(torch.linspace(0, 0.99, 30), torch.linspace(0, 0.99, 30))
    draws = torch.cat([draws, torch.zeros(len(draws), 4)], 1)
    crops = TRANSFORM.apply(image.expand(900, -1, -1, -1), size.expand(900, -1), train=True, draws=draws)
    possible = Encoder()(crops)["map"]
    for variant in (1, 2):
        assert (possible - maps[variant][wide]).abs().amax((1, 2)).min() < 1e-4


def test_finished_features_are_opened_and_not_computed_again(dataset):
    first = build_features(dataset, Encoder(), TRANSFORM, "weights")
    encoder = Encoder()
    assert build_features(dataset, encoder, TRANSFORM, "weights").path == first.path
    assert encoder.seen == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"fingerprint": "other"},
        {"variants": 2},
        {"transform": ImageTransform(size=12, resize=13)},
        {"dtype": "float32"},
    ],
)
def test_everything_that_determines_the_values_is_in_the_name(dataset, changed):
    base = {"transform": TRANSFORM, "fingerprint": "weights", "variants": 1, "dtype": "float16"}
    first = build_features(dataset, Encoder(), **base)
    assert build_features(dataset, Encoder(), **(base | changed)).path != first.path


def test_an_interrupted_run_is_continued(dataset):
    total = 2 * dataset.images
    with pytest.raises(KeyboardInterrupt):
        build_features(dataset, Encoder(stop_after=40), TRANSFORM, "weights", variants=2, batch_size=8)
    encoder, seen = Encoder(), []
    cache = build_features(
        dataset, encoder, TRANSFORM, "weights", variants=2, batch_size=8, progress=lambda *counts: seen.append(counts)
    )
    assert encoder.seen == total - 40
    assert seen[0] == (48, total) and seen[-1] == (total, total)
    whole = build_features(dataset, Encoder(), TRANSFORM, "again", variants=2, batch_size=8)
    for name in ("map.npy", "code.npy"):
        assert (cache.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert {path.name for path in cache.path.iterdir()} == {"map.npy", "code.npy", "features.json"}
    assert {path.name for path in cache.path.parent.iterdir()} == {cache.path.name, whole.path.name}


class Shuffled:
    """Stands for a Ray cluster: batches finish in another order, and the cluster is lost after some of them."""

    device = "cpu"

    def __init__(self, batches: int | None = None) -> None:
        self.batches, self.asked = batches, []

    def run(self, load, job, firsts):
        worker = load(pickle.loads(pickle.dumps(job)))
        self.asked = list(firsts)
        order = [*self.asked[1:4], self.asked[0], *reversed(self.asked[4:])]
        for first in order[: self.batches]:
            yield first, worker(first)
        if self.batches is not None:
            raise UserError("Ray stopped (RayError); run the same command again.")


def test_batches_of_a_cluster_are_kept_in_whatever_order_they_finish(dataset, monkeypatch):
    local = build_features(dataset, Encoder(), TRANSFORM, "weights", variants=2, batch_size=8)
    options = {"transform": TRANSFORM, "fingerprint": "again", "variants": 2, "batch_size": 8, "engine": "ray"}
    clusters, seen = iter([Shuffled(6), rest := Shuffled()]), []
    monkeypatch.setattr(features, "connected", lambda remedy: nullcontext(next(clusters)))
    with pytest.raises(UserError, match="Ray stopped"):
        build_features(dataset, Encoder(), **options, progress=lambda *counts: seen.append(counts[0]))
    assert seen[:4] == [8, 16, 24, 32]
    cache = build_features(dataset, Encoder(), **options)
    assert rest.asked[0] == 32  # four batches from the first one on were complete; what came after is computed again
    for name in ("map.npy", "code.npy"):
        assert (cache.path / name).read_bytes() == (local.path / name).read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("own_ray")
def test_workers_of_ray_write_the_same_bytes(dataset):
    """With a real frozen backbone, whose methods the workers get pickled."""
    pytest.importorskip("ray.data", reason="needs pandas")
    model = tiny("baseline", backbone=BackboneConfig(name="random:resnet_tiny", trainable=False)).eval()
    transform = ImageTransform(size=32, resize=40)
    local, ray = (
        build_features(
            dataset, model.prepare_features, transform, engine, variants=2, batch_size=8, engine=engine
        )
        for engine in ("local", "ray")
    )  # fmt: skip
    assert local.names == ray.names
    for name in local.names:
        assert (local.path / f"{name}.npy").read_bytes() == (ray.path / f"{name}.npy").read_bytes()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system reserves no disk space")
def test_a_full_disk_is_an_error_before_anything_is_mapped_and_the_run_is_continued(dataset, monkeypatch):
    def full(handle: int, start: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(UserError, match=r"features cannot be written \(No space left on device\); free space"):
            build_features(dataset, Encoder(), TRANSFORM, "weights", batch_size=8)
    assert build_features(dataset, Encoder(), TRANSFORM, "weights").variants == 1


def test_the_whole_file_has_its_place_on_the_disk_from_the_first_batch_on(dataset):
    def wide(images: torch.Tensor) -> dict[str, torch.Tensor]:
        if started:
            raise KeyboardInterrupt
        started.append(len(images))
        return {"map": torch.zeros(len(images), 4096)}

    started: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        build_features(dataset, wide, TRANSFORM, "weights", batch_size=1)
    (path,) = (dataset.path / "features").glob("*/map.npy")
    assert path.stat().st_blocks * 512 >= path.stat().st_size


def test_processes_that_ask_at_once_compute_once(dataset):
    encoder = Encoder()
    caches: list[FeatureCache] = []
    threads = [
        threading.Thread(target=lambda: caches.append(build_features(dataset, encoder, TRANSFORM, "weights")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({cache.path for cache in caches}) == 1 and len(caches) == 3
    assert encoder.seen == dataset.images


def test_values_beyond_half_precision_are_refused(dataset):
    with pytest.raises(UserError, match="feature 'map': has values beyond the range of float16"):
        build_features(dataset, lambda images: {"map": images * 1e6}, TRANSFORM, "weights")
    assert not list((dataset.path / "features").glob("*.npy"))
    assert build_features(dataset, lambda images: {"map": images * 1e6}, TRANSFORM, "w", dtype="float32").variants == 1


def test_damaged_features_are_refused(dataset):
    cache = build_features(dataset, Encoder(), TRANSFORM, "weights")
    content = (cache.path / "map.npy").read_bytes()
    (cache.path / "map.npy").write_bytes(content[:-10])
    with pytest.raises(UserError, match="incomplete or damaged"):
        FeatureCache.open(cache.path)
    (cache.path / "map.npy").write_bytes(content)
    description = json.loads((cache.path / "features.json").read_text())
    description["names"]["map"][0][1] += 1
    (cache.path / "features.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match="incomplete or damaged"):
        FeatureCache.open(cache.path)


def test_at_least_one_variant(dataset):
    with pytest.raises(UserError, match="variants 0"):
        build_features(dataset, Encoder(), TRANSFORM, "weights", variants=0)


def test_batches_of_features_have_no_images(dataset, noise_tokenizer):
    cache = build_features(dataset, Encoder(), TRANSFORM, "weights", variants=3)
    inputs = Collator(dataset, noise_tokenizer, features=cache, variant=1)([0, 1]).inputs
    assert inputs.images.shape == (2, 2, 1, 0, 0)
    assert inputs.features["map"].shape == (2, 2, 3, 16)
    for study, row in enumerate([0, 1]):
        for view, image_row in enumerate(dataset.views(row)):
            expected = cache.read(np.array([image_row]), 1)["map"][0]
            assert torch.equal(inputs.features["map"][study, view], expected)
    assert not inputs.features["map"][0, 1].any()  # study 0 has one view
    with pytest.raises(UserError, match="there is no variant 3"):
        Collator(dataset, None, features=cache, variant=3)


def test_random_variants_are_chosen_by_the_chances_given_from_all_with_the_evaluations(dataset):
    cache = build_features(dataset, Encoder(), TRANSFORM, "weights", variants=3)
    collator = Collator(dataset, None, features=cache, variant="random")
    chances = np.array([[0.0, 0.6], [0.34, 0.999]])
    found = collator([1, 2], chances).inputs.features["map"]
    for study, row in enumerate([1, 2]):
        for view, image_row in enumerate(dataset.views(row)):
            variant = int(chances[study, view] * 3)
            assert torch.equal(found[study, view], cache.read(np.array([image_row]), variant)["map"][0])
    with pytest.raises(ValueError, match="chances"):
        collator([1, 2])
    single = build_features(dataset, Encoder(), TRANSFORM, "single")
    plain = Collator(dataset, None, features=single, variant="random")([1]).inputs.features["map"]
    assert torch.equal(plain[0, 0], single.read(np.array([dataset.views(1)[0]]))["map"][0])


def test_a_pickled_cache_reads_the_same(dataset):
    cache = build_features(dataset, Encoder(), TRANSFORM, "weights")
    copy = pickle.loads(pickle.dumps(cache))
    rows = np.array([3, 1])
    assert torch.equal(copy.read(rows)["map"], cache.read(rows)["map"])
