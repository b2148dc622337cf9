"""Every reader on true files: reports in Open-i's XML, radiographs in DICOM, PNG and JPEG from several collections."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.data.sources.openi import tgz

from crossray import cli
from crossray.data.images import describe_image, read_image, view_position
from crossray.data.images.read import ImageFile
from crossray.data.sources.iu_reports import image_key, parse_report
from crossray.data.store import Dataset

pytestmark = pytest.mark.real_data


def test_open_is_reports(real_data: Path) -> None:
    """Against Kaggle's table, which somebody else made of the same files."""
    folder = real_data / "iu_xray"
    with (folder / "indiana_reports.csv").open(newline="") as file:
        rows = {row["uid"]: row for row in csv.DictReader(file)}
    with (folder / "indiana_projections.csv").open(newline="") as file:
        listed: dict[str, set[str]] = {}
        for row in csv.DictReader(file):
            listed.setdefault(row["uid"], set()).add(image_key(row["filename"]))
    paths = sorted((folder / "ecgen_xml").glob("*.xml"))
    assert len(paths) == 2
    for path in paths:
        report, row = parse_report(path.read_bytes(), path.name), rows[path.stem]
        assert str(report.uid) == path.stem
        for name in ("findings", "impression", "indication"):
            assert " ".join(getattr(report, name).split()) == " ".join(row[name].split())
        assert set(report.images) == listed[path.stem]
        assert [tag.lower() for tag in report.tags] == [tag.strip().lower() for tag in row["MeSH"].split(";")]


def test_true_dicom_files(real_data: Path) -> None:
    paths = sorted((real_data / "dicom").glob("*.dcm"))
    assert len(paths) == 3
    for path in paths:
        view = ImageFile(path).read(256)
        assert min(view.pixels.shape) == 256
        # the file that says MONOCHROME1 holds the pixels of another: believed as they are, with a warning
        wrong = ("PhotometricInterpretation",) if "monochrome1" in path.name else ()
        assert tuple(warning.split()[0] for warning in view.warnings) == wrong
        assert np.ptp(view.pixels) > 150 and view.pixels.std() > 30
        assert describe_image(path).position == path.name.split("_")[1]


def test_true_dicom_files_have_dark_lungs(real_data: Path) -> None:
    """Lungs are darker than what lies between them, whatever the header says of the polarity."""
    shown = {path.stem.split("_", 1)[1]: read_image(path) for path in (real_data / "dicom").glob("*.dcm")}
    pair = [shown[f"pa_jpegbaseline_monochrome{number}"].astype(int) for number in (1, 2)]
    assert np.abs(pair[0] - pair[1]).max() <= 1
    for pixels in shown.values():
        height, width = pixels.shape
        rows = slice(height // 4, height // 2)
        lungs = [pixels[rows, int(width * at) : int(width * (at + 0.12))].mean() for at in (0.22, 0.66)]
        assert pixels[rows, int(width * 0.44) : int(width * 0.56)].mean() > max(lungs)


@pytest.mark.parametrize(
    ("folder", "most"),
    [("iu_xray/native", 8), ("covid_chestxray/images", 400), ("nih_chestxray14/images", 100), ("hannover/images", 50)],
)
def test_pictures_are_read_without_a_warning(real_data: Path, folder: str, most: int) -> None:
    paths = sorted((real_data / folder).iterdir())[:most]
    assert len(paths) >= 8
    for path in paths:
        assert ImageFile(path).read(64).warnings == (), path.name


def test_a_manifest_of_a_public_collection(real_data: Path, tmp_path: Path) -> None:
    """Its table as it is: views in its own words, notes as findings."""
    folder = real_data / "covid_chestxray"
    with (folder / "metadata.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["clinical_notes"].strip()][:40]
    with (tmp_path / "covid.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["images", "patient", "views", "findings"])
        for row in rows:
            shutil.copy(folder / "images" / row["file"], tmp_path)
            table.writerow([row["file"], row["patient"], row["view"], row["clinical_notes"]])
    cli.main(["prepare", "manifest", str(tmp_path / "covid.csv"), "--out", str(tmp_path / "d"), "--size", "64",
              "--workers", "0"])  # fmt: skip
    dataset = Dataset.open(tmp_path / "d")
    assert dataset.studies == len(rows)
    assert "warnings" not in dataset.info.counts
    found = [dataset.record(row).positions[0] for row in range(dataset.studies)]
    assert sorted(found) == sorted(str(view_position(row["view"])) for row in rows)
    assert "unknown" not in found


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_jpeg_copies_of_kaggles_images(real_data: Path, tmp_path: Path, kind: str) -> None:
    source = real_data / "iu_xray"
    with (source / "indiana_projections.csv").open(newline="") as file:
        wanted = {
            image_key(row["filename"]) for row in csv.DictReader(file) if row["uid"] in ("1000", "1001", "20", "14")
        }
    files = [path for path in sorted((source / "images_256").iterdir()) if image_key(path.name) in wanted]
    assert len(files) >= 6
    images = tmp_path / "images"
    images.mkdir()
    for path in files:
        shutil.copy(path, images)
    if kind == "archive":
        images = tgz(tmp_path / "images.tgz", {path.name: path.read_bytes() for path in files})
    cli.main(["prepare", "iu-xray", "--reports", str(source / "indiana_reports.csv"), "--images", str(images),
              "--out", str(tmp_path / "d"), "--size", "64", "--views", "all", "--workers", "0"])  # fmt: skip
    dataset = Dataset.open(tmp_path / "d")
    assert dataset.info.counts["rejected"] == {}
    assert dataset.images == len(files)
    first = [dataset.record(row).positions[0] for row in range(dataset.studies)]
    assert set(first) == {"frontal"}


def test_jpeg_copies_look_like_the_native_images(real_data: Path) -> None:
    """Kaggle's PNG of native size, squashed to 256 x 256, against the copy."""
    from PIL import Image

    for path in sorted((real_data / "iu_xray" / "native").iterdir()):
        copy = read_image(real_data / "iu_xray" / "images_256" / path.name.replace(".png", ".jpg"))
        native = np.asarray(Image.fromarray(read_image(path)).resize((256, 256), Image.Resampling.BOX))
        assert np.corrcoef(copy.ravel(), native.ravel())[0, 1] > 0.995
