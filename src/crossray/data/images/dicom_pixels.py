"""Reads the stored words of the first frame of a DICOM file, uncompressed or with one of the compressions of PS3.5.

The word size is derived from the data: the length of uncompressed data, or the header of a codestream.
"""

import struct
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filereader import read_partial
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.tag import BaseTag, Tag

from crossray.data.images.dicom_header import FIELDS, PIXEL_DATA, Header, Layout
from crossray.data.images.jpeg import FRAMES, read_header
from crossray.data.images.pixels import check_size
from crossray.data.images.remarks import Remarks
from crossray.errors import UserError

#: Maximum number of fragments of the compressed pixels.
MAX_FRAGMENTS = 2**14

_ITEM = b"\xfe\xff\x00\xe0"
_CODESTREAM = b"\xff\x4f\xff\x51"
_JP2 = b"\x00\x00\x00\x0cjP  "

_NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)

#: Start-of-frame markers of the JPEG transfer syntaxes; the first syntax with a marker is used.
_JPEG_FRAMES = {
    uid.JPEGBaseline8Bit: (0xC0,),
    uid.JPEGExtended12Bit: (0xC1, 0xC0),
    uid.JPEGLosslessSV1: (0xC3,),
    uid.JPEGLossless: (0xC3,),
    uid.JPEGLSLossless: (0xF7,),
    uid.JPEGLSNearLossless: (0xF7,),
}

_JPEG_2000 = (uid.JPEG2000, uid.JPEG2000Lossless, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)

#: Supported transfer syntaxes.
TRANSFER_SYNTAXES: tuple[uid.UID, ...] = (*_NATIVE, uid.RLELossless, *_JPEG_FRAMES, *_JPEG_2000)


def first_frame(content: bytes, header: Header, layout: Layout, remark: Remarks) -> NDArray[Any]:
    """Decode the first frame of a file.

    Args:
        content: content of the file.
        header: header of the file.
        layout: pixel format from the header; `rows`, `columns`, `allocated`, `stored` and `marked` are corrected by the
            data.
        remark: receives the warnings.

    Returns:
        (H, W) stored words, including unused bits; (H, W, 3) uint8 for three samples per pixel.

    Raises:
        UserError: the transfer syntax is not supported, the data are truncated, or a size contradicts the header.
    """
    tags: list[BaseTag | int] = [Tag(field) for field in (*FIELDS, "PixelData")]
    image = read_partial(BytesIO(content), lambda tag, *_: tag > PIXEL_DATA, force=True, specific_tags=tags)
    data: bytes = image.get_item(Tag(PIXEL_DATA)).value or b""
    needed = _native_bytes(layout)
    syntax = header.syntax
    if header.encapsulated or (syntax not in _NATIVE and data.startswith(_ITEM)):
        return _compressed(image, data, header, layout, remark)
    if syntax is None:
        implicit, little = header.dataset.original_encoding
        syntax = _NATIVE[0] if implicit else _NATIVE[1] if little else _NATIVE[2]
        remark("TransferSyntaxUID", f"is missing; the data are {syntax.name}")
    elif syntax not in _NATIVE:
        if _known(syntax) is None or len(data) not in (needed, needed + 1):
            raise _not_read(header)
        remark("TransferSyntaxUID", "says that the pixels are compressed, but they are not")
        syntax = uid.ExplicitVRLittleEndian
    return _native(image, data, syntax, header, layout, remark)


def _native_bytes(layout: Layout) -> int:
    """Return the size of one uncompressed frame in bytes."""
    size = layout.rows * layout.columns * layout.samples * layout.allocated // 8
    return size * 2 // 3 if layout.colour == "YBR_FULL_422" else size


