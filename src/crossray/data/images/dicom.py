"""Radiographs in DICOM files (PS3.3, PS3.5): what the header must say, and the first frame as grey levels.

Of the header only the elements in `_FIELDS` are ever parsed: a patient's name is not even in memory, so that it cannot
reach a message. Sizes are checked before anything is decoded, those of a compressed codestream against the header's.
"""

import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_partial
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.tag import BaseTag, Tag

from crossray.data.images.dicom_levels import grey_levels
from crossray.data.images.pixels import check_size, grey
from crossray.errors import UserError

#: Longest header that is parsed, in bytes; those of radiographs have a few thousand.
MAX_HEADER = 2**22

#: Most pieces that the compressed pixels of a file may be cut into.
MAX_FRAGMENTS = 2**14

_LOGGER = logging.getLogger(__name__)

_PIXEL_DATA = 0x7FE00010

_FIELDS = (
    *("Modality", "BodyPartExamined", "ViewPosition", "PresentationIntentType", "StudyInstanceUID"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction"),
)

_RADIOGRAPHY = ("CR", "DX", "RG")

#: Modalities that are named in the refusal; of any other value the message says that it is another one.
_OTHER_MODALITIES = {
    "CT": "computed tomography",
    "MR": "magnetic resonance",
    "US": "ultrasound",
    "MG": "mammography",
    "NM": "nuclear medicine",
    "PT": "positron emission tomography",
    "XA": "angiography",
    "RF": "fluoroscopy",
    "IO": "dental radiography",
    "PX": "panoramic dental radiography",
    "ES": "endoscopy",
    "XC": "photography",
    "SM": "slide microscopy",
    "OP": "ophthalmic photography",
    "SEG": "segmentation",
    "SR": "structured report",
}

_CHEST = ("CHEST", "THORAX", "LUNG", "RIB", "HEART", "STERNUM", "CLAVICLE", "TSPINE")

_POSITIONS = {
    "PA": "pa",
    "AP": "ap",
    **dict.fromkeys(("LL", "RL", "LAT", "LATERAL", "LEFT LATERAL", "RIGHT LATERAL"), "lateral"),
}

_NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)

#: Start-of-frame markers that a JPEG transfer syntax may hold (ITU-T T.81 table B.1; T.87 for JPEG-LS).
_JPEG_FRAMES = {
    uid.JPEGBaseline8Bit: (0xC0,),
    uid.JPEGExtended12Bit: (0xC0, 0xC1),
    uid.JPEGLossless: (0xC3,),
    uid.JPEGLosslessSV1: (0xC3,),
    uid.JPEGLSLossless: (0xF7,),
    uid.JPEGLSNearLossless: (0xF7,),
}

_JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)


@dataclass(frozen=True, slots=True)
class Description:
    """What a header says about the place of a view.

    Attributes:
        position: one of `crossray.data.study.VIEW_POSITIONS`, from ViewPosition.
        study: StudyInstanceUID; "" where there is none. Equal for the views of one study; never for messages.
    """

    position: str
    study: str


def describe(content: bytes, name: str) -> Description:
    """The position of a view and the study that it belongs to.

    Args:
        content: a DICOM file, or its first `MAX_HEADER` bytes.
        name: what an error message calls it.

    Raises:
        UserError: the header is damaged.
    """
    with _one_sentence(name):
        header = _read(content, name)
        view = str(header.get("ViewPosition") or "").strip().upper()
        return Description(_POSITIONS.get(view, "unknown"), str(header.get("StudyInstanceUID") or ""))


def read_dicom(content: bytes, name: str) -> NDArray[np.uint8]:
    """Decode the first frame of a radiograph, as a viewer would show it.

    Args:
        content: a DICOM file.
        name: what messages call it.

    Returns:
        (H, W) uint8, 0 = black.

    Raises:
        UserError: no radiograph, too large, truncated, damaged, of a transfer syntax or colour that is not read, or a
            field contradicts another.
    """
    with _one_sentence(name):
        header = _read(content, name)
        _check_kind(header, name)
        _check_layout(header, name)
        values = _first_frame(content, header, name)
        if header.SamplesPerPixel == 1:
            return grey_levels(header, values, name)
        mode = "YCbCr" if str(header.PhotometricInterpretation).startswith("YBR_FULL") else "RGB"
        return grey(Image.frombytes(mode, (header.Columns, header.Rows), values.tobytes()), name)


