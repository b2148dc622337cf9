"""Compares reconstructions of an image tokenizer with a coarse copy with one pixel per token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.files.write import appearing
from crossray.models.pretraining.dvae import DOWNSAMPLING, DVAE, psnr

#: Gap between the images of the figure, in pixels.
_GAP = 4

#: The images of the figure's rows.
ROWS = ("original", "reconstruction", "down- and up-sampled")


@dataclass(frozen=True)
class Reconstructions:
    """Images of a split with their reconstructions.

    Attributes:
        images: (N, 1, H, W) float32 in [0, 1].
        kept: reconstructions from their tokens.
        coarse: images averaged over 8 x 8 pixels and interpolated (bicubic).
        codes: tokens, (N, h, w) int64.
    """

    images: Tensor
    kept: Tensor
    coarse: Tensor
    codes: Tensor

    @property
    def psnr(self) -> Tensor:
        """PSNR of the reconstructions, (N,) in dB."""
        return psnr(self.kept, self.images)

    @property
    def coarse_psnr(self) -> Tensor:
        """PSNR of the coarse copies, (N,) in dB."""
        return psnr(self.coarse, self.images)

    @property
    def perplexity(self) -> float:
        """Perplexity of the codes: their effective number."""
        share = torch.bincount(self.codes.flatten()).float() / self.codes.numel()
        return float(torch.special.entr(share).sum().exp())

    def figure(self, places: Sequence[int]) -> NDArray[np.uint8]:
        """Draw the images with these indices, with the rows of `ROWS`: (height, width) gray."""
        chosen = list(places)
        rows = [torch.cat(list(F.pad(x[chosen, 0], (0, _GAP), value=1.0)), dim=1)
                for x in (self.images, self.kept, self.coarse)]  # fmt: skip
        grid = torch.cat([F.pad(row, (0, 0, 0, _GAP), value=1.0) for row in rows])[:-_GAP, :-_GAP]
        return (grid.clamp(0, 1) * 255).round().to(torch.uint8).numpy()

    def save_figure(self, places: Sequence[int], path: Path) -> None:
        """Write the figure as PNG."""
        with appearing(path, "wb") as file:
            Image.fromarray(self.figure(places)).save(file, format="PNG")


@torch.inference_mode()
def reconstruct(
    model: DVAE,
    dataset: Dataset,
    split: str,
    transform: ImageTransform,
    *,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Reconstructions:
    """Encode and reconstruct all images of a split.

    Args:
        model: tokenizer in evaluation mode.
        dataset: dataset with the images.
        split: "train", "val" or "test".
        transform: image transform of the tokenizer, applied without augmentation.
        batch_size: number of images per batch.
        progress: called with the number of finished and of all images.

    Raises:
        UserError: the split is empty.
    """
    rows = [image for study in dataset.rows(split) for image in dataset.views(int(study))]
    if not rows:
        raise UserError(f"{dataset.path}: split '{split}' has no images; choose another --split.")
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for first in range(0, len(rows), batch_size):
        stored = [torch.from_numpy(dataset.image(row).copy())[None, None] for row in rows[first : first + batch_size]]
        pixels = torch.cat([transform.apply(image, torch.tensor([image.shape[2:]]), train=False) for image in stored])
        parts.append((pixels[:, :1], model.reconstruct(pixels).mean(dim=1, keepdim=True), model.codes(pixels)))
        if progress is not None:
            progress(min(first + batch_size, len(rows)), len(rows))
    images, kept, codes = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    coarse = F.interpolate(F.avg_pool2d(images, DOWNSAMPLING), scale_factor=DOWNSAMPLING, mode="bicubic")
    return Reconstructions(images, kept, coarse.clamp(0, 1), codes)
