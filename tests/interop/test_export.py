"""`crossray export --format text|fhir|sr`: a file a study."""

import json
from pathlib import Path

import numpy as np
import pytest
from fhir.resources.R4B.bundle import Bundle
from PIL import Image
from pydicom import dcmread
from tests.interop.studies import TEXT, image

from crossray.cli import main
from crossray.evaluation.predictions import Prediction, Provenance, write_predictions

#: Names of the exports of the studies "ward/a" and "ward:a".
A, B = "ward_a-691c8f93", "ward_a-aca51e56"

PROVENANCE = Provenance(model="runs/a", system="baseline", versions={"weights_sha256": "ab" * 32, "crossray": "1.0"})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two studies of DICOM files and their predictions, made in this folder."""
    monkeypatch.chdir(tmp_path)
    for name, study in (("a", "1.2.3"), ("b", "1.2.4")):
        (tmp_path / f"{name}.dcm").write_bytes(image(1, StudyInstanceUID=study))
    rows = [Prediction("ward/a", TEXT, images=("a.dcm",)), Prediction("ward:a", "normal .", images=("b.dcm",))]
    write_predictions(tmp_path / "p.jsonl", PROVENANCE, rows)
    return tmp_path


def export(*arguments: str) -> None:
    main(["export", "p.jsonl", "--out", "out", *arguments])


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        export(*arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_text(folder: Path) -> None:
    export("--format", "text")
    assert sorted(path.name for path in (folder / "out").iterdir()) == sorted([f"{A}.txt", f"{B}.txt"])
    text = (folder / "out" / f"{A}.txt").read_text()
    assert text.startswith("The heart is enlarged. ") and "Not a medical device" in text


def test_fhir(folder: Path) -> None:
    export("--format", "fhir")
    for name, study in ((A, "1.2.3"), (B, "1.2.4")):
        content = (folder / "out" / f"{name}.json").read_text()
        Bundle.model_validate_json(content)
        assert f"urn:oid:{study}" in content


def test_fhir_to_be_posted_about_a_given_patient(folder: Path) -> None:
    (folder / "ids.txt").write_text("ward/a\n")
    export("--format", "fhir", "--studies", "ids.txt", "--subject", "Patient/9", "--transaction")
    bundle = json.loads((folder / "out" / f"{A}.json").read_text())
    assert bundle["type"] == "transaction"
    assert bundle["entry"][0]["resource"]["subject"] == {"reference": "Patient/9"}


def test_sr(folder: Path) -> None:
    export("--format", "sr")
    made = [dcmread(folder / "out" / f"{name}.dcm") for name in (A, B)]
    assert [one.StudyInstanceUID for one in made] == ["1.2.3", "1.2.4"]
    assert made[0].SOPInstanceUID != made[1].SOPInstanceUID


def test_images_lie_elsewhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "images").mkdir()
    for name in ("a.dcm", "b.dcm"):
        (folder / name).rename(folder / "images" / name)
    assert "a.dcm: the image does not exist; give --images" in refusal(capsys, "--format", "sr")
    export("--format", "sr", "--images", "images")
    assert len(list((folder / "out").iterdir())) == 2


def test_pictures_have_a_bundle_without_a_patient_and_no_sr(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)).save(folder / "a.png")
    write_predictions(folder / "p.jsonl", PROVENANCE, [Prediction("a", TEXT, images=("a.png",))])
    export("--format", "fhir")
    assert "subject" not in (folder / "out" / "a.json").read_text()
    assert "needs DICOM images" in refusal(capsys, "--format", "sr")


def test_long_names_of_any_script_fit_into_a_file_system(folder: Path) -> None:
    ids = ["\u80ba" * 120, "\u80ba" * 121, "x" * 120]
    write_predictions(folder / "p.jsonl", PROVENANCE, [Prediction(name, TEXT) for name in ids])
    export("--format", "text")
    names = sorted(path.name for path in (folder / "out").iterdir())
    assert [name.partition("-")[0] for name in names] == ["x" * 100, "\u80ba" * 50, "\u80ba" * 50]
    assert len(set(names)) == 3


def test_a_later_export_replaces_only_the_report_of_the_same_study(folder: Path) -> None:
    """Both studies are "ward_a" as names of files, and the second is exported alone."""
    export("--format", "text")
    before = (folder / "out" / f"{A}.txt").read_text()
    write_predictions(folder / "p.jsonl", PROVENANCE, [Prediction("ward:a", "no effusion .")])
    export("--format", "text")
    assert (folder / "out" / f"{A}.txt").read_text() == before
    assert (folder / "out" / f"{B}.txt").read_text().startswith("No effusion.")


def test_names_that_a_disk_takes_are_kept(folder: Path) -> None:
    write_predictions(
        folder / "p.jsonl", PROVENANCE, [Prediction(name, TEXT) for name in ("1.2-b", "M\u00fcller", "A", "a")]
    )
    export("--format", "text")
    names = sorted(path.name for path in (folder / "out").iterdir())
    assert names == ["1.2-b.txt", "A.txt", "M\u00fcller.txt", "a-2.txt"]


def test_mistakes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "names the patient of a single study" in refusal(capsys, "--format", "fhir", "--subject", "Patient/9")
    assert "need --format fhir or sr" in refusal(capsys, "--format", "jsonl", "--subject", "Patient/9")
    (folder / "out").write_text("a file")
    assert "it is a file" in refusal(capsys, "--format", "sr")


@pytest.mark.parametrize("format", ["text", "fhir", "sr"])
def test_only_exports_are_replaced(folder: Path, capsys: pytest.CaptureFixture[str], format: str) -> None:
    for _ in range(2):
        export("--format", format)
    (kept,) = (folder / "out").glob(f"{B}.*")
    kept.write_bytes(b"written by a person")
    (folder / "out" / f"{A}{kept.suffix}").unlink()
    assert f"{kept.name} exists and is no export of CrossRay" in refusal(capsys, "--format", format)
    assert [path.name for path in (folder / "out").iterdir()] == [kept.name]
    assert kept.read_bytes() == b"written by a person"


def test_the_radiograph_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "out").mkdir()
    (folder / "a.dcm").rename(folder / "out" / "chest.dcm")
    write_predictions(folder / "p.jsonl", PROVENANCE, [Prediction("chest", TEXT, images=("out/chest.dcm",))])
    before = (folder / "out" / "chest.dcm").read_bytes()
    assert "chest.dcm exists and is no export" in refusal(capsys, "--format", "sr")
    assert (folder / "out" / "chest.dcm").read_bytes() == before