@contextmanager
def _one_sentence(name: str) -> Iterator[None]:
    """Turn what damaged bytes raise into one error; the warnings of pydicom quote the header and are dropped."""
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


def _read(content: bytes, name: str) -> Dataset:
    """The header, up to the pixels."""
    # pydicom would inflate such a file at once, whatever its size; the identifier has no other place in a file.
    if uid.DeflatedExplicitVRLittleEndian.encode() in content[:MAX_HEADER]:
        raise UserError(f"{name}: the file is deflated as a whole, which is not read; export it uncompressed")
    found = False

    def at_pixels(tag: BaseTag, *_: object) -> bool:
        nonlocal found
        found = found or tag == _PIXEL_DATA
        return bool(tag >= _PIXEL_DATA)

    header = read_partial(BytesIO(content[:MAX_HEADER]), at_pixels, specific_tags=[Tag(field) for field in _FIELDS])
    if not found:
        raise UserError(f"{name}: a DICOM file without pixels, or it is truncated; give the file of a radiograph")
    return header


def _check_kind(header: Dataset, name: str) -> None:
    """Refuse what is no radiograph, warn of what may be no chest radiograph."""
    modality = str(header.get("Modality") or "").strip().upper()
    if modality in ("", "OT"):
        _LOGGER.warning("%s: Modality does not say how the image was made; it is taken for a radiograph", name)
    elif modality not in _RADIOGRAPHY:
        kind = _OTHER_MODALITIES.get(modality)
        made = f"{modality} ({kind})" if kind else "another one"
        raise UserError(f"{name}: Modality is {made}, not one of {', '.join(_RADIOGRAPHY)}; give a chest radiograph")
    part = "".join(character for character in str(header.get("BodyPartExamined") or "").upper() if character.isalpha())
    if part and not any(chest in part for chest in _CHEST):
        _LOGGER.warning("%s: BodyPartExamined names no part of the chest; reports of other parts mean nothing", name)
    if str(header.get("PresentationIntentType") or "").strip().upper() == "FOR PROCESSING":
        _LOGGER.warning("%s: PresentationIntentType is FOR PROCESSING: raw detector values; prefer the image that was "
                        "made FOR PRESENTATION", name)  # fmt: skip


def _check_layout(header: Dataset, name: str) -> None:
    """See that the fields which say how pixels are stored are there, agree and are within the limits."""
    for field in ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"):
        if header.get(field) in (None, ""):
            raise UserError(f"{name}: {field} is missing; export the image again")
    check_size((int(header.Columns), int(header.Rows)), name)
    colour = str(header.PhotometricInterpretation)
    samples = {"MONOCHROME1": 1, "MONOCHROME2": 1, "RGB": 3}.get(colour, 3 if colour.startswith("YBR_") else None)
    if samples is None:
        raise UserError(f"{name}: PhotometricInterpretation is not read; export the image as MONOCHROME2")
    if header.SamplesPerPixel != samples:
        raise UserError(
            f"{name}: SamplesPerPixel is {int(header.SamplesPerPixel)}, but PhotometricInterpretation needs {samples}; "
            "export the image again"
        )
    allocated = int(header.BitsAllocated)
    header.BitsStored = int(header.get("BitsStored") or allocated)
    header.PixelRepresentation = int(header.get("PixelRepresentation") or 0)
    if allocated not in ((8, 16) if samples == 1 else (8,)) or not 1 <= header.BitsStored <= allocated:
        raise UserError(f"{name}: BitsAllocated {allocated} and BitsStored {header.BitsStored} are not read; export "
                        f"the image with {'8 or 16' if samples == 1 else '8'} bits")  # fmt: skip
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        _LOGGER.warning("%s: NumberOfFrames is %d; the first frame is taken", name, frames)


