"""Reads radiographs; the bytes of image files are decoded only in this package.

The format is detected by content, and each format has one reader in `_READERS`. The DICOM reader,
`crossray.data.images.dicom`, is loaded for the first DICOM file, because its packages are an optional extra.
"""

import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile as ImageFilePlugin
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from crossray.data.images.deep_png import is_deep, read_deep
from crossray.data.images.jpeg import not_read
from crossray.data.images.pixels import check_size, grey, remark_blank
from crossray.data.images.polarity import negative
from crossray.data.images.positions import FileDescription
from crossray.data.images.remarks import Remarks
from crossray.data.study import VIEW_POSITIONS, View
from crossray.errors import UserError
from crossray.files.names import printable

#: Maximum size of an image file in bytes.
MAX_BYTES = 2**27

#: Maximum number of scans of a JPEG; progressive ones have about ten, and many tiny scans would decode for hours.
MAX_SCANS = 100

_MAGIC: tuple[tuple[str, int, bytes], ...] = (
    ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("DICOM", 128, b"DICM"),
    ("GIF", 0, b"GIF8"),
    ("TIFF", 0, b"II*\x00"),
    ("TIFF", 0, b"MM\x00*"),
    ("BMP", 0, b"BM"),
    ("WebP", 8, b"WEBP"),
    ("JPEG 2000", 4, b"jP  \r\n\x87\n"),
)

#: Number of bytes that identify the format.
_MAGIC_BYTES = max(at + len(magic) for _, at, magic in _MAGIC)

