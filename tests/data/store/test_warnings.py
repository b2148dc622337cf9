"""Warnings on the whole way: from an image file into the dataset, its counts and its page."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from crossray import cli
from crossray.data.images.read import ImageFile
from crossray.data.store import Dataset, layout, write_dataset
from crossray.data.store.identity import identify, image_paths
from crossray.data.study import Study
from crossray.errors import UserError
from crossray.pages.inspect_page import inspect_page


def studies(folder: Path) -> list[Study]:
    """One of a picture, one of a picture and a black image, one of a black image."""
    picture = np.random.default_rng(0).integers(0, 256, (48, 40), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "picture.png")
    Image.fromarray(np.zeros((48, 40), np.uint8)).save(folder / "black.png")
    names = [("picture",), ("picture", "black"), ("black",)]
    return [
        Study(f"s{place}", f"p{place}", "train", "Clear lungs.", images=tuple(
            ImageFile(folder / f"{name}.png") for name in listed))
        for place, listed in enumerate(names)
    ]  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
def test_they_are_stored_counted_and_shown(tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = write_dataset(tmp_path / "d", studies(tmp_path), size=32, source={"kind": "test"}, workers=workers)
    assert [len(dataset.warnings(row)) for row in range(dataset.images)] == [0, 0, 1, 1]
    text = dataset.warnings(2)[0]
    assert text.startswith("pixels have one gray level in the whole image")
    assert dataset.info.counts["warnings"] == {"pixels": 2}
    assert pq.read_table(dataset.path / layout.IMAGES).column("warnings").to_pylist() == [[], [], [text], [text]]
    cli.main(["inspect", str(dataset.path)])
    assert "2 images with a warning: pixels" in capsys.readouterr().out
    page = inspect_page(dataset, images=0)
    assert text in page and "<td>s1</td>" in page


def test_a_dataset_from_before_is_read_without(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "d", studies(tmp_path)[:1], size=32, source={"kind": "test"}, workers=0)
    path = dataset.path / layout.IMAGES
    pq.write_table(pq.read_table(path).drop_columns("warnings"), path)
    assert Dataset.open(dataset.path).warnings(0) == ()


def test_an_unfinished_dataset_notices_other_images(tmp_path: Path) -> None:
    listed = studies(tmp_path)
    unfinished = tmp_path / "d" / layout.UNFINISHED
    unfinished.mkdir(parents=True)
    source, images = {"kind": "test", "files": ("a",)}, identify(image_paths(listed))
    identity = {"format": layout.FORMAT, "source": source, "size": 32, "cleaner": "legacy", "images": images}
    (unfinished / "job.json").write_bytes(layout.json_bytes(identity))
    Image.fromarray(np.ones((50, 40), np.uint8)).save(tmp_path / "black.png")
    with pytest.raises(UserError, match="the image files or --identity have changed since this dataset was begun"):
        write_dataset(tmp_path / "d", listed, size=32, source=source, workers=0, images=identify(image_paths(listed)))


def test_what_identifies_files(tmp_path: Path) -> None:
    paths = list(image_paths(studies(tmp_path)))
    assert [path.name for path in paths] == ["picture.png", "picture.png", "black.png", "black.png"]
    first = identify(paths)
    assert first == identify(paths) and first["files"] == 4
    assert identify(paths[::-1]) != first
    paths[-1].unlink()
    assert identify(paths) != first
    assert identify(paths, "digest") != identify(paths[:2], "digest")
