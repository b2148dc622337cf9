"""Reads the header of a JPEG codestream, in a file or within DICOM (ITU-T T.81, T.87)."""

import struct
from dataclasses import dataclass

#: Type of compression by start-of-frame marker (T.81 table B.1; T.87 for JPEG-LS).
FRAMES = {
    0xC0: "baseline JPEG",
    0xC1: "extended JPEG",
    0xC2: "progressive JPEG",
    0xC3: "lossless JPEG",
    **dict.fromkeys((0xC5, 0xC6, 0xC7), "hierarchical JPEG"),
    **dict.fromkeys((0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF), "arithmetic JPEG"),
    0xF7: "JPEG-LS",
}

_BARE = (0x01, *range(0xD0, 0xD9))  # markers without a length


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """The header of a codestream, up to its start of frame.

    Attributes:
        marker: start-of-frame marker, a key of `FRAMES`.
        precision: number of bits per sample.
        columns: number of columns of the frame.
        rows: number of rows of the frame.
        components: number of components of the frame.
        colours: "YBR" or "RGB" according to the markers: JFIF means YCbCr; Adobe's marker, or components named R, G and
            B, are explicit; "" if unknown.
    """

    marker: int
    precision: int
    columns: int
    rows: int
    components: int
    colours: str


def read_header(stream: bytes) -> JpegHeader | None:
    """Read the header of a codestream; return None if the bytes are not a codestream."""
    if stream[:2] != b"\xff\xd8":
        return None
    position, colours = 2, ""
    while position + 4 <= len(stream) and stream[position] == 0xFF:
        marker = stream[position + 1]
        if marker == 0xFF or marker in _BARE:  # fill bytes
            position += 1 if marker == 0xFF else 2
            continue
        length = struct.unpack(">H", stream[position + 2 : position + 4])[0]
        body = stream[position + 4 : position + 2 + length]
        if marker in FRAMES:
            if len(body) < 6:
                return None
            precision, rows, columns, components = struct.unpack(">BHHB", body[:6])
            if not colours and body[6 : 6 + 3 * components : 3] == b"RGB":
                colours = "RGB"
            return JpegHeader(marker, precision, columns, rows, components, colours)
        if marker == 0xE0 and body.startswith(b"JFIF"):
            colours = colours or "YBR"
        elif marker == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            colours = "YBR" if body[11] == 1 else "RGB" if body[11] == 0 else colours
        position += 2 + length
    return None


def not_read(content: bytes) -> str:
    """Return why Pillow cannot read a JPEG file, such as "a lossless JPEG" or "a JPEG of 12 bits"; "" if it can."""
    header = read_header(content)
    if header is None or header.marker in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
        return "" if header is None or header.precision == 8 else f"a JPEG of {header.precision} bits"
    return f"a {FRAMES[header.marker]}"
