"""Transforms stored gray-scale images to normalized inputs, like the published code, but a whole batch at once.

Resizing, cropping and flipping are one separable resampling: each output row (column) is a weighted sum of input rows
(columns), so a batch takes two batched matrix products, whatever the sizes of its images. The weights are those of the
triangle filter in Pillow and `torch.nn.functional.interpolate(antialias=True)`; if an image keeps its size, they are
exactly 0 and 1, and the pixels are copied instead. Rotation, shift and zoom follow as one affine sampling of the crops,
with black outside, as in the published order of operations.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from crossray.data.batches.batch import Inputs

#: Number of random numbers for the augmentation of one image: top, left, flip, angle, shift in x, shift in y.
DRAWS = 6


@dataclass(frozen=True)
class ImageTransform:
    """Geometry and normalization of images; saved as `preprocess.json`.

    Attributes:
        size: side length in pixels of the square image that the model sees.
        resize: length in pixels of the short side before cropping in training; 0 for the stored size.
        squash: in evaluation, resize the whole image to size x size without keeping the aspect ratio (R2Gen); otherwise
            resize the short side to `resize` and crop the center (PromptMRG, COACL).
        squash_train: in training, also resize the image to resize x resize first, without keeping the aspect ratio
            (UAR).
        flip: probability of a horizontal flip; 0 by default, because a flip contradicts "left" and "right" in the
            report.
        rotation: maximum angle of random rotation in degrees.
        translate: maximum random shift, as a share of the side length.
        scale: zoom factor in training.
        mean: mean of each channel, for pixels in [0, 1].
        std: standard deviation of each channel, for pixels in [0, 1].

    Raises:
        ValueError: a field has an impossible value.
    """

    size: int = 224
    resize: int = 256
    squash: bool = True
    squash_train: bool = False
    flip: float = 0.0
    rotation: float = 0.0
    translate: float = 0.0
    scale: float = 1.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"field 'size' is {self.size}; use at least 1.")
        if self.resize and self.resize < self.size:
            raise ValueError(f"field 'resize' is {self.resize}; use 0 or at least 'size' ({self.size}).")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"field 'flip' is {self.flip}; use a probability.")
        if self.scale <= 0 or min(self.std) <= 0:
            raise ValueError("fields 'scale' and 'std' must be above 0.")

    @staticmethod
    def draw(count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw the random numbers that `apply` needs for some images, (count, DRAWS) float32 in [0, 1), on the CPU."""
        return torch.rand(count, DRAWS, generator=generator)

    def apply(
        self,
        images: Tensor,
        sizes: Tensor,
        *,
        train: bool,
        generator: torch.Generator | None = None,
        draws: Tensor | None = None,
    ) -> Tensor:
        """Resize, crop, augment and normalize each image independently.

        Args:
            images: (N, 1, H, W) uint8, padded on the right and at the bottom.
            sizes: (N, 2) int64, height and width of each image without padding.
            train: random crop and augmentation; otherwise the evaluation transform.
            generator: CPU generator for the random numbers.
            draws: (N, DRAWS) random numbers instead of a generator, for example this process's share of a larger batch.

        Returns:
            (N, 3, size, size) float32, on the device of `images`.
        """
        with torch.autocast(images.device.type, enabled=False):
            if train:
                chances = (self.draw(len(images), generator) if draws is None else draws).to(images.device)
                pixels = self._augment(self._crop(images, sizes, chances), chances)
            else:
                pixels = self._crop(images, sizes, None)
            return self.normalise(pixels)

    def window(self, sizes: Tensor) -> Tensor:
        """Return the part of each image that the model sees in evaluation, to map its square image to the stored one.

        Args:
            sizes: (N, 2) int64, height and width of each stored image.

        Returns:
            (N, 4) float64: top, left, bottom and right, as fractions of the image's height and width.
        """
        resized = self._resized(sizes, train=False)
        corner = self._central_corner(resized)
        return torch.cat([corner, corner + self.size], dim=1) / resized.repeat(1, 2).double()

    def normalise(self, pixels: Tensor) -> Tensor:
        """Normalize pixels, (N, 1, S, S) float32 in [0, 255], with `mean` and `std` to (N, 3, S, S)."""
        mean = pixels.new_tensor(self.mean).view(1, 3, 1, 1)
        std = pixels.new_tensor(self.std).view(1, 3, 1, 1)
        return torch.addcmul(-mean / std, pixels.expand(-1, 3, -1, -1), 1 / (255 * std))

    def _resized(self, sizes: Tensor, train: bool) -> Tensor:
        """Return the height and width to which each image is resized before cropping, (N, 2) int64."""
        sizes = sizes.clamp_min(1)  # a missing view has size 0
        if not train and self.squash:
            return torch.full_like(sizes, self.size)
        short = sizes.amin(1, keepdim=True)
        target = (torch.full_like(short, self.resize) if self.resize else short).clamp_min(self.size)
        if train and self.squash_train:
            return target.expand_as(sizes)
        return target * sizes // short

    def _central_corner(self, resized: Tensor) -> Tensor:
        """Return top and left of the central crop of images of these sizes, (N, 2) int64."""
        # rounds half to even, as torchvision does
        return ((resized - self.size) / 2).round().long()

    def _crop(self, images: Tensor, sizes: Tensor, chances: Tensor | None) -> Tensor:
        """Resize, crop (at random or at the center) and flip images, (N, 1, size, size) float32 in [0, 255]."""
        resized = self._resized(sizes, train=chances is not None)
        room = resized - self.size
        if chances is None:
            corner = self._central_corner(resized)
        else:
            corner = (chances[:, :2] * (room + 1)).long().clamp(max=room)
        steps = torch.arange(self.size, device=images.device)
        rows = corner[:, :1] + steps
        columns = corner[:, 1:] + steps
        if chances is not None:
            columns = torch.where(chances[:, 2:3] < self.flip, columns.flip(1), columns)
        if torch.equal(resized, sizes):
            index = torch.arange(len(images), device=images.device).view(-1, 1, 1)
            return images[:, 0][index, rows.unsqueeze(2), columns.unsqueeze(1)].unsqueeze(1).float()
        vertical = _weights(rows, sizes[:, 0], resized[:, 0], images.shape[2])
        horizontal = _weights(columns, sizes[:, 1], resized[:, 1], images.shape[3])
        pixels = images[:, 0].float()
        return torch.bmm(torch.bmm(vertical, pixels), horizontal.transpose(1, 2)).unsqueeze(1)

    def _augment(self, pixels: Tensor, chances: Tensor) -> Tensor:
        """Rotate, shift and zoom crops about their centers, (N, 1, S, S); pixels from outside a crop are black."""
        if not (self.rotation or self.translate) and self.scale == 1:
            return pixels
        signed = 2 * chances[:, 3:] - 1
        angle = torch.deg2rad(signed[:, 0] * self.rotation)
        # `grid_sample` measures in half side lengths
        shift = 2 * self.translate * signed[:, 1:]
        cosine, sine = torch.cos(angle) / self.scale, torch.sin(angle) / self.scale
        side = pixels.shape[-1]
        centres = (torch.arange(side, device=pixels.device) * 2 + 1) / side - 1
        across = (centres - shift[:, :1]).unsqueeze(1)
        down = (centres - shift[:, 1:]).unsqueeze(2)
        cosine, sine = cosine.view(-1, 1, 1), sine.view(-1, 1, 1)
        grid = torch.stack([cosine * across + sine * down, cosine * down - sine * across], 3)
        return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _weights(places: Tensor, stored: Tensor, resized: Tensor, length: int) -> Tensor:
    """Compute the weights of a triangle filter from stored to resized pixels.

    Args:
        places: (N, S) int64, indices of the requested pixels in the resized image.
        stored: (N,) size of the image in pixels.
        resized: (N,) size in pixels after resizing.
        length: size of the padded image in pixels.

    Returns:
        (N, S, length) float32; each row sums to 1 over the image and is 0 over the padding.
    """
    ratio = (stored.double() / resized).unsqueeze(1)
    centre = ((places + 0.5) * ratio).float().unsqueeze(2)
    pixel = torch.arange(length, device=places.device)
    # in place, because the weights of a batch are as large as its images
    weights = (pixel + 0.5 - centre).abs_().mul_(-1 / ratio.clamp_min(1).float().unsqueeze(2)).add_(1).clamp_min_(0)
    weights.mul_(pixel < stored.view(-1, 1, 1))
    return weights.div_(weights.sum(2, keepdim=True).clamp_min_(1e-6))


