"""A cache of image features, computed once by a frozen encoder and memory-mapped during training.

    features/HASH/features.json     what was computed: encoder, transform, variants, dataset
    features/HASH/NAME.npy          (variants, images, ...), one file a feature

Variant 0 uses the evaluation transform; the others use random training augmentations with fixed seeds, so a model on
cached features still sees augmented images. HASH covers everything that determines the values.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset, layout
from crossray.data.store.cluster import connected
from crossray.errors import UserError
from crossray.files.lock import locked
from crossray.files.write import sync, write_whole

_DESCRIPTION = "features.json"
_PROGRESS = "progress.json"
_UNFINISHED = ".unfinished"

#: Seconds between saves, and thus of work that is lost if the process is killed.
_SAVE_EVERY = 5.0

Prepare = Callable[[Tensor], dict[str, Tensor]]


class FeatureCache:
    """Cached features on disk; instances can be pickled.

    Attributes:
        path: folder of the features.
        variants: number of variants of each image.
    """

    def __init__(self, path: Path, variants: int, arrays: dict[str, NDArray[Any]]) -> None:
        self.path, self.variants = path, variants
        self._arrays = arrays

    @classmethod
    def open(cls, path: Path | str) -> "FeatureCache":
        """Open a completed folder of `build_features`.

        Raises:
            UserError: the folder is incomplete or damaged.
        """
        path = Path(path)
        try:
            description = json.loads((path / _DESCRIPTION).read_text(encoding="utf-8"))
            arrays = {name: np.load(path / f"{name}.npy", mmap_mode="r") for name in description["names"]}
            shapes = {name: (list(array.shape), array.dtype.name) for name, array in arrays.items()}
            if shapes != {name: tuple(entry) for name, entry in description["names"].items()}:
                raise ValueError
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{path}: the features are incomplete or damaged; remove the folder and compute them again."
            ) from error
        return cls(path, int(description["identity"]["variants"]), arrays)

    def __reduce__(self) -> tuple[Any, ...]:
        return FeatureCache.open, (self.path,)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(self._arrays)

    def read(self, image_rows: NDArray[np.int64], variants: int | NDArray[np.int64] = 0) -> dict[str, Tensor]:
        """Read the features of some images.

        Args:
            image_rows: (N,) image rows of the dataset.
            variants: variant of each image, (N,) int64, or one variant for all.

        Returns:
            Tensors by name, (N, ...) each; floating-point features are float32, whatever their stored type.
        """
        chosen = np.broadcast_to(variants, np.shape(image_rows))
        result = {}
        for name, array in self._arrays.items():
            values = np.empty((len(chosen), *array.shape[2:]), np.float32 if array.dtype.kind == "f" else array.dtype)
            for place, (variant, row) in enumerate(zip(chosen.tolist(), np.asarray(image_rows).tolist(), strict=True)):
                values[place] = array[variant, row]
            result[name] = torch.from_numpy(values)
        return result


def build_features(
    dataset: Dataset,
    model_prepare: Prepare,
    transform: ImageTransform,
    fingerprint: str,
    *,
    variants: int = 1,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    dtype: Literal["float16", "float32"] = "float16",
    engine: Literal["local", "ray"] = "local",
    progress: Callable[[int, int], None] | None = None,
) -> FeatureCache:
    """Compute the features of all images, or open them if they exist; continue a run that was killed.

    If several processes call this at the same time, one computes and the others wait.

    Args:
        dataset: dataset with the images.
        model_prepare: maps normalized images, (N, 3, S, S) on the device, to tensors by name, (N, ...) each; the model
            must be in eval mode. For Ray, a module or a method of one, on the CPU; workers move it to their device.
        transform: transform of the stored images before `model_prepare`.
        fingerprint: identifies the weights of the model.
        variants: number of variants: 1 for the evaluation transform only, more for additional random augmentations.
        batch_size: number of images per batch.
        device: device to compute on; ignored for Ray, which uses the GPUs of the cluster, or else its CPU cores.
        dtype: type of stored floating-point features; integers keep their type.
        engine: "local" for this process, or "ray" for the cluster of `ray_cluster`. The features of both are the same
            bytes on the same kind of device with the same number of threads; Ray uses one thread per CPU worker.
        progress: called with the numbers of finished and of all images, over all variants.

    Returns:
        The opened features.

    Raises:
        UserError: `variants` is not positive, the disk is full, values are beyond the range of `dtype`, or Ray is not
            installed or cannot be reached.
    """
    if variants < 1:
        raise UserError(f"variants {variants}: at least the evaluation transform is needed; use 1 or more.")
    identity = {
        "fingerprint": fingerprint,
        "transform": asdict(transform),
        "variants": variants,
        "dtype": dtype,
        "dataset": dataset.info.sha256,
    }
    target = dataset.features_path(hashlib.sha256(layout.json_bytes(identity)).hexdigest()[:16])
    if target.exists():
        return FeatureCache.open(target)
    try:
        with _locked(target) as folder:
            if not target.exists():
                writer, total = _Writer(folder, (variants, dataset.images), dtype), variants * dataset.images
                job = _Job(dataset.path.resolve(), model_prepare, transform, total, batch_size, str(device), dtype)
                try:
                    for first, features in _computed(job, dataset, range(writer.done, total, batch_size), engine):
                        writer.add(first, features)
                        if progress is not None:
                            progress(writer.written, total)
                finally:
                    writer.save()
                writer.describe(identity)
                folder.rename(target)
                sync(target.parent)
                (target / _PROGRESS).unlink()
    except OSError as error:
        raise UserError(f"{target}: features cannot be written ({error.strerror}); free space and run the command "
                        "again: it continues.") from error  # fmt: skip
    return FeatureCache.open(target)


def find_features(dataset: Dataset, transform: ImageTransform, fingerprint: str) -> FeatureCache | None:
    """Find complete features for this dataset, transform and encoder, with any variants and type; None without any."""
    wanted = {"fingerprint": fingerprint, "transform": asdict(transform), "dataset": dataset.info.sha256}
    wanted = json.loads(layout.json_bytes(wanted))
    for description in sorted(dataset.features_path("").glob(f"*/{_DESCRIPTION}")):
        try:
            identity = json.loads(description.read_text(encoding="utf-8"))["identity"]
        except (OSError, ValueError, KeyError):
            continue
        if description.parent.suffix != _UNFINISHED and wanted.items() <= identity.items():
            return FeatureCache.open(description.parent)
    return None


@dataclass(frozen=True)
class _Job:
    """Arguments of `build_features` that all batches share; picklable if `prepare` is."""

    data: Path
    prepare: Prepare
    transform: ImageTransform
    total: int
    batch_size: int
    device: str
    dtype: Literal["float16", "float32"]


class _Worker:
    """Computes batches, in this process or in one of a cluster."""

    def __init__(self, job: _Job, dataset: Dataset | None = None) -> None:
        self.job, self.dataset = job, dataset or Dataset.open(job.data)

    def __call__(self, first: int) -> dict[str, Tensor]:
        """Features, on the CPU in the stored type, of the batch whose first image has this number."""
        job = self.job
        numbers = np.arange(first, min(first + job.batch_size, job.total))
        pixels = transformed_images(self.dataset, job.transform, numbers, torch.device(job.device))
        with torch.inference_mode():
            found = job.prepare(pixels)
        stored = getattr(torch, job.dtype)
        return {name: each.to("cpu", stored if each.is_floating_point() else None) for name, each in found.items()}


def _on_cluster(job: _Job) -> _Worker:
    """A worker whose model is on the worker's device."""
    owner = getattr(job.prepare, "__self__", job.prepare)
    if isinstance(owner, torch.nn.Module):
        owner.to(job.device)
    return _Worker(job)


