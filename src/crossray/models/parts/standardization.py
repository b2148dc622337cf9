"""Standardizes the features of a frozen backbone by each channel's mean and standard deviation over training images.

Half of the last feature map of a network that ends in a ReLU is zero, and the mean over images is larger than the
differences between them. Layers trained on top of a frozen backbone take long to compensate for this.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from crossray.data.batches.features import FeatureCache, Prepare, transformed_images
from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset

#: Maximum number of images used for the statistics.
MOST_IMAGES = 2048

#: A channel whose standard deviation is below this share of the channels' mean is treated as constant: its variation is
#: rounding error, in particular if features are cached in half precision, and must not be amplified.
LEAST_SHARE = 1e-2

_CHUNK = 32


class Standardization(nn.Module):
    """Subtracts each channel's mean and divides by its standard deviation; the identity until `learn` is called.

    Args:
        width: channels C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        return (x - self.mean) / self.deviation

    def undo(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C), the inverse of `forward`."""
        return x * self.deviation + self.mean

    def learn(self, moments: "Moments") -> None:
        """Set mean and standard deviation; channels that hardly vary (`LEAST_SHARE`) keep their scale."""
        deviation = (moments.squares / max(moments.count, 1)).sqrt()
        self.mean.copy_(moments.mean)
        self.deviation.copy_(deviation.where(deviation > LEAST_SHARE * deviation.mean(), 1.0))


class Moments:
    """Mean and sum of squared deviations of each channel, computed incrementally.

    Args:
        width: channels C.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean, self.squares = torch.zeros(2, width, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Add features (N, ..., C); accurate even if the mean is far larger than the deviation (Chan et al., 1979)."""
        rows = features.detach().reshape(-1, features.shape[-1]).double().cpu()
        mean, total = rows.mean(dim=0), self.count + len(rows)
        apart = mean - self.mean
        self.squares += ((rows - mean) ** 2).sum(dim=0) + apart**2 * self.count * len(rows) / total
        self.mean += apart * len(rows) / total
        self.count = total


def training_features(
    dataset: Dataset, features: FeatureCache | None, prepare: Prepare, transform: ImageTransform, device: torch.device
) -> Iterator[dict[str, Tensor]]:
    """Iterate over the features of at most `MOST_IMAGES` evenly spaced training images, without augmentation.

    Args:
        dataset: the images.
        features: cached features; computed if None.
        prepare: normalized images (N, 3, S, S) -> (N, ...) tensors by name.
        transform: transform applied before `prepare`.
        device: device to compute on.
    """
    images = np.array([image for row in dataset.rows("train").tolist() for image in dataset.views(row)], np.int64)
    images = images[np.linspace(0, len(images) - 1, min(len(images), MOST_IMAGES)).astype(np.int64)]
    for first in range(0, len(images), _CHUNK):
        rows = images[first : first + _CHUNK]
        if features is not None:
            yield features.read(rows)
        else:
            with torch.no_grad():
                yield prepare(transformed_images(dataset, transform, rows, device))