def _native(
    image: Dataset, data: bytes, syntax: uid.UID, header: Header, layout: Layout, remark: Remarks
) -> NDArray[Any]:
    frames = header.integer("NumberOfFrames") or 1
    count = layout.rows * layout.columns
    if layout.samples == 1 and frames == 1:
        # the word size follows from the length of the data
        if layout.allocated == 16 and layout.stored <= 8 and len(data) in (count, count + 1):
            remark("BitsAllocated", "is 16, but the data have 8 bits a pixel")
            layout.allocated = 8
        elif layout.allocated == 8 and layout.stored > 8 and len(data) == 2 * count:
            remark("BitsAllocated", "is 8, but the data have 16 bits a pixel")
            layout.allocated = 16
    needed = _native_bytes(layout)
    if len(data) < needed:
        raise UserError(f"{header.name}: PixelData is truncated or damaged: {len(data)} bytes, and Rows, Columns and "
                        f"BitsAllocated need {needed}; copy or export the file again")  # fmt: skip
    if len(data) < needed * frames:
        remark("NumberOfFrames", "is larger than the frames that the file holds")
    elif frames == 1 and len(data) >= 2 * needed and needed % 2 == 0:
        remark("NumberOfFrames", "does not tell of more frames that the file holds; the first is taken")
    _clean(image, layout)
    image.file_meta.TransferSyntaxUID = syntax
    if layout.samples == 3:
        image.PlanarConfiguration = _planes(data[:needed], header, layout, remark)
    words: NDArray[Any] = pixel_array(image, index=0, raw=True, correct_unused_bits=False)
    return words


def _clean(image: Dataset, layout: Layout) -> None:
    """Write the layout to the header, because pydicom trusts it."""
    image.Rows, image.Columns, image.SamplesPerPixel = layout.rows, layout.columns, layout.samples
    image.BitsAllocated = image.BitsStored = layout.allocated
    image.HighBit, image.PixelRepresentation, image.NumberOfFrames = layout.allocated - 1, 0, 1
    image.PhotometricInterpretation = layout.colour


def _planes(data: bytes, header: Header, layout: Layout, remark: Remarks) -> int:
    """Determine PlanarConfiguration: with the correct one, the three samples of a gray pixel are similar."""
    said = header.integer("PlanarConfiguration")
    if layout.colour == "YBR_FULL_422":
        return 0
    samples = np.frombuffer(data, np.uint8)
    spread = [_spread(samples.reshape(-1, 3)), _spread(samples.reshape(3, -1).T)]
    found = int(spread[1] < spread[0])
    certain = min(spread) < max(spread) / 4
    if said not in (0, 1):
        if not certain:
            raise UserError(f"{header.name}: PlanarConfiguration is missing; export the image again")
        remark("PlanarConfiguration", f"is missing; the values lie as with {found}")
        return found
    if found != said and certain:
        remark("PlanarConfiguration", f"is {said}, but the values lie as with {found}")
        return found
    return said


