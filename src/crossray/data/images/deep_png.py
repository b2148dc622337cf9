"""Reads PNG files with 16 bits per sample; with several samples per pixel, Pillow keeps only the upper bytes.

Its decoder can also be told to keep the lower bytes, so such a file is decoded twice and loses nothing.
"""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from crossray.data.images.pixels import bits_in_use, scaled_to_bits
from crossray.data.images.remarks import Remarks

#: By Pillow's raw mode of the file: the mode to decode to, and the raw modes for the upper and for the lower byte of
#: each sample ("16L" takes the second byte of a pair, and PNG is big-endian). Gray with alpha has four bytes per pixel
#: and is decoded once, as if it were RGBA.
_RAW_MODES: dict[str, tuple[str, tuple[str, ...]]] = {
    "RGB;16B": ("RGB", ("RGB;16B", "RGB;16L")),
    "RGBA;16B": ("RGBA", ("RGBA;16B", "RGBA;16L")),
    "LA;16B": ("RGBA", ("RGBA",)),
}

#: Keys of `Image.info` that can contain the orientation.
_ORIENTATION = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")


def is_deep(image: PngImageFile) -> bool:
    """Whether a PNG that is not yet decoded has 16 bits per sample."""
    return image.mode.startswith("I") or _raw_mode(image) in _RAW_MODES


def read_deep(image: PngImageFile, content: bytes, remark: Remarks) -> Image.Image:
    """Decode a PNG with 16 bits per sample, and scale the bits that are in use to 8 bits.

    Fully transparent pixels, such as those of the level or color that `tRNS` names, do not count and become black.

    Args:
        image: image opened from `content` and not yet decoded.
        content: content of the file.
        remark: receives the warnings.

    Returns:
        Image of mode L, RGB or RGBA (also for gray with alpha).
    """
    raw, transparent = _raw_mode(image), image.info.get("transparency")
    if raw not in _RAW_MODES:
        image.load()
        values = np.asarray(image).astype(np.uint16)
        values[values == transparent] = 0
        return _with_orientation(Image.fromarray(scaled_to_bits(values, bits_in_use(values, remark))), image)
    mode, raw_modes = _RAW_MODES[raw]
    decoded = [_decoded(content, mode, raw_mode) for raw_mode in raw_modes]
    colours = 3 if mode == "RGB" or len(decoded) > 1 else 1
    shown: NDArray[np.bool_] | bool = True
    if mode == "RGBA":
        shown = _samples(decoded, colours) > 0
    elif transparent is not None:
        shown = _differs(decoded, transparent)
    bits = max(bits_in_use(_samples(decoded, channel) * shown, remark) for channel in range(colours))
    channels = [Image.fromarray(scaled_to_bits(_samples(decoded, channel) * shown, bits)) for channel in range(colours)]
    if mode == "RGB":
        return _with_orientation(Image.merge("RGB", channels), decoded[0])
    opacity = Image.fromarray(_opacity(_samples(decoded, colours), bits, remark))
    return _with_orientation(Image.merge("RGBA", [*(channels if colours == 3 else channels * 3), opacity]), decoded[0])


def _raw_mode(image: PngImageFile) -> str:
    if not image.tile:
        return ""
    arguments = image.tile[0].args
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _samples(decoded: Sequence[Image.Image], channel: int) -> NDArray[np.uint16]:
    """Combine the bytes of a channel, from one image with both or from one image for each, to (H, W) samples."""
    if len(decoded) == 1:
        upper, lower = (np.asarray(decoded[0].getchannel(2 * channel + byte)) for byte in (0, 1))
    else:
        upper, lower = (np.asarray(image.getchannel(channel)) for image in decoded)
    values = upper.astype(np.uint16)
    values <<= 8
    values |= lower
    return values


def _differs(decoded: Sequence[Image.Image], colour: Sequence[int]) -> NDArray[np.bool_]:
    """Whether pixels have another color, (H, W)."""
    differing = [_samples(decoded, channel) != level for channel, level in enumerate(colour)]
    return np.asarray(np.any(differing, axis=0), np.bool_)


def _with_orientation(image: Image.Image, source: Image.Image) -> Image.Image:
    """Copy the orientation of `source` to an image, and return the image."""
    image.info |= {key: source.info[key] for key in _ORIENTATION if key in source.info}
    return image


def _decoded(content: bytes, mode: str, raw_mode: str) -> Image.Image:
    image = PngImageFile(BytesIO(content))
    # make the decoder unpack these bytes into this mode
    image._mode = mode
    image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
    image.load()
    return image


def _opacity(alpha: NDArray[np.uint16], bits: int, remark: Remarks) -> NDArray[np.uint8]:
    """Convert alpha to 8 bits; an image with the same alpha above zero everywhere is opaque, whatever the value."""
    low, high = int(alpha.min()), int(alpha.max())
    if low == high and 0 < high < 2**16 - 1:
        remark("transparency", "has one value everywhere, not the highest; the image is taken for opaque")
        return np.full(alpha.shape, 255, np.uint8)
    return scaled_to_bits(alpha, max(high.bit_length(), bits, 8))