#: Formats by their usual file suffixes; formats that are not supported are listed for messages.
SUFFIXES = {
    ".png": "PNG",
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG"),
    **dict.fromkeys((".dcm", ".dicom"), "DICOM"),
    ".gif": "GIF",
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    ".bmp": "BMP",
    ".webp": "WebP",
    **dict.fromkeys((".jp2", ".j2k"), "JPEG 2000"),
}


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A view in a PNG, JPEG or DICOM file (implements `crossray.data.study.ImageRef`).

    Attributes:
        path: path of the file.
        position: one of `crossray.data.study.VIEW_POSITIONS`.
        draft: decode a large JPEG at a reduced scale, which is several times faster and changes the pixels slightly.
    """

    path: Path
    position: str = "unknown"
    draft: bool = False

    def __post_init__(self) -> None:
        if self.position not in VIEW_POSITIONS:
            raise UserError(f"{self.name}: position {self.position!r} is not one of {', '.join(VIEW_POSITIONS)}")

    @property
    def name(self) -> str:
        """The path in printable form."""
        return printable(self.path)

    def read(self, size: int) -> View:
        """Read the view and resize it to a short side of `size` pixels, preserving the aspect ratio.

        The warnings about the file are part of the result.

        Raises:
            UserError: the file is missing or is not a readable radiograph (`read_image`).
        """
        remark = Remarks()
        # twice the size leaves enough pixels for resampling
        pixels = _read(self.path, self.name, 2 * size if self.draft else None, remark)
        return View(resize_short_side(pixels, size), warnings=tuple(remark.texts))


def read_image(
    source: Path | str | bytes, name: str | None = None, *, draft_size: int | None = None
) -> NDArray[np.uint8]:
    """Read a radiograph as gray levels from a PNG, JPEG or DICOM file or from its bytes.

    * PNG with 16 bits per sample: the largest value decides how many bits are used (at least 8), and these are scaled
      to 0-255, so 12-bit pixels in a 16-bit file are not nearly black. A few pixels far above all others become white.
      Contrast is not stretched otherwise.
    * Transparent pixels are blended with black.
    * The EXIF orientation is applied, so left and right are as in a viewer.
    * Tinted films are accepted, color photographs are not (`_colourfulness`).
    * DICOM: see `crossray.data.images.dicom.read_dicom`.
    * Resolved oddities, such as a header that contradicts the values, are logged as warnings; `ImageFile.read` returns
      them instead.

    Args:
        source: path or content of the file.
        name: name of the image in messages; by default, the path.
        draft_size: let the JPEG decoder reduce the image by 2, 4 or 8, as long as both sides have at least this size.

    Returns:
        (H, W) uint8, 0 = black.

    Raises:
        UserError: the file is missing, empty, truncated, damaged, too large, too small, of another format, or a color
            photograph; its suffix does not match its content; or the packages for DICOM are not installed.
    """
    remark = Remarks()
    name = name or ("image" if isinstance(source, bytes) else printable(source))
    pixels = _read(source, name, draft_size, remark)
    remark.log(name)
    return pixels


def _read(source: Path | str | bytes, name: str, draft_size: int | None, remark: Remarks) -> NDArray[np.uint8]:
    content = source if isinstance(source, bytes) else _file_content(Path(source), name)
    kind = _format(content, name)
    suffix_kind = SUFFIXES.get(Path(name).suffix.lower(), kind)
    if suffix_kind != kind:
        raise UserError(
            f"{name}: the suffix says {suffix_kind}, the content is {kind}; rename or export the file again"
        )
    pixels = _READERS[kind](content, name, draft_size, remark)
    remark_blank(pixels, remark)
    if kind != "DICOM" and negative(pixels):  # no header states the polarity
        remark("pixels", "look like a negative: air is bright; check the export, and invert the image")
    return pixels


def describe_image(path: Path) -> FileDescription:
    """Return position and study of a view, as far as its file states them, and whether the file is an image.

    Args:
        path: path of a file of any format.

    Raises:
        UserError: the file cannot be read, or its DICOM header is damaged.
    """
    name = printable(path)
    content = _file_content(path, name, most=_MAGIC_BYTES)
    if _kind(content) == "DICOM":
        reader = _dicom(name)
        described: FileDescription = reader.describe(_file_content(path, name, most=reader.MAX_HEADER + 1), name)
        return described
    return FileDescription(is_image=_kind(content) is not None or not _is_something_else(path, content))


def describe_content(content: bytes, name: str) -> FileDescription:
    """Describe a file in memory, as `describe_image` does.

    Args:
        content: content of the file.
        name: name of the file in messages.

    Raises:
        UserError: its DICOM header is damaged.
    """
    if _kind(content) != "DICOM":
        return FileDescription()
    reader = _dicom(name)
    described: FileDescription = reader.describe(content[: reader.MAX_HEADER + 1], name)
    return described


def _is_something_else(path: Path, content: bytes) -> bool:
    """Whether a file of unknown format is certainly not an image, by its suffix or because it is text."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return False
    if suffix[1:].isalpha() or suffix == ".u8":  # a dataset prepared in the folder of a study
        return True
    return bool(content) and all(32 <= byte < 127 or byte in b"\t\r\n" or byte > 127 for byte in content)