def _spread(pixels: NDArray[np.uint8]) -> float:
    """Compute how far pixels are from gray: the smaller mean difference of R, G, B, or of Cb and Cr from 128."""
    some = pixels[:: max(1, len(pixels) // 2**16)].astype(np.float64)
    alike = np.abs(np.diff(some, axis=1)).mean()
    constant = np.abs(some[:, 1:] - 128).mean()
    return float(min(alike, constant))


def _known(syntax: uid.UID | None) -> uid.UID | None:
    return syntax if syntax in TRANSFER_SYNTAXES else None


def _not_read(header: Header) -> UserError:
    said = f"{header.syntax.name[:60]} is" if header.syntax is not None else "is missing or"
    return UserError(f"{header.name}: TransferSyntaxUID {said} not supported; export the image uncompressed")


def _compressed(image: Dataset, data: bytes, header: Header, layout: Layout, remark: Remarks) -> NDArray[Any]:
    offsets = int.from_bytes(data[4:8], "little") // 4
    if max(offsets, data.count(_ITEM)) > MAX_FRAGMENTS:  # no real file has so many
        raise UserError(
            f"{header.name}: the pixels are split into more than {MAX_FRAGMENTS} pieces; give a single radiograph"
        )
    frame = get_frame(data, 0, number_of_frames=header.integer("NumberOfFrames") or 1)
    if frame.startswith(_JP2) and _CODESTREAM in frame:
        remark("PixelData", "holds a JPEG 2000 file instead of its codestream")
        frame = frame[frame.index(_CODESTREAM) :]
    syntax = _syntax_of(frame, header, remark)
    if syntax == uid.RLELossless:
        return _unpack_rle(frame, layout, remark)
    if not get_decoder(syntax).is_available:
        raise UserError(f"{header.name}: {syntax.name} needs pylibjpeg with its plugins; pip install 'crossray[dicom]'")
    if syntax in _JPEG_2000:
        size, precision, signed, colours = *_jpeg_2000(frame), ""
    else:
        found = read_header(frame)
        if found is None:
            raise ValueError("markers")
        size, precision, signed = (found.columns, found.rows, found.components), found.precision, False
        colours = found.colours
    if size[2] != layout.samples:
        raise UserError(f"{header.name}: SamplesPerPixel is {layout.samples}, and the compressed image has {size[2]}; "
                        "export it again")  # fmt: skip
    if size[:2] != (layout.columns, layout.rows):
        check_size(size[:2], header.name)
        remark("Rows", f"and Columns are {layout.rows} and {layout.columns}, but those of the compressed image are "
               f"{size[1]} and {size[0]}; these are read")  # fmt: skip
        layout.columns, layout.rows = size[:2]
    if not 2 <= precision <= 16 or (layout.samples == 3 and precision > 8):
        raise UserError(f"{header.name}: the compressed image has {precision} bits per sample, which is not "
                        "supported; export it uncompressed")  # fmt: skip
    if layout.signed and not signed:
        layout.stored = min(layout.stored, precision)  # the sign is the highest bit of the compressed image
    layout.allocated = 8 if precision <= 8 else 16
    layout.marked = colours
    _clean(image, layout)
    image.PhotometricInterpretation = "MONOCHROME2" if layout.samples == 1 else "RGB"
    image.PlanarConfiguration = 0
    image.PixelRepresentation = int(signed)
    image.PixelData = encapsulate([frame])
    image["PixelData"].is_undefined_length = True
    image.file_meta.TransferSyntaxUID = syntax
    words: NDArray[Any] = pixel_array(image, index=0, raw=True, decoding_plugin="pylibjpeg")
    return words


def _syntax_of(frame: bytes, header: Header, remark: Remarks) -> uid.UID:
    """Determine the actual transfer syntax of the frame."""
    said = header.syntax
    if frame.startswith(_CODESTREAM):
        found, kind = (said if said in _JPEG_2000 else uid.JPEG2000), "JPEG 2000"
    elif (jpeg := read_header(frame)) is not None:
        kind = FRAMES[jpeg.marker]
        fitting = [syntax for syntax, markers in _JPEG_FRAMES.items() if jpeg.marker in markers]
        if not fitting:
            raise UserError(f"{header.name}: the compressed pixels ({kind}) are damaged or not supported; "
                            "export the image uncompressed")  # fmt: skip
        found = said if said in fitting else fitting[0]
    elif said == uid.RLELossless:
        return said
    elif said in _JPEG_FRAMES or said in _JPEG_2000:
        raise ValueError("codestream")
    else:
        raise _not_read(header)
    if found != said:
        remark("TransferSyntaxUID", f"is missing or names another compression; the pixels are {kind}")
    return uid.UID(found)


def _unpack_rle(frame: bytes, layout: Layout, remark: Remarks) -> NDArray[Any]:
    """Decode run lengths (PS3.5 G): one segment for each byte of a sample, the high byte first.

    Pillow's decoder stops at the given size and is about a hundred times faster than pydicom's.
    """
    count, *offsets = struct.unpack("<16I", frame[:64])
    if count not in ((1, 2) if layout.samples == 1 else (3,)):
        raise ValueError("segments")
    depth = count // layout.samples
    if 8 * depth != layout.allocated:
        remark("BitsAllocated", f"is {layout.allocated}, but the compressed image has {8 * depth} bits a pixel")
        layout.allocated = 8 * depth
    length = layout.rows * layout.columns
    planes = [
        np.asarray(Image.frombytes("L", (length, 1), frame[start:stop], "packbits", "L"))[0]
        for start, stop in pairwise([*offsets[:count], len(frame)])
    ]
    samples = np.ascontiguousarray(np.stack(planes, axis=-1)).view(f">u{depth}")
    shape = (layout.rows, layout.columns, 3) if layout.samples == 3 else (layout.rows, layout.columns)
    return samples.reshape(shape)


def _jpeg_2000(frame: bytes) -> tuple[tuple[int, int, int], int, bool]:
    """Read size, bits per sample and sign of a codestream (ITU-T T.800 A.5.1: SIZ follows the start marker)."""
    right, bottom, left, top, tile_width, tile_height = struct.unpack(">6I", frame[8:32])
    if -(-right // tile_width) * -(-bottom // tile_height) > MAX_FRAGMENTS:
        raise ValueError("codestream")
    components = struct.unpack(">H", frame[40:42])[0]
    return (right - left, bottom - top, components), (frame[42] & 127) + 1, frame[42] > 127
