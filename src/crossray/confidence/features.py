"""Pooled vectors of images from a model's encoder, one per view: the features that the input check works on.

Shapes: N images, P pooled width.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from crossray.analysis.inputs import collator_of, transform_of
from crossray.data.batches.batch import Inputs
from crossray.data.batches.transform import transform_inputs
from crossray.data.store import Dataset
from crossray.models.base import ReportModel

Vectors = NDArray[np.float32]


def pooled_of_studies(
    model: ReportModel, dataset: Dataset, rows: NDArray[np.int64], batch_size: int = 32
) -> Iterator[tuple[Vectors, NDArray[np.int64]]]:
    """Compute the vectors of all views of studies, from cached features if the dataset has them.

    Args:
        model: model in eval mode, with its transform.
        dataset: dataset with the studies.
        rows: rows of the studies.
        batch_size: number of studies per batch.

    Yields:
        For each batch, (n, P) vectors of the views and (n,) their positions, as indices into `VIEW_POSITIONS`.
    """
    collator, transform, device = collator_of(model, dataset), transform_of(model), _device(model)
    for first in range(0, len(rows), batch_size):
        inputs = collator.inputs(rows[first : first + batch_size])
        with torch.inference_mode():
            pooled = model.encode(transform_inputs(inputs.to(device), transform, train=False)).pooled
        yield pooled[inputs.view_mask.to(device)].float().cpu().numpy(), inputs.view_position[inputs.view_mask].numpy()


def pooled_of_images(
    model: ReportModel, images: Iterable[NDArray[np.uint8]], batch_size: int = 32
) -> Iterator[Vectors]:
    """Compute the vectors of images, each as the only view of a study.

    Args:
        model: model in eval mode, with its transform.
        images: (H, W) uint8 each, of any size; iterated lazily.
        batch_size: number of images per batch.

    Yields:
        For each batch, (n, P) vectors of the images.
    """
    transform, device, rest = transform_of(model), _device(model), iter(images)
    while part := list(islice(rest, batch_size)):
        with torch.inference_mode():
            inputs = transform_inputs(_inputs(part, model.config.views).to(device), transform, train=False)
            yield model.encode(inputs).pooled[:, 0].float().cpu().numpy()


def _inputs(images: Sequence[NDArray[np.uint8]], views: int) -> Inputs:
    sizes = torch.zeros(len(images), views, 2, dtype=torch.int64)
    sizes[:, 0] = torch.tensor([pixels.shape for pixels in images])
    height, width = sizes.amax(dim=(0, 1)).tolist()
    padded = torch.zeros(len(images), views, 1, height, width, dtype=torch.uint8)
    for place, pixels in enumerate(images):
        padded[place, 0, 0, : pixels.shape[0], : pixels.shape[1]] = torch.from_numpy(pixels.copy())
    return Inputs(padded, sizes, sizes[..., 0] > 0, torch.zeros(len(images), views, dtype=torch.int64))


def _device(model: ReportModel) -> torch.device:
    return next(model.parameters()).device