def resize_short_side(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resample an image (antialiased, bilinear) to a short side of `size` pixels, keeping the aspect ratio.

    An image of at least four times that size is first averaged over blocks, to at least twice the size. This is three
    times as fast and changes the gray levels of a radiograph by at most one or two.

    Args:
        pixels: (H, W) uint8.
        size: length of the short side in pixels; the long side is rounded down, as torchvision's `Resize` does.

    Returns:
        (H', W') uint8 with min(H', W') = size; `pixels` itself if it already has this size.
    """
    height, width = pixels.shape
    short = min(height, width)
    if short == size:
        return pixels
    target = (width * size // short, height * size // short)
    return np.array(Image.fromarray(pixels).resize(target, Image.Resampling.BILINEAR, reducing_gap=2.0))


def _file_content(path: Path, name: str, *, most: int = MAX_BYTES) -> bytes:
    """Read a file, or its first `most` bytes."""
    try:
        if not path.is_file():
            raise UserError(f"{name}: no such image file; check the path")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{name}: larger than {MAX_BYTES // 2**20} MiB; give a single radiograph")
        with path.open("rb") as file:
            return file.read(most)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "invalid path"
        raise UserError(f"{name}: cannot be read ({reason}); check the path and its permissions") from None


def _kind(content: bytes) -> str | None:
    """Detect the format from the first bytes; None if unknown."""
    kind = next((kind for kind, at, magic in _MAGIC if content[at : at + len(magic)] == magic), None)
    return "DICOM" if kind is None and _is_bare_dicom(content) else kind


def _is_bare_dicom(content: bytes) -> bool:
    """Whether the content starts with an element of group 2 or 8, as DICOM without its first 132 bytes does."""
    if len(content) < _MAGIC_BYTES or content[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
        return False
    element, length = content[2:4], int.from_bytes(content[4:8], "little")
    explicit = content[4:6] in (b"UL", b"OB", b"CS", b"UI", b"SH", b"LO", b"DA", b"TM", b"SQ", b"UN")
    return explicit or (content[:2] == b"\x08\x00" and element[1] <= 0x60 and length <= 256)


def _format(content: bytes, name: str) -> str:
    if not content:
        raise UserError(f"{name}: the image file is empty; copy it again")
    kind = _kind(content)
    if kind is None:
        raise UserError(f"{name}: not a PNG, JPEG or DICOM file; give a radiograph in one of these formats")
    if kind not in _READERS:
        raise UserError(f"{name}: {kind} is not supported; export the radiograph as PNG or JPEG")
    return kind


_Reader = Callable[[bytes, str, int | None, Remarks], NDArray[np.uint8]]


def _read_with_pillow(kind: str, decoder: Callable[[io.BytesIO], ImageFilePlugin]) -> _Reader:
    """Create a reader for one of Pillow's decoders; no other decoder is used, whatever the content claims to be."""

    def read(content: bytes, name: str, draft_size: int | None, remark: Remarks) -> NDArray[np.uint8]:
        if kind == "JPEG" and (reason := not_read(content)):
            raise UserError(f"{name}: {reason} is not supported; export the radiograph as PNG or as 8-bit JPEG")
        try:
            image = decoder(io.BytesIO(content))
            check_size(image.size, name)
            if kind == "PNG":
                # decoding alone does not notice a damaged checksum or a missing end
                image.verify()
                image = decoder(io.BytesIO(content))
            elif _may_have_scans(image) and content.count(b"\xff\xda") > MAX_SCANS:
                raise UserError(
                    f"{name}: more than {MAX_SCANS} scans, which no camera or scanner writes; export the image again"
                )
            elif draft_size is not None:
                image.draft(None, (draft_size, draft_size))
            decoded: Image.Image = image
            if isinstance(image, PngImageFile) and is_deep(image):
                decoded = read_deep(image, content, remark)
            else:
                image.load()
            ImageOps.exif_transpose(decoded, in_place=True)
            return grey(decoded, name, remark)
        except (UserError, MemoryError):
            raise
        except Exception:  # decoders can raise almost any error for damaged bytes: OSError, SyntaxError, struct.error
            raise UserError(
                f"{name}: the {kind} data are truncated or damaged; copy or export the file again"
            ) from None

    return read


def _may_have_scans(image: ImageFilePlugin) -> bool:
    """Whether a JPEG may have several scans; the decoder rejects a second scan of a sequential gray-scale JPEG.

    Counting the scans of a large file takes a tenth of the time of decoding it.
    """
    return image.mode != "L" or "progressive" in image.info


def _read_dicom(content: bytes, name: str, _: int | None, remark: Remarks) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = _dicom(name).read_dicom(content, name, remark)
    return pixels


def _dicom(name: str) -> ModuleType:
    if importlib.util.find_spec("pydicom") is None:
        raise UserError(f"{name}: reading DICOM needs pydicom; pip install 'crossray[dicom]'")
    from crossray.data.images import dicom

    return dicom


_READERS: dict[str, _Reader] = {
    "PNG": _read_with_pillow("PNG", PngImageFile),
    "JPEG": _read_with_pillow("JPEG", JpegImageFile),
    "DICOM": _read_dicom,
}
