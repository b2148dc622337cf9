"""Functions for all image formats: checks sizes before decoding, and converts pixels to 8-bit gray levels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossray.data.images.remarks import Remarks
from crossray.errors import UserError

#: Maximum number of pixels of an image; the largest radiographs have about 20 million. With `read.MAX_BYTES`, it keeps
#: the memory for one image, whatever its format and colors, below 1 GB.
MAX_PIXELS = 2**25

#: Minimum length of the short side of an image, in pixels.
MIN_SIDE = 32

#: Maximum ratio of long to short side.
MAX_ASPECT_RATIO = 8

#: Maximum colorfulness of a radiograph, in gray levels (`_colourfulness`).
MAX_COLOURFULNESS = 5.0

#: Maximum share of pixels that can be marks and not part of the image, at either end of the levels.
_FAR_SHARE = 0.1

#: Minimum gap to such marks, as a multiple of the range of the image itself.
_FAR_GAP = 2.0

#: Share of pixels within two levels of each other from which an image counts as blank.
_BLANK_SHARE = 0.99

#: Minimum range of levels in a radiograph.
_FEW_LEVELS = 16


class ColourPictureError(UserError):
    """The image has more color than any radiograph."""


def check_size(size: tuple[int, int], name: str) -> None:
    """Check that an image may be decoded.

    Args:
        size: width and height in pixels from the header.
        name: name of the image in messages.

    Raises:
        UserError: the image is too large, too small or too elongated for a radiograph.
    """
    width, height = size
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 10**6
        raise UserError(
            f"{name}: {width} x {height} pixels are more than {limit} million; give a single radiograph, scaled down"
        )
    if min(size) < MIN_SIDE:
        raise UserError(
            f"{name}: {width} x {height} pixels are too few; give a radiograph with at least {MIN_SIDE} on each side"
        )
    if max(size) > MAX_ASPECT_RATIO * min(size):
        raise UserError(f"{name}: {width} x {height} pixels is not the shape of a radiograph; give a single radiograph")


def grey(image: Image.Image, name: str, remark: Remarks) -> NDArray[np.uint8]:
    """Convert a decoded image of any mode, with at most 8 bits per sample, to gray levels.

    Args:
        image: the decoded image.
        name: name of the image in messages.
        remark: receives the warnings.

    Returns:
        (H, W) uint8, 0 = black. Transparent pixels are blended with black.

    Raises:
        ColourPictureError: the image is in color.
    """
    if image.mode == "1":
        image = image.convert("L")
    if image.mode == "L" and "transparency" not in image.info:
        return np.array(image)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        _, most = layer.getchannel("A").getextrema()
        if most == 0:
            remark("transparency", "hides every pixel, so that the image is black; export it without alpha")
        image = Image.new("RGB", layer.size)
        image.paste(layer, mask=layer)
    colours = image if image.mode == "RGB" else image.convert("RGB")
    if _colourfulness(colours) > MAX_COLOURFULNESS:
        raise ColourPictureError(f"{name}: a color picture, not a radiograph; give a gray-scale chest X-ray")
    return np.array(colours.convert("L"))


def scaled_to_bits(values: NDArray[np.uint16], bits: int) -> NDArray[np.uint8]:
    """Scale values from [0, 2^bits - 1] to [0, 255], in the same shape; larger values become white."""
    levels = np.full(2**16, 255, np.uint8)
    levels[: 2**bits] = np.round(np.arange(2**bits) * (255 / (2**bits - 1)))
    return levels[values]


def bits_in_use(values: NDArray[np.uint16], remark: Remarks) -> int:
    """Return the number of bits that 16-bit gray levels actually use, from 8 to 16.

    The highest level decides, except for a few levels far above all others (`without_far_ones`), such as a hot pixel or
    a marker of 65,535 in a 12-bit image.

    Args:
        values: samples of any shape.
        remark: receives the warning about ignored levels.
    """
    present, counts = histogram(values, 2**16)
    _, highest, far = without_far_ones(present.astype(np.float64), counts)
    if far:
        remark("samples", f"use {int(highest).bit_length()} bits, but for a few far above; these are white")
    return max(int(highest).bit_length(), 8)


def histogram(codes: NDArray[np.integer[Any]], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the codes that occur, ascending, and their counts, like `np.unique` but with little memory.

    Args:
        codes: integers from 0 to `size` - 1, of any shape.
        size: number of possible codes.
    """
    flat = codes.reshape(-1)
    counts = np.zeros(size, np.int64)
    for start in range(0, flat.size, 2**20):
        counts += np.bincount(flat[start : start + 2**20], minlength=size)
    present = np.flatnonzero(counts)
    return present, counts[present]