def transform_inputs(
    inputs: Inputs,
    transform: ImageTransform,
    train: bool,
    generator: torch.Generator | None = None,
    draws: Tensor | None = None,
) -> Inputs:
    """Apply `transform` to every view of every study; each view is augmented separately.

    Args:
        inputs: images (B, V, 1, H, W) uint8; inputs with H = W = 0 have cached features and are returned unchanged.
        transform: the transform.
        train: see `ImageTransform.apply`.
        generator: see `ImageTransform.apply`.
        draws: (B, V, DRAWS) random numbers instead of a generator.

    Returns:
        Inputs with images (B, V, 3, size, size) float32; zero for missing views.
    """
    studies, views, _, height, width = inputs.images.shape
    if not height * width:
        return inputs
    if train and draws is None:
        draws = transform.draw(studies * views, generator)
    present = inputs.view_mask.flatten()
    chosen = present.nonzero().squeeze(1)
    pixels = transform.apply(
        inputs.images.flatten(0, 1)[chosen],
        inputs.image_size.flatten(0, 1)[chosen],
        train=train,
        draws=None if draws is None else draws.flatten(0, -2)[chosen.to(draws.device)],
    )
    if len(chosen) < len(present):
        pixels = pixels.new_zeros(len(present), *pixels.shape[1:]).index_copy_(0, chosen, pixels)
    return replace(inputs, images=pixels.view(studies, views, *pixels.shape[1:]))
