"""Converts DICOM images with three samples per pixel to gray levels (PS3.3 C.7.6.3.1.2)."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crossray.data.images.dicom_header import Layout
from crossray.data.images.pixels import grey
from crossray.data.images.remarks import Remarks

#: Factor by which the other interpretation must be farther from gray for the values to decide.
_CERTAIN = 4.0


def grey_of_colour(values: NDArray[np.uint8], layout: Layout, name: str, remark: Remarks) -> NDArray[np.uint8]:
    """Convert a radiograph with three samples per pixel to gray levels.

    For a gray image, the values show whether they are R, G, B or Y, Cb, Cr: R, G and B are equal, or Cb and Cr are 128.
    For a tinted image, the markers of a JPEG decide, or else the header.

    Args:
        values: (H, W, 3) uint8.
        layout: pixel format from the header and the markers.
        name: name of the image in messages.
        remark: receives the warnings.

    Returns:
        (H, W) uint8.

    Raises:
        UserError: the image is in color, or the meaning of its samples cannot be determined.
    """
    said = "YBR" if layout.colour.startswith("YBR_FULL") or layout.colour == "YBR_PARTIAL_422" else "RGB"
    found = _colours(values) or layout.marked or said
    if found != said:
        remark(
            "PhotometricInterpretation", f"is {layout.colour}, but the values are {_NAMES[found]}; they are believed"
        )
    mode = "YCbCr" if found == "YBR" else "RGB"
    return grey(Image.frombytes(mode, values.shape[1::-1], np.ascontiguousarray(values).tobytes()), name, remark)


_NAMES = {"YBR": "Y, Cb and Cr", "RGB": "R, G and B"}


def _colours(values: NDArray[np.uint8]) -> str:
    """Infer the color space of a gray image from its values: "RGB", "YBR", or "" if they do not tell."""
    height, width = values.shape[:2]
    some = values[:: max(1, height // 256), :: max(1, width // 256)].astype(np.float64)
    rgb = np.abs(np.diff(some, axis=-1)).mean()
    ybr = np.abs(some[..., 1:] - 128).mean()
    if min(rgb, ybr) > max(rgb, ybr) / _CERTAIN:
        return ""
    return "RGB" if rgb < ybr else "YBR"