def without_far_ones(levels: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float, bool]:
    """Return the range of an image's levels without a few outlying ones.

    Levels are outlying if they are rare (`_FAR_SHARE` of the pixels at each end) and the gap to all others is
    `_FAR_GAP` times the range of those: there are no levels between the detector's measurements and a mark that was
    added later, whereas even the brightest structure has a blurred edge.

    Args:
        levels: (n,) distinct levels, ascending, n > 0.
        counts: (n,) number of pixels of each level.

    Returns:
        Lowest and highest level without outliers, and whether there are outliers.
    """
    low, high = 0, len(levels) - 1
    most = _FAR_SHARE * counts.sum()
    from_below, from_above = np.cumsum(counts), np.cumsum(counts[::-1])[::-1]
    for _ in range(2):  # marks may be at both ends
        inside = levels[low : high + 1]
        if len(inside) < 3:
            break
        gaps = np.diff(inside)
        place = low + int(gaps.argmax())
        gap = float(gaps.max())
        if from_above[place + 1] <= most and gap > _FAR_GAP * (levels[place] - levels[low]) and place > low:
            high = place
        elif from_below[place] <= most and gap > _FAR_GAP * (levels[high] - levels[place + 1]) and place + 1 < high:
            low = place + 1
    return float(levels[low]), float(levels[high]), (low, high) != (0, len(levels) - 1)


def remark_blank(pixels: NDArray[np.uint8], remark: Remarks) -> None:
    """Warn of a blank image, with one gray level or hardly more.

    Args:
        pixels: (H, W) gray levels.
        remark: receives the warning.
    """
    low, high = int(pixels.min()), int(pixels.max())
    if low == high:
        remark("pixels", "have one gray level in the whole image; check the export (in DICOM also the window)")
        return
    sample = pixels[:: max(1, pixels.shape[0] // 256), :: max(1, pixels.shape[1] // 256)]
    common = int(np.median(sample))
    if (np.abs(sample.astype(np.int16) - common) <= 2).mean() > _BLANK_SHARE:
        remark("pixels", "have one gray level in nearly the whole image; check the export (in DICOM also the window)")
    elif high - low < _FEW_LEVELS:
        remark("pixels", f"have fewer than {_FEW_LEVELS} of 256 gray levels; check the export")


def _colourfulness(image: Image.Image) -> float:
    """Measure the color of an RGB image that its brightness does not explain, in gray levels.

    A tint (blue film, sepia scan) depends only on the brightness, so a quadratic function of the brightness is first
    subtracted from the differences between the channels. Their mean on a thumbnail ignores noise and small marks.
    """
    red, green, blue = np.asarray(image.resize((64, 64), Image.Resampling.BOX), dtype=np.float64).reshape(-1, 3).T
    brightness = (red + green + blue) / (3 * 255)
    tint = np.stack([np.ones_like(brightness), brightness, brightness**2], axis=1)
    differences = np.stack([red - green, blue - green], axis=1)
    coefficients = np.linalg.lstsq(tint, differences, rcond=None)[0]
    return float(np.mean(np.abs(differences - tint @ coefficients)))
