"""What all image formats share: which sizes may be decoded, and decoded pixels as 8-bit grey levels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossray.errors import UserError

#: Largest image that is decoded, in pixels; the largest radiographs have about 20 million. With `read.MAX_BYTES` it
#: keeps the memory for one image, whatever its format and colours, below 1 GB.
MAX_PIXELS = 2**25

#: Shortest side of an image, in pixels.
MIN_SIDE = 32

#: Largest ratio of long to short side.
MAX_ASPECT_RATIO = 8

#: Largest colourfulness of a radiograph, in grey levels (`_colourfulness`).
MAX_COLOURFULNESS = 5.0


def check_size(size: tuple[int, int], name: str) -> None:
    """See that an image may be decoded.

    Args:
        size: width and height in pixels, as the header says.
        name: what an error message calls the image.

    Raises:
        UserError: it is too large, too small or too long for a radiograph.
    """
    width, height = size
    if width * height > MAX_PIXELS:
        limit = MAX_PIXELS // 10**6
        raise UserError(
            f"{name}: {width} x {height} pixels, over {limit} million; give a single radiograph, scaled down"
        )
    if min(size) < MIN_SIDE:
        raise UserError(f"{name}: {width} x {height} pixels; a radiograph needs at least {MIN_SIDE} each way")
    if max(size) > MAX_ASPECT_RATIO * min(size):
        raise UserError(f"{name}: {width} x {height} pixels is no radiograph's shape; give a single radiograph")


def grey(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """Grey levels of a decoded image of any mode.

    Args:
        image: as the decoder gave it.
        name: what an error message calls it.

    Returns:
        (H, W) uint8, 0 = black.

    Raises:
        UserError: it is a colour picture.
    """
    if image.mode.startswith("I"):
        return _grey_from_deep(np.asarray(image))
    if image.mode == "1":
        image = image.convert("L")
    if image.mode == "L" and "transparency" not in image.info:
        return np.array(image)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", layer.size)
        image.paste(layer, mask=layer)
    colours = image if image.mode == "RGB" else image.convert("RGB")
    if _colourfulness(colours) > MAX_COLOURFULNESS:
        raise UserError(f"{name}: a colour picture, not a radiograph; give a grey-scale chest X-ray")
    return np.array(colours.convert("L"))


def _grey_from_deep(values: NDArray[Any]) -> NDArray[np.uint8]:
    """The bits in use of 16-bit grey levels, scaled to 0-255."""
    bits = max(int(values.max()).bit_length(), 8)
    levels = np.round(np.arange(2**bits) * (255 / (2**bits - 1))).astype(np.uint8)
    grey: NDArray[np.uint8] = levels[values]
    return grey


def _colourfulness(image: Image.Image) -> float:
    """How much colour an RGB image has that its brightness does not explain, in grey levels.

    A tint (blue film, sepia scan) depends on the brightness alone; a quadratic in the brightness is therefore taken
    out of the differences between the channels first. Their mean on a thumbnail counts neither noise nor a small mark.
    """
    red, green, blue = np.asarray(image.resize((64, 64), Image.Resampling.BOX), dtype=np.float64).reshape(-1, 3).T
    brightness = (red + green + blue) / (3 * 255)
    tint = np.stack([np.ones_like(brightness), brightness, brightness**2], axis=1)
    differences = np.stack([red - green, blue - green], axis=1)
    coefficients = np.linalg.lstsq(tint, differences, rcond=None)[0]
    return float(np.mean(np.abs(differences - tint @ coefficients)))
