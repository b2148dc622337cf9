"""Reads image files (PNG, JPEG, DICOM) as 8-bit gray arrays; no other package opens images."""

from crossray.data.images.pixels import MAX_ASPECT_RATIO, MAX_COLOURFULNESS, MAX_PIXELS, MIN_SIDE
from crossray.data.images.positions import FileDescription, view_position
from crossray.data.images.read import (
    MAX_BYTES,
    MAX_SCANS,
    SUFFIXES,
    ImageFile,
    describe_content,
    describe_image,
    read_image,
    resize_short_side,
)

__all__ = [
    "MAX_ASPECT_RATIO",
    "MAX_BYTES",
    "MAX_COLOURFULNESS",
    "MAX_PIXELS",
    "MAX_SCANS",
    "MIN_SIDE",
    "SUFFIXES",
    "FileDescription",
    "ImageFile",
    "describe_content",
    "describe_image",
    "read_image",
    "resize_short_side",
    "view_position",
]
