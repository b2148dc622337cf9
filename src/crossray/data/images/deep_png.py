"""PNG files with 16 bits a sample: of those with several samples a pixel, Pillow keeps only the upper byte.

Its decoder can be told to keep the lower byte as well, so that such a file is decoded twice and loses nothing.
"""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from crossray.data.images.pixels import bits_in_use, scaled_to_bits
from crossray.data.images.remarks import Remarks

#: Pillow's raw modes for the upper and the lower byte of each sample (big-endian, "16L" takes the second byte of a
#: pair), the mode they decode to, and which channels hold the upper and the lower bytes of colors and of alpha. Gray
#: with alpha has four bytes a pixel and is decoded once, as if it were RGBA.
_RAW_MODES: dict[str, tuple[str, tuple[str, ...]]] = {
    "RGB;16B": ("RGB", ("RGB;16B", "RGB;16L")),
    "RGBA;16B": ("RGBA", ("RGBA;16B", "RGBA;16L")),
    "LA;16B": ("RGBA", ("RGBA",)),
}

#: Where Pillow keeps what says the orientation.
_ORIENTATION = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")


def is_deep(image: PngImageFile) -> bool:
    """Whether a PNG that is not decoded yet has 16 bits a sample."""
    return image.mode.startswith("I") or _raw_mode(image) in _RAW_MODES


def read_deep(image: PngImageFile, content: bytes, remark: Remarks) -> Image.Image:
    """Decode a PNG with 16 bits a sample to 8, by the bits that are in use.

    Args:
        image: opened from `content` and not decoded yet.
        content: the file.
        remark: receives the warnings.

    Returns:
        An image of mode L, RGB or RGBA (also for gray with alpha).
    """
    raw = _raw_mode(image)
    if raw not in _RAW_MODES:
        image.load()
        values = np.asarray(image).astype(np.uint16)
        return _with_orientation(Image.fromarray(scaled_to_bits(values, bits_in_use(values, remark))), image)
    mode, raw_modes = _RAW_MODES[raw]
    decoded = [_decoded(content, mode, raw_mode) for raw_mode in raw_modes]
    colours = 3 if mode == "RGB" or len(decoded) > 1 else 1
    bits = max(bits_in_use(_samples(decoded, channel), remark) for channel in range(colours))
    channels = [Image.fromarray(scaled_to_bits(_samples(decoded, channel), bits)) for channel in range(colours)]
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
    """(H, W) samples of a channel out of one image with both bytes, or of one image for each byte."""
    if len(decoded) == 1:
        upper, lower = (np.asarray(decoded[0].getchannel(2 * channel + byte)) for byte in (0, 1))
    else:
        upper, lower = (np.asarray(image.getchannel(channel)) for image in decoded)
    values = upper.astype(np.uint16)
    values <<= 8
    values |= lower
    return values


def _with_orientation(image: Image.Image, source: Image.Image) -> Image.Image:
    """The image with what its file says about its orientation."""
    image.info |= {key: source.info[key] for key in _ORIENTATION if key in source.info}
    return image


def _decoded(content: bytes, mode: str, raw_mode: str) -> Image.Image:
    image = PngImageFile(BytesIO(content))
    # what the decoder is told to unpack, and into which mode
    image._mode = mode
    image.tile = [tile._replace(args=raw_mode) for tile in image.tile]
    image.load()
    return image


def _opacity(alpha: NDArray[np.uint16], bits: int, remark: Remarks) -> NDArray[np.uint8]:
    """Alpha as 8 bits; one value above zero everywhere means opaque, whatever its width."""
    low, high = int(alpha.min()), int(alpha.max())
    if low == high and 0 < high < 2**16 - 1:
        remark("transparency", "has one value everywhere, not the highest; the image is taken for opaque")
        return np.full(alpha.shape, 255, np.uint8)
    return scaled_to_bits(alpha, max(high.bit_length(), bits, 8))
