"""DICOM files and folders of a series on the whole way: a manifest, a dataset, what was left out and why."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("pydicom")

import pydicom
from pydicom import uid
from pydicom.data import get_testdata_file
from tests.data.images.dicom_files import dicom, dicom_bytes, dicom_dataset
from tests.data.sources.openi import png
from tests.data.sources.test_manifest import table

from crossray import cli
from crossray.data.images import read_image, resize_short_side
from crossray.data.sources.manifest import read_manifest
from crossray.data.store import Dataset
from crossray.errors import UserError

SIZE = 32


def values(seed: int = 0, bits: int = 12) -> NDArray[np.uint16]:
    """(48, 40) values of that many bits."""
    return np.random.default_rng(seed).integers(0, 2**bits, (48, 40), dtype=np.uint16)


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def series(folder: Path) -> Path:
    """The views of one study, named as archives name them; the frontal one is the last."""
    write(folder / "1.2.840.1", dicom(values(1), BitsStored=12, ViewPosition="LL"))
    write(folder / "sub" / "1.2.840.2", dicom(values(2), BitsStored=12))
    write(folder / "sub" / "1.2.840.3", dicom(values(3), BitsStored=12, ViewPosition="AP"))
    write(folder / "DICOMDIR", b"index")
    return folder


def compressed(syntax: uid.UID, plugin: str) -> bytes:
    image = dicom_dataset(values(), BitsStored=12)
    image.compress(syntax, encoding_plugin=plugin)
    return dicom_bytes(image)


def prepare(folder: Path, *images: str) -> tuple[Dataset, dict[str, dict[str, str]]]:
    """A dataset of one study for each entry of the column `images`, called by it; and what was rejected, by study."""
    path = table(folder, *({"study": name, "images": name, "findings": "Clear lungs."} for name in images))
    cli.main(["prepare", "manifest", str(path), "--out", str(folder / "out"), "--size", str(SIZE), "--workers", "0"])
    lines = [json.loads(line) for line in (folder / "out" / "rejected.jsonl").read_text().splitlines()]
    return Dataset.open(folder / "out"), {line["study"]: line for line in lines}


def stored(dataset: Dataset, name: str) -> list[NDArray[np.uint8]]:
    row = dataset.ids(np.arange(dataset.studies)).index(name)
    return [np.asarray(dataset.image(view)) for view in dataset.views(row)]


def test_files_folders_and_pictures_become_studies(tmp_path: Path) -> None:
    series(tmp_path / "series")
    write(tmp_path / "one.dcm", dicom(values(4), BitsStored=12, ViewPosition="PA"))
    write(tmp_path / "picture.png", png(5))
    dataset, rejected = prepare(tmp_path, "series", "one.dcm", "one.dcm;picture.png")
    assert rejected == {}
    records = [dataset.record(row) for row in range(3)]
    assert [record.positions for record in records] == [("ap", "lateral", "unknown"), ("pa",), ("pa", "unknown")]
    views = stored(dataset, "series")
    for view, name in zip(views, ("sub/1.2.840.3", "1.2.840.1", "sub/1.2.840.2"), strict=True):
        np.testing.assert_array_equal(view, resize_short_side(read_image(tmp_path / "series" / name), SIZE))


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "ct.dcm": (lambda: dicom(values(), Modality="CT"), "Modality is CT (computed tomography)"),
    "report.dcm": (lambda: dicom(values(), Modality="SR"), "Modality is SR (structured report)"),
    "truncated.dcm": (lambda: dicom(values())[:-1000], "truncated or damaged"),
    "header.dcm": (lambda: dicom(values())[:300], "truncated"),
    "palette.dcm": (lambda: dicom(values(), PhotometricInterpretation="PALETTE COLOR"), "MONOCHROME2"),
    "lying.dcm": (lambda: dicom(values(), Rows=65535, Columns=65535), "million"),
    "padding.dcm": (lambda: dicom(np.full((48, 40), 7, np.uint16), PixelPaddingValue=7), "PixelPaddingValue"),
    "picture.dcm": (png, "the suffix says DICOM, the content is PNG"),
    "text.dcm": (lambda: b"FINDINGS: clear." * 20, "not a PNG, JPEG or DICOM file"),
    "empty.dcm": (lambda: b"", "is empty"),
}


def test_every_bad_file_is_rejected_with_its_reason_and_counted(tmp_path: Path) -> None:
    for name, (make, _) in BAD.items():
        write(tmp_path / name, make())
    write(series(tmp_path / "series") / "broken", dicom(values())[:300])
    write(tmp_path / "good.dcm", dicom(values()))
    dataset, rejected = prepare(tmp_path, *BAD, "series", "good.dcm", "good.dcm;ct.dcm")
    assert dataset.ids(np.arange(dataset.studies)) == ["good.dcm"]
    assert dataset.info.counts["read"] == len(BAD) + 3
    assert dataset.info.counts["rejected"] == {"broken_image": len(BAD) + 2}
    for name, (_, words) in BAD.items():
        assert words in rejected[name]["reason"]
        assert rejected[name]["reason"].startswith(f"{tmp_path / name}: ")
    assert "series/broken: " in rejected["series"]["reason"]
    assert "Doe" not in str(rejected)


def test_every_kind_of_pixels_comes_through(tmp_path: Path) -> None:
    """Polarity, depth, window and compression; that the gray levels are right is shown in `test_dicom.py`."""
    files = {
        "monochrome1.dcm": dicom(values(), BitsStored=12, PhotometricInterpretation="MONOCHROME1"),
        "window.dcm": dicom(values(), BitsStored=12, WindowCenter="2000", WindowWidth="900"),
        "rle.dcm": compressed(uid.RLELossless, "pydicom"),
        "jpeg-2000.dcm": compressed(uid.JPEG2000Lossless, "pylibjpeg"),
        **{f"bits-{bits}.dcm": dicom(values(bits=bits), BitsStored=bits) for bits in (10, 12, 14, 16)},
    }
    for name, content in files.items():
        write(tmp_path / name, content)
    dataset, rejected = prepare(tmp_path, *files)
    assert rejected == {}
    plain = resize_short_side(read_image(files["bits-12.dcm"]), SIZE).astype(int)
    for name in ("rle.dcm", "jpeg-2000.dcm", "bits-12.dcm"):
        np.testing.assert_array_equal(stored(dataset, name)[0], plain)
    assert np.abs(stored(dataset, "monochrome1.dcm")[0] + plain - 255).max() <= 1
    assert stored(dataset, "window.dcm")[0].std() > plain.std()


def test_frames_beyond_the_first_are_remarked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = np.stack([values(1), values(2)])
    write(tmp_path / "two.dcm", dicom(values(1), NumberOfFrames=2, PixelData=frames.tobytes()))
    write(tmp_path / "first.dcm", dicom(values(1)))
    dataset, _ = prepare(tmp_path, "two.dcm", "first.dcm")
    np.testing.assert_array_equal(stored(dataset, "two.dcm")[0], stored(dataset, "first.dcm")[0])
    assert [dataset.warnings(row) for row in range(2)] == [("NumberOfFrames is 2; the first frame is taken",), ()]
    assert dataset.info.counts["warnings"] == {"NumberOfFrames": 1}
    assert "1 image with a warning: NumberOfFrames" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        ({"images": "two-studies"}, "images", "StudyInstanceUID differs"),
        ({"images": "series;two-studies/2.dcm"}, "images", "StudyInstanceUID differs"),
        ({"images": "empty"}, "images", "'empty' is a folder that cannot be used: the folder contains no image; give"),
        ({"images": "deflated"}, "images", "'deflated' is a folder that cannot be used: .*deflated/1.dcm: the whole"),
        ({"images": "series", "views": "pa"}, "views", "cannot be given for a folder"),
        ({"images": "series;series/1.2.840.1"}, "images", "an image is named twice"),
        ({"images": "links"}, "images", "links to places outside"),
        ({"images": "link"}, "images", "is outside"),
    ],
)
def test_what_a_folder_must_not_be(tmp_path: Path, row: dict[str, Any], column: str, message: str) -> None:
    root = tmp_path / "root"
    series(root / "series")
    for number in "12":
        write(root / "two-studies" / f"{number}.dcm", dicom(values(), StudyInstanceUID=f"2.25.{number}"))
    (root / "empty").mkdir()
    deflated = dicom_dataset(values())
    deflated.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    write(root / "deflated" / "1.dcm", dicom_bytes(deflated))
    write(tmp_path / "outside" / "1.dcm", dicom(values()))
    (root / "links").mkdir()
    (root / "links" / "1.dcm").symlink_to(tmp_path / "outside" / "1.dcm")
    (root / "link").symlink_to(tmp_path / "outside")
    path = table(root, {"findings": "Clear.", **row})
    with pytest.raises(UserError, match=f"line 2: {column}: .*{message}") as caught:
        read_manifest(path)
    assert "2.25" not in str(caught.value)


def test_files_that_pydicom_ships(tmp_path: Path) -> None:
    """As they are, all are of other modalities; said to be radiographs, all become studies."""
    names = ["CT_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "JPGExtended.dcm", "JPEG2000.dcm"]
    for name in names:
        path = get_testdata_file(name, download=False)
        assert isinstance(path, str)
        write(tmp_path / name, Path(path).read_bytes())
        image = pydicom.dcmread(path)
        image.Modality = "CR"
        write(tmp_path / f"as-{name}", dicom_bytes(image))
    dataset, rejected = prepare(tmp_path, *names, *(f"as-{name}" for name in names))
    assert dataset.ids(np.arange(dataset.studies)) == [f"as-{name}" for name in names]
    assert {name: entry["reason"].split(": ")[1].split(" (")[0] for name, entry in rejected.items()} == {
        "CT_small.dcm": "Modality is CT", "MR_small_RLE.dcm": "Modality is MR", "MR_small_jp2klossless.dcm":
        "Modality is MR", "JPGExtended.dcm": "Modality is NM", "JPEG2000.dcm": "Modality is NM",
    }  # fmt: skip


@pytest.mark.real_data
def test_real_radiographs_come_back_from_dicom(tmp_path: Path, real_data: Path) -> None:
    """The four complete studies of IU X-Ray, each a folder of two deep, inverted, compressed views."""
    originals = sorted(path for path in (real_data / "iu_xray" / "images").iterdir() if path.is_dir())
    for folder in originals:
        for number, position in enumerate(("PA", "LL")):
            pixels = read_image(folder / f"{number}.png").astype(np.uint16)
            image = dicom_dataset(
                (4095 - np.round(pixels * (4095 / 255)).astype(np.uint16)), BitsStored=12, ViewPosition=position,
                WindowCenter="2047.5", WindowWidth="4095", VOILUTFunction="LINEAR_EXACT",
                PhotometricInterpretation="MONOCHROME1", StudyInstanceUID=f"2.25.{sum(folder.name.encode())}",
            )  # fmt: skip
            image.compress((uid.RLELossless, uid.JPEG2000Lossless)[number], generate_instance_uid=False)
            write(tmp_path / folder.name / f"{9 - number}", dicom_bytes(image))
    dataset, rejected = prepare(tmp_path, *(folder.name for folder in originals))
    assert rejected == {} and dataset.studies == 4
    for row, folder in enumerate(originals):
        assert dataset.record(row).positions == ("pa", "lateral")
        for number, view in enumerate(stored(dataset, folder.name)):
            expected = resize_short_side(read_image(folder / f"{number}.png"), SIZE)
            np.testing.assert_array_equal(view, expected)


@pytest.mark.parametrize("field", ["PatientID", "StudyInstanceUID"])
def test_patients_that_only_the_headers_join_cause_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, field: str
) -> None:
    """Without the column patient, every study is a patient, and the splits would share patients silently."""
    other = {"PatientID": "StudyInstanceUID", "StudyInstanceUID": "PatientID"}[field]
    for number, value in enumerate(("2.25.77", "2.25.77", "2.25.78")):
        fields = {field: value, other: f"2.25.{number}"}
        write(tmp_path / f"{number}.dcm", dicom(values(number), BitsStored=12, **fields))
    rows = [{"study": f"s{number}", "images": f"{number}.dcm", "findings": "Clear."} for number in range(3)]
    read_manifest(table(tmp_path, *rows))
    (record,) = caplog.records
    assert f"2 patients share their {field}" in record.getMessage()
    assert "2.25.77" not in record.getMessage()
    caplog.clear()
    named = [{**row, "patient": "p" if row["study"] != "s2" else "q"} for row in rows]
    read_manifest(table(tmp_path, *named))
    assert not caplog.records