def _computed(
    job: _Job, dataset: Dataset, firsts: range, engine: Literal["local", "ray"]
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """Batches by the number of their first image; those of Ray in the order in which they finish."""
    if engine == "local":
        worker = _Worker(job, dataset)
        yield from ((first, worker(first)) for first in firsts)
    elif firsts:
        with connected("set data.feature_engine to local") as cluster:
            yield from cluster.run(_on_cluster, replace(job, device=cluster.device), firsts)


@contextmanager
def _locked(target: Path) -> Iterator[Path]:
    """Lock and yield the temporary folder in which `target` is computed."""
    folder = target.with_name(f"{target.name}{_UNFINISHED}")
    target.parent.mkdir(exist_ok=True)
    lock = target.with_name(f"{target.name}.lock")
    with locked(lock):
        if not target.exists():
            folder.mkdir(exist_ok=True)
        yield folder
        lock.unlink(missing_ok=True)


def transformed_images(
    dataset: Dataset, transform: ImageTransform, numbers: NDArray[np.int64], device: torch.device
) -> Tensor:
    """Read and transform images by their numbers.

    Args:
        dataset: dataset with the images.
        transform: transform of the stored images.
        numbers: (N,) variant x number of images + image row. A number is also the seed of the image's augmentation, so
            the result does not depend on the batch.
        device: device to transform on.

    Returns:
        (N, 3, S, S) float32, normalized.
    """
    rows, variants = numbers % dataset.images, numbers // dataset.images
    stored = [dataset.image(row) for row in rows.tolist()]
    sizes = torch.from_numpy(dataset.image_sizes[rows])
    padded = torch.zeros(len(rows), 1, *sizes.amax(0).tolist(), dtype=torch.uint8)
    for place, pixels in enumerate(stored):
        padded[place, 0, : pixels.shape[0], : pixels.shape[1]] = torch.from_numpy(pixels.copy())
    padded, sizes = padded.to(device), sizes.to(device)
    size = transform.size
    result = torch.empty(len(rows), 3, size, size, device=device)
    plain = torch.from_numpy(variants == 0).to(device)
    if plain.any():
        result[plain] = transform.apply(padded[plain], sizes[plain], train=False)
    if not plain.all():
        draws = torch.cat([transform.draw(1, torch.Generator().manual_seed(int(number))) for number in numbers])
        result[~plain] = transform.apply(padded[~plain], sizes[~plain], train=True, draws=draws.to(device)[~plain])
    return result


class _Writer:
    """Fills the arrays of an unfinished folder and records the progress.

    Attributes:
        done: number of the first image that is missing; a continued run begins there.
        written: number of images written, including those after `done`.
    """

    def __init__(self, folder: Path, shape: tuple[int, int], dtype: str) -> None:
        self._folder, self._shape, self._dtype = folder, shape, dtype
        self._arrays: dict[str, np.memmap[Any, Any]] = {}
        self._ahead: dict[int, int] = {}  # first number -> images, of batches after `done`
        self.done = 0
        self._next_save = time.monotonic() + _SAVE_EVERY
        progress = folder / _PROGRESS
        if progress.exists():
            saved = json.loads(progress.read_text(encoding="utf-8"))
            for name in saved["names"]:
                self._arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="r+")
                _reserve(folder / f"{name}.npy")
            self.done = int(saved["done"])

    @property
    def written(self) -> int:
        return self.done + sum(self._ahead.values())

    def add(self, first: int, features: dict[str, Tensor]) -> None:
        """Write the features of a batch, and call `save` every few seconds.

        Args:
            first: number of the batch's first image.
            features: features on the CPU, in the stored type.

        Raises:
            ValueError: there are no features.
            OSError: the disk is full.
            UserError: values are beyond the range of the stored type; the folder is removed.
        """
        converted = {name: self._checked(name, tensor) for name, tensor in features.items()}
        if not converted:
            raise ValueError("there are no features to cache")
        for name, values in converted.items():
            if name not in self._arrays:
                path = self._folder / f"{name}.npy"
                array = np.lib.format.open_memmap(path, "w+", values.dtype, (*self._shape, *values.shape[1:]))
                _reserve(path)
                self._arrays[name] = array
            flat = self._arrays[name].reshape(-1, *values.shape[1:])
            flat[first : first + len(values)] = values
        self._ahead[first] = len(values)
        while self.done in self._ahead:
            self.done += self._ahead.pop(self.done)
        if time.monotonic() > self._next_save:
            self.save()

    def save(self) -> None:
        """Write the added values to disk, then record their number."""
        self._next_save = time.monotonic() + _SAVE_EVERY
        if not self._arrays:
            return
        for array in self._arrays.values():
            array.flush()
        state = {"done": self.done, "names": sorted(self._arrays)}
        write_whole(self._folder / _PROGRESS, layout.json_bytes(state))

    def describe(self, identity: dict[str, Any]) -> None:
        """Write the description of the completed folder."""
        names = {name: [list(array.shape), array.dtype.name] for name, array in self._arrays.items()}
        write_whole(self._folder / _DESCRIPTION, layout.json_bytes({"identity": identity, "names": names}))

    def _checked(self, name: str, tensor: Tensor) -> NDArray[Any]:
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            self._arrays = {}
            shutil.rmtree(self._folder)
            raise UserError(
                f"feature '{name}': has values beyond the range of {self._dtype}; set data.feature_dtype to float32."
            )
        return tensor.numpy()


def _reserve(path: Path) -> None:
    """Reserve the disk space of a new file's zeros: writing to a mapped file on a full disk would kill the process.

    Raises:
        OSError: the disk is full.
    """
    if hasattr(os, "posix_fallocate"):  # not on Windows and macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
