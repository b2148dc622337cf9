"""Reads radiographs from DICOM files (PS3.3, PS3.5): checks the header and converts the first frame to gray levels.

If the pixel values clearly contradict the header, the values are trusted and a warning is given. If their
interpretation remains uncertain, the file is rejected with the name of the field. The sizes in the header and in a
compressed image are checked before decoding.
"""

import numpy as np
from numpy.typing import NDArray

from crossray.data.images.dicom_colour import grey_of_colour
from crossray.data.images.dicom_header import MAX_HEADER, Header, Layout, code, one_sentence
from crossray.data.images.dicom_levels import grey_levels
from crossray.data.images.dicom_pixels import first_frame
from crossray.data.images.pixels import check_size
from crossray.data.images.positions import FileDescription, view_position
from crossray.data.images.remarks import Remarks
from crossray.errors import UserError

__all__ = ["MAX_HEADER", "describe", "read_dicom"]

_RADIOGRAPHY = ("CR", "DX", "RG")

#: Modalities that are taken for radiography, some of them with a warning.
_TAKEN = {*_RADIOGRAPHY, "DR", "OT"}

#: Modalities whose names are explained in messages.
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
    "SC": "secondary capture",
    "SEG": "segmentation",
    "SR": "structured report",
}

_CHEST = ("CHEST", "THORAX", "LUNG", "RIB", "HEART", "STERNUM", "CLAVICLE", "TSPINE")


def describe(content: bytes, name: str) -> FileDescription:
    """Return the position of a view, its study, and whether the file contains an image.

    Args:
        content: content of a DICOM file, or its first `MAX_HEADER` + 1 bytes.
        name: name of the file in messages.

    Raises:
        UserError: the header is damaged.
    """
    with one_sentence(name):
        header = Header(content, name)
        return FileDescription(
            position=view_position(header.text("ViewPosition")) or "unknown",
            study=header.text("StudyInstanceUID"),
            # the header of a truncated image still has a size
            is_image=bool(header.pixels) or not header.whole or header.has("Rows"),
            is_radiograph=set(_modalities(header)) <= _TAKEN,
            patient=header.text("PatientID"),
        )


def read_dicom(content: bytes, name: str, remark: Remarks) -> NDArray[np.uint8]:
    """Decode the first frame of a radiograph, as a viewer would show it.

    Args:
        content: content of a DICOM file.
        name: name of the file in messages.
        remark: receives the warnings.

    Returns:
        (H, W) uint8, 0 = black.

    Raises:
        UserError: the file is not a radiograph, is too large, truncated or damaged, or has an unsupported transfer
            syntax or color space; or a field contradicts another one or the values.
    """
    with one_sentence(name):
        header = Header(content, name)
        header.check_pixels()
        if not header.dataset.preamble:
            remark("preamble", "and file mark are missing; the file was read without them")
        _check_kind(header, remark)
        layout = _layout(header, remark)
        values = first_frame(content, header, layout, remark)
        if layout.samples == 1:
            return grey_levels(header, values, layout, remark)
        return grey_of_colour(values, layout, name, remark)


def _modalities(header: Header) -> list[str]:
    return [text.upper() for text in header.texts("Modality") if text]


def _check_kind(header: Header, remark: Remarks) -> None:
    """Reject files that are not radiographs, and warn of those that may not show a chest."""
    modalities = _modalities(header)
    if not modalities or modalities == ["OT"]:
        remark("Modality", "does not say how the image was made; it is taken for a radiograph")
    elif not set(modalities) <= _TAKEN:
        kind = _OTHER_MODALITIES.get(modalities[0])
        made = "/".join(map(code, modalities)) + (f" ({kind})" if kind and len(modalities) == 1 else "")
        raise UserError(
            f"{header.name}: Modality is {made}, not one of {', '.join(_RADIOGRAPHY)}; give a chest radiograph"
        )
    elif len(modalities) > 1 or modalities == ["DR"]:
        remark("Modality", f"is {'/'.join(map(code, modalities))}, no defined term; it is taken for a radiograph")
    words = header.text("BodyPartExamined").upper()
    part = "".join(character for character in words if character.isalpha())
    if part and not any(chest in part for chest in _CHEST):
        remark("BodyPartExamined", f"names no part of the chest ({code(words)}); reports of other parts mean nothing")
    if header.text("PresentationIntentType").upper() == "FOR PROCESSING":
        remark("PresentationIntentType", "is FOR PROCESSING: raw detector values; prefer the image that was made FOR "
               "PRESENTATION")  # fmt: skip


def _layout(header: Header, remark: Remarks) -> Layout:
    """Check that the fields of the pixel format exist, agree, and are within the limits."""
    name = header.name
    rows, columns = header.needed("Rows"), header.needed("Columns")
    samples = header.needed("SamplesPerPixel")
    colour = "".join(header.text("PhotometricInterpretation").upper().split())
    if not colour:
        raise UserError(f"{name}: PhotometricInterpretation is missing; export the image again")
    allocated = header.needed("BitsAllocated")
    check_size((columns, rows), name)
    needed = {"MONOCHROME1": 1, "MONOCHROME2": 1, "RGB": 3}.get(colour, 3 if colour.startswith("YBR_") else None)
    if needed is None:
        said = code(header.text("PhotometricInterpretation"))
        raise UserError(f"{name}: PhotometricInterpretation {said} is not supported; export the image as MONOCHROME2")
    if samples != needed:
        raise UserError(f"{name}: SamplesPerPixel is {samples}, but PhotometricInterpretation {colour} needs {needed}; "
                        "export the image again")  # fmt: skip
    if allocated not in ((8, 16) if samples == 1 else (8,)):
        raise UserError(f"{name}: BitsAllocated {allocated} is not supported; export the image with "
                        f"{'8 or 16' if samples == 1 else '8'} bits")  # fmt: skip
    stored = header.integer("BitsStored")
    if stored is not None and stored < 1:
        remark("BitsStored", f"is {stored}; the values decide")
        stored = None
    signed = header.integer("PixelRepresentation") or 0
    if signed not in (0, 1):
        remark("PixelRepresentation", f"is {signed}, neither 0 nor 1; the values decide")
    shape = header.text("PresentationLUTShape").upper()
    if (colour, shape) in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")):
        remark("PresentationLUTShape", f"is {shape} and contradicts {colour}, which is believed")
    frames = header.integer("NumberOfFrames") or 1
    if frames > 1:
        remark("NumberOfFrames", f"is {frames}; the first frame is taken")
    return Layout(rows, columns, samples, colour, allocated, stored or allocated, signed == 1)
