"""DICOM files that tests write."""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

#: A chest radiograph in the fewest words.
PLAIN: dict[str, Any] = {
    "SOPClassUID": uid.DigitalXRayImageStorageForPresentation,
    "SOPInstanceUID": "2.25.7",
    "StudyInstanceUID": "2.25.1",
    "PatientName": "Doe^Jane",
    "PatientID": "4711",
    "Modality": "DX",
    "BodyPartExamined": "CHEST",
    "PhotometricInterpretation": "MONOCHROME2",
}


def dicom_dataset(pixels: NDArray[Any], **fields: Any) -> Dataset:
    """A radiograph; `fields` replace or add elements, None leaves one out."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    bits = 8 * pixels.dtype.itemsize
    shape = {
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1 if pixels.ndim == 2 else 3,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": fields.get("BitsStored", bits) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
    }
    for name, value in {**PLAIN, **shape, **fields}.items():
        if value is not None:
            setattr(image, name, value)
    if "PixelData" in image:
        image["PixelData"].VR = "OB" if bits == 8 else "OW"
    return image


def dicom_bytes(image: Dataset) -> bytes:
    """The dataset as a file."""
    stream = BytesIO()
    image.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def dicom(pixels: NDArray[Any], **fields: Any) -> bytes:
    """`dicom_dataset` as a file."""
    return dicom_bytes(dicom_dataset(pixels, **fields))


def lookup_table(entries: list[int], first: int, bits: int) -> Dataset:
    """An item of a VOI or modality LUT sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS", [len(entries), first, bits])
    item.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    return item
