"""Formats that are fuzzed: whole files to start from, and the reader that has to cope with them."""

import csv
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from crossray.data.images import read_image
from crossray.data.sources.r2gen import read_annotation
from crossray.evaluation.predictions import PredictionFile
from crossray.text.label_table import read_reports


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        seeds: whole files; `read` accepts them, but for colour pictures, which it refuses after decoding.
        read: takes the content of a file; raises `UserError` for a broken one.
    """

    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]


def picture() -> Image.Image:
    """(64, 64) grey levels with smooth parts and noise."""
    rows, columns = np.mgrid[0:64, 0:64]
    noise = np.random.default_rng(0).integers(0, 30, (64, 64))
    return Image.fromarray((rows * 2 + columns + noise).astype(np.uint8))


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _png() -> Format:
    grey = picture()
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 200)
    images = (grey, deep, grey.convert("RGB"), grey.convert("LA"), grey.convert("RGBA"), grey.convert("1"))
    palette = grey.convert("RGB").quantize(64)
    return Format(
        (*(_encoded(image, "PNG", compress_level=0) for image in images), _encoded(palette, "PNG", transparency=3)),
        read_image,
    )


def _jpeg() -> Format:
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = picture()
    return Format(
        (
            _encoded(grey, "JPEG"),
            _encoded(grey, "JPEG", progressive=True, exif=exif.tobytes()),
            _encoded(grey.convert("RGB"), "JPEG", subsampling=2),
            _encoded(grey.convert("RGB").convert("CMYK"), "JPEG"),
        ),
        lambda content: read_image(content, draft_size=32),
    )


def _dicom() -> Format:
    import pydicom
    from pydicom import uid
    from pydicom.data import get_testdata_file
    from tests.data.dicom_files import dicom_bytes, dicom_dataset, lookup_table

    values = np.asarray(picture()).astype(np.uint16) * 16
    windowed = {"BitsStored": 12, "WindowCenter": "2000", "WindowWidth": "3000", "RescaleSlope": "1",
                "RescaleIntercept": "0", "PixelPaddingValue": 0, "ViewPosition": "PA"}  # fmt: skip
    table = pydicom.sequence.Sequence([lookup_table(list(range(0, 4096, 4)), 0, 12)])
    seeds = [
        dicom_bytes(dicom_dataset(values, **windowed)),
        dicom_bytes(dicom_dataset(values.astype(np.int16), VOILUTSequence=table,
                                  PhotometricInterpretation="MONOCHROME1")),
        dicom_bytes(dicom_dataset(np.asarray(picture().convert("RGB")), PhotometricInterpretation="RGB",
                                  PlanarConfiguration=0)),
    ]  # fmt: skip
    for syntax, plugin in ((uid.RLELossless, "pydicom"), (uid.JPEG2000Lossless, "pylibjpeg")):
        image = dicom_dataset(values, **windowed)
        image.compress(syntax, encoding_plugin=plugin)
        seeds.append(dicom_bytes(image))
    for name in ("MR_small_jpeg_ls_lossless.dcm", "JPGExtended.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_jpeg_dcmtk.dcm"):
        image = pydicom.dcmread(str(get_testdata_file(name, download=False)))
        image.Modality = "CR"
        seeds.append(dicom_bytes(image))
    return Format(tuple(seeds), read_image)


def _from_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    folder = tempfile.TemporaryDirectory(prefix="crossray-fuzz-")

    def read_content(content: bytes) -> object:
        path = Path(folder.name) / name
        path.write_bytes(content)
        return read(path)

    return read_content


def _csv() -> Format:
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(["study_id", "report", "note"])
    for number in range(8):
        writer.writerow([f"s{number}", f'The heart is "normal", size {number}.\nNo effusion.', "äß"])
    content = stream.getvalue().encode()
    read = _from_file("reports.csv", lambda path: list(read_reports(path)))
    return Format((content, b"\xef\xbb\xbf" + content.replace(b"\r\n", b"\n")), read)


def _annotation() -> Format:
    entry = {"report": "The heart is normal.", "image_path": ["a/0.png", "a/1.png"], "subject_id": 7, "study_id": 9}
    splits = {
        split: [{"id": f"{split}{number}", "split": split, **entry} for number in range(3)]
        for split in ("train", "val", "test")
    }
    return Format((json.dumps(splits).encode(), json.dumps(splits, indent=1).encode()),
                  _from_file("annotation.json", read_annotation))  # fmt: skip


def _predictions() -> Format:
    rows = [
        {
            "id": f"s{number}",
            "prediction": "no effusion .",
            "references": {"r2gen": "no effusion .", "full": "the heart is normal ."},
            "images": ["a.png"],
            "log_probability": -1.5,
        }
        for number in range(5)
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    return Format((content,), _from_file("predictions.jsonl", PredictionFile.load))


FORMATS: dict[str, Callable[[], Format]] = {
    "png": _png,
    "jpeg": _jpeg,
    "dicom": _dicom,
    "csv": _csv,
    "annotation": _annotation,
    "predictions": _predictions,
}
