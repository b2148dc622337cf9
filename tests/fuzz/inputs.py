"""Formats that are fuzzed: whole files to start from, and the reader that has to cope with them."""

import csv
import gzip
import io
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tests.data.sources.openi import xml

from crossray.data.images import read_image
from crossray.data.sources.archives import members
from crossray.data.sources.iu_reports import parse_report, read_projections
from crossray.data.sources.iu_reports import read_reports as read_iu_reports
from crossray.data.sources.manifest import read_manifest
from crossray.data.sources.r2gen import read_annotation
from crossray.evaluation.predictions import PredictionFile
from crossray.text.label_table import read_reports


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        seeds: whole files; `read` accepts them, but for color pictures, which it refuses after decoding.
        read: takes the content of a file; raises `UserError` for a broken one.
        lists: whether a rejection may name several rows, one a line.
    """

    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]
    lists: bool = False


def picture() -> Image.Image:
    """(64, 64) gray levels with smooth parts and noise."""
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
    from tests.data.images.dicom_files import dicom_bytes, dicom_dataset, lookup_table

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


def _from_file(
    name: str, read: Callable[[Path], object], beside: dict[str, bytes] | None = None
) -> Callable[[bytes], object]:
    """Reads from a file of this name, with others beside it that stay whole."""
    folder = tempfile.TemporaryDirectory(prefix="crossray-fuzz-")
    for other, content in (beside or {}).items():
        path = Path(folder.name) / other
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)

    def read_content(content: bytes) -> object:
        path = Path(folder.name) / name
        path.write_bytes(content)
        return read(path)

    return read_content


def _csv_bytes(rows: Iterable[Iterable[object]]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    return stream.getvalue().encode()


def _csv() -> Format:
    rows = [(f"s{number}", f'The heart is "normal", size {number}.\nNo effusion.', "äß") for number in range(8)]
    content = _csv_bytes([("study_id", "report", "note"), *rows])
    read = _from_file("reports.csv", lambda path: list(read_reports(path)))
    return Format((content, b"\xef\xbb\xbf" + content.replace(b"\r\n", b"\n")), read)


def _xml() -> Format:
    sections = {"comparison": "None.", "indication": "Cough & fever XXXX.", "findings": "Lungs are clear <1 cm>."}
    plain = xml("12", ["CXR12_IM-0001-1001", "CXR12_IM-0001-2001"], tags=("Opacity/lung/left", "äß"), **sections)
    with_dtd = plain.replace(b"<eCitation>", b'<!DOCTYPE eCitation SYSTEM "http://example.org/a.dtd"><eCitation>')
    wide = plain.decode().replace("utf-8", "utf-16").encode("utf-16")
    return Format((plain, with_dtd, wide), lambda content: parse_report(content, "1.xml"))


_INDIANA = {
    "indiana_reports.csv": _csv_bytes(
        [("uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression")]
        + [(n, "normal;Opacity/lung", "normal", "PA", "Pain.", "", 'Clear, "all".\nFine.', "") for n in range(1, 9)]
    ),
    "indiana_projections.csv": _csv_bytes(
        [("uid", "filename", "projection")]
        + [(n, f"{n}_IM-0001-{view}001.dcm.png", ("Frontal", "Lateral")[view]) for n in range(1, 9) for view in (0, 1)]
    ),
}


def _indiana(damaged: str) -> Format:
    def read(path: Path) -> object:
        projections = path.with_name("indiana_projections.csv")
        return read_iu_reports(path.with_name("indiana_reports.csv"), projections), read_projections(projections)

    return Format((_INDIANA[damaged],), _from_file(damaged, read, _INDIANA))


def _iu_reports() -> Format:
    return _indiana("indiana_reports.csv")


def _iu_projections() -> Format:
    return _indiana("indiana_projections.csv")


def _manifest(kind: str) -> Format:
    rows: list[dict[str, Any]] = [
        {"study": f"s{n}", "patient": f"p{n}", "split": ("train", "val", "test")[n % 3], "images": ["a.png", "b.png"],
         "views": ["pa", "lateral"], "findings": f"The heart is normal, {n}.", "impression": "", "edema": n % 2}
        for n in range(6)
    ]  # fmt: skip
    reports = [{"images": ["a.png"], "report": f"FINDINGS: Clear, {n}.\nIMPRESSION: Normal."} for n in range(6)]
    contents = []
    for table in (rows, reports):
        if kind == "jsonl":
            contents.append("".join(json.dumps(row) + "\n" for row in table).encode())
        else:
            cells = [[";".join(v) if isinstance(v, list) else v for v in row.values()] for row in table]
            contents.append(_csv_bytes([list(table[0]), *cells]))
    png = _encoded(picture(), "PNG")
    read = _from_file(f"studies.{kind}", read_manifest, {"a.png": png, "b.png": png})
    return Format(tuple(contents), read, lists=True)


def _manifest_csv() -> Format:
    return _manifest("csv")


def _manifest_jsonl() -> Format:
    return _manifest("jsonl")


#: The first is passed over: damage to its content is none to the others.
_MEMBERS = {
    "notes.txt": b"Anything. " * 60,
    "reports/1.xml": b"<a/>" * 40,
    "reports/" + "n" * 120 + ".xml": b"one",
    "reports/ä.xml": b"",
}


def _tar_bytes(kind: int) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        folder = tarfile.TarInfo("reports")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in _MEMBERS.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def _read_members(path: Path) -> object:
    return [load() for _, load in members(path, (".xml",), 2**20)]


def _tar() -> Format:
    """Headers with short and long names, and in Unicode, in both dialects."""
    seeds = tuple(_tar_bytes(kind) for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    return Format(seeds, _from_file("reports.tar", _read_members))


def _tgz() -> Format:
    seeds = tuple(gzip.compress(_tar_bytes(tarfile.PAX_FORMAT), level, mtime=0) for level in (0, 9))
    return Format(seeds, _from_file("reports.tgz", _read_members))


def _zip() -> Format:
    seeds = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", method) as archive:
            for name, content in _MEMBERS.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        seeds.append(stream.getvalue())
    return Format(tuple(seeds), _from_file("reports.zip", _read_members))


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


def _saved(content: object) -> tuple[bytes, bytes]:
    """What torch writes today, where checksums tell of most damage, and what it wrote before 1.6, without any."""
    import torch

    streams = io.BytesIO(), io.BytesIO()
    for stream, zipped in zip(streams, (True, False), strict=True):
        torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return streams[0].getvalue(), streams[1].getvalue()


def _dalle() -> Format:
    from tests.models.pretraining.test_dvae import ReleasedEncoder

    from crossray.models.pretraining.image_tokenizer import ImageTokenizerConfig, build_image_tokenizer

    read = _from_file("encoder.pkl", lambda path: build_image_tokenizer(ImageTokenizerConfig(name=str(path))))
    return Format(_saved(ReleasedEncoder(4, 30).state_dict()), read)


def _medklip() -> Format:
    from tests.models.pretraining.test_knowledge import released

    from crossray.models.pretraining.knowledge_encoder import KnowledgeEncoderConfig, build_knowledge_encoder

    content = {"model": released(text=256), "epoch": 3, "optimizer": {"state": {}}}
    return Format(
        _saved(content),
        _from_file("a.pth", lambda path: build_knowledge_encoder(KnowledgeEncoderConfig(name=str(path), text="words"))),
    )


def _chexbert() -> Format:
    import torch
    from tests.evaluation.labelers.test_chexbert import published_names

    from crossray.evaluation.labelers.chexbert_weights import infer_config, read_weights

    state = {f"module.{name}": torch.zeros(shape) for name, shape in published_names(layers=1).items()}
    content = {"epoch": 3, "model_state_dict": state}
    return Format(_saved(content), _from_file("chexbert.pth", lambda path: infer_config(read_weights(path), path)))


FORMATS: dict[str, Callable[[], Format]] = {
    "png": _png,
    "jpeg": _jpeg,
    "dicom": _dicom,
    "xml": _xml,
    "csv": _csv,
    "iu-reports": _iu_reports,
    "iu-projections": _iu_projections,
    "manifest-csv": _manifest_csv,
    "manifest-jsonl": _manifest_jsonl,
    "annotation": _annotation,
    "predictions": _predictions,
    "tar": _tar,
    "tgz": _tgz,
    "zip": _zip,
    "dalle": _dalle,
    "medklip": _medklip,
    "chexbert": _chexbert,
}
