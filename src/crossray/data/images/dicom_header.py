"""Reads the header of a DICOM file (PS3.3, PS3.5), each field separately, so that an error names its field.

Only the elements in `FIELDS` are parsed, so a patient's name never reaches memory or messages.
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from crossray.errors import UserError, quoted

#: Maximum size of a header in bytes; those of radiographs have a few thousand.
MAX_HEADER = 2**22

PIXEL_DATA = 0x7FE00010

#: Elements with pixels; the first two are not supported.
_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", PIXEL_DATA: "PixelData"}

FIELDS = (
    *("SOPClassUID", "Modality", "BodyPartExamined", "ViewPosition", "PresentationIntentType"),
    *("StudyInstanceUID", "PatientID"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence", "PresentationLUTShape"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction"),
)

_UNDEFINED = 0xFFFFFFFF

#: A number as text; some systems write a decimal comma.
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?")

#: Digits with a comma that could be a thousands separator.
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")


class Header:
    """The fields of one file up to its pixels.

    Attributes:
        name: name of the file in messages.
        pixels: "PixelData", another element of `_PIXELS`, or "" if there is none.
        encapsulated: whether the pixels have an undefined length, as compressed pixels do.
        whole: whether the file ends with its last element.
    """

    def __init__(self, content: bytes, name: str) -> None:
        """Parse the content of a file, or its first `MAX_HEADER` + 1 bytes.

        Raises:
            UserError: the whole file is deflated. Damaged bytes can raise any error; see `one_sentence`.
        """
        # pydicom would inflate such a file at once, whatever its size; the identifier occurs nowhere else in a file
        if uid.DeflatedExplicitVRLittleEndian.encode() in content[:MAX_HEADER]:
            raise UserError(f"{name}: the whole file is deflated, which is not supported; export it uncompressed")
        self.name = name
        self.pixels, self.encapsulated, end = "", False, 0
        stream = BytesIO(content[:MAX_HEADER])

        def at_pixels(tag: BaseTag, _: str | None, length: int) -> bool:
            nonlocal end
            if tag >= min(_PIXELS):
                self.pixels, self.encapsulated = _PIXELS.get(int(tag), self.pixels), length == _UNDEFINED
                return True
            end = stream.tell() + (0 if length == _UNDEFINED else length)
            return False

        tags: list[BaseTag | int] = [Tag(field) for field in FIELDS]
        self.dataset: Dataset = read_partial(stream, at_pixels, force=True, specific_tags=tags)
        self.whole = 0 < end == len(content) <= MAX_HEADER
        self._too_long = len(content) > MAX_HEADER

    @property
    def syntax(self) -> uid.UID | None:
        """TransferSyntaxUID; None if it is missing."""
        syntax: uid.UID | None = self.dataset.file_meta.get("TransferSyntaxUID")
        return syntax

    def check_pixels(self) -> None:
        """Check that the file contains supported pixels.

        Raises:
            UserError: the pixels are missing or not supported, or the file is truncated; the message says which.
        """
        if self.pixels == "PixelData":
            return
        if self.pixels:
            raise UserError(
                f"{self.name}: {self.pixels} is not supported; export the image with whole numbers (PixelData)"
            )
        if self._too_long:
            raise UserError(f"{self.name}: the header is larger than {MAX_HEADER // 2**20} MiB; export the image "
                            "without its private elements")  # fmt: skip
        if not self.whole:
            raise UserError(f"{self.name}: the DICOM file is truncated and has no pixels; copy or export it again")
        modality = f" (Modality {code(self.text('Modality'))})" if self.text("Modality") else ""
        raise UserError(f"{self.name}: the DICOM file has no pixels{modality}; give the file of a radiograph")

    def has(self, field: str) -> bool:
        """Whether the field exists and is not empty."""
        element: Any = self.dataset.get_item(Tag(field)) if Tag(field) in self.dataset else None
        return element is not None and element.value not in (None, b"", "")

    def texts(self, field: str) -> list[str]:
        """Return the values of a field as text without surrounding spaces; [] if there are none."""
        if not self.has(field):
            return []
        value = self.dataset.get_item(Tag(field)).value
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        return [part.strip(" \0\t\r\n") for part in text.split("\\")]

    def text(self, field: str) -> str:
        """Return the first value of a field as text; "" if there is none."""
        return next(iter(self.texts(field)), "")

    def integer(self, field: str) -> int | None:
        """Return the first value of an integer field; None if there is none.

        Raises:
            UserError: the value is not a whole number.
        """
        if not self.has(field):
            return None
        try:
            value = self.dataset.get(field)
            return int(value if isinstance(value, int | str | float) else value[0])
        except Exception:  # pydicom can raise almost any error
            raise UserError(f"{self.name}: {field} is not a whole number; export the image again") from None

    def needed(self, field: str) -> int:
        """Return the first value of a required integer field.

        Raises:
            UserError: the field is missing, or the value is not a whole number.
        """
        value = self.integer(field)
        if value is None:
            raise UserError(f"{self.name}: {field} is missing; export the image again")
        return value

    def numbers(self, field: str) -> list[float | None]:
        """Return the values of a decimal field, with None for invalid ones (`number`)."""
        return [number(text) for text in self.texts(field)]


def number(text: str) -> float | None:
    """Parse a decimal number with a point or a comma; None for any other text, or if the comma may mark thousands."""
    if not _NUMBER.fullmatch(text) or _THOUSANDS.fullmatch(text):
        return None
    value = float(text.replace(",", "."))
    return value if abs(value) < 1e12 else None


def code(text: str) -> str:
    """Format a coded value for messages; a text that cannot be a code is quoted or replaced by its length."""
    return text if re.fullmatch(r"[A-Za-z0-9_ ./-]{1,16}", text) else quoted(text)


@contextmanager
def one_sentence(name: str) -> Iterator[None]:
    """Turn errors from damaged bytes into one sentence; drop pydicom's warnings, because they quote the header."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logger.setLevel(logging.CRITICAL + 1)
            yield
    except (UserError, MemoryError):
        raise
    except Exception:
        raise UserError(f"{name}: the DICOM data are truncated or damaged; copy or export the file again") from None
    finally:
        logger.setLevel(level)


@dataclass(slots=True)
class Layout:
    """The pixel format according to the header, corrected where the data contradict it.

    Attributes:
        rows: number of rows of the image.
        columns: number of columns of the image.
        samples: number of samples per pixel, 1 or 3.
        colour: PhotometricInterpretation in capitals.
        allocated: number of bits of a stored word, 8 or 16.
        stored: BitsStored, the number of bits that are used.
        signed: whether PixelRepresentation is 1.
        marked: "YBR" or "RGB" according to the markers of a compressed image; "" if unknown.
    """

    rows: int
    columns: int
    samples: int
    colour: str
    allocated: int
    stored: int
    signed: bool
    marked: str = ""