def _first_frame(content: bytes, header: Dataset, name: str) -> NDArray[Any]:
    """The stored values of the first frame: (H, W) unsigned or signed, or (H, W, 3) uint8."""
    syntax = header.file_meta.get("TransferSyntaxUID")
    known = (*_NATIVE, uid.RLELossless, *_JPEG_FRAMES, *_JPEG_2000)
    if syntax not in known:
        raise UserError(f"{name}: TransferSyntaxUID is missing or not read; export the image uncompressed")
    if not get_decoder(syntax).is_available:
        raise UserError(f"{name}: {syntax.name} needs pylibjpeg with its plugins; pip install 'crossray[dicom]'")
    tags: list[BaseTag | int] = [Tag(field) for field in (*_FIELDS, "PixelData")]
    image = read_partial(BytesIO(content), lambda tag, *_: tag > _PIXEL_DATA, specific_tags=tags)
    image.BitsStored, image.PixelRepresentation = header.BitsStored, header.PixelRepresentation
    if "HighBit" not in image:
        image.HighBit = header.BitsStored - 1
    if syntax in _NATIVE:
        values: NDArray[Any] = pixel_array(image, index=0, raw=True, correct_unused_bits=False)
        return values >> max(int(image.HighBit) + 1 - header.BitsStored, 0) if values.ndim == 2 else values
    frame = _compressed_frame(image, name)
    if syntax == uid.RLELossless:
        return _unpack_rle(frame, header)
    if _codestream_size(frame, syntax) != (header.Columns, header.Rows, header.SamplesPerPixel):
        raise UserError(f"{name}: Rows, Columns or SamplesPerPixel are not those of the compressed image; export it "
                        "again")  # fmt: skip
    return pixel_array(image, index=0, raw=True, decoding_plugin="pylibjpeg")


def _compressed_frame(image: Dataset, name: str) -> bytes:
    """The bytes of the first frame (PS3.5 A.4), unless there are so many pieces that listing them is an attack."""
    pixels = image.PixelData
    offsets = int.from_bytes(pixels[4:8], "little") // 4
    if max(offsets, pixels.count(b"\xfe\xff\x00\xe0")) > MAX_FRAGMENTS:
        raise UserError(f"{name}: the pixels lie in over {MAX_FRAGMENTS} pieces; give a single radiograph")
    return get_frame(pixels, 0, number_of_frames=int(image.get("NumberOfFrames") or 1))


def _unpack_rle(frame: bytes, header: Dataset) -> NDArray[Any]:
    """Decode run lengths (PS3.5 G): a segment for each byte of a sample, the high one first.

    Pillow's decoder stops at the size that it is given, and it is about a hundred times as fast as pydicom's.
    """
    depth = int(header.BitsAllocated) // 8
    count, *offsets = struct.unpack("<16I", frame[:64])
    if count != depth * header.SamplesPerPixel:
        raise ValueError("segments")
    length = int(header.Rows) * int(header.Columns)
    planes = [
        np.asarray(Image.frombytes("L", (length, 1), frame[start:stop], "packbits", "L"))[0]
        for start, stop in pairwise([*offsets[:count], len(frame)])
    ]
    samples = np.ascontiguousarray(np.stack(planes, axis=-1)).view(f">u{depth}")
    return samples.reshape(header.Rows, header.Columns, -1) if count > depth else samples.reshape(header.Rows, -1)


def _codestream_size(frame: bytes, syntax: uid.UID) -> tuple[int, int, int]:
    """Columns, rows and components as the compressed image itself says them, before its decoder believes them."""
    if syntax in _JPEG_2000:
        # ITU-T T.800 A.5.1: SIZ follows the start of the codestream.
        right, bottom, left, top, tile_width, tile_height = struct.unpack(">6I", frame[8:32])
        if frame[:4] != b"\xff\x4f\xff\x51" or -(-right // tile_width) * -(-bottom // tile_height) > MAX_FRAGMENTS:
            raise ValueError("codestream")
        return right - left, bottom - top, struct.unpack(">H", frame[40:42])[0]
    position = 2
    while frame[position] == 0xFF:
        marker, length = struct.unpack(">BH", frame[position + 1 : position + 4])
        if marker in _JPEG_FRAMES[syntax]:
            rows, columns, components = struct.unpack(">HHB", frame[position + 5 : position + 10])
            return columns, rows, components
        position += 2 + length
    raise ValueError("markers")
