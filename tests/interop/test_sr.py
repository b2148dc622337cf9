"""The structured report, read by pydicom and, where dcmtk is installed, by dsrdump."""

import shutil
import subprocess
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from tests.interop.studies import STUDY, draft, image

from crossray.errors import UserError
from crossray.interop.source import read_source, read_sources
from crossray.interop.sr import dicom_bytes, structured_report

needs_dcmtk = pytest.mark.skipif(shutil.which("dsrdump") is None, reason="dsrdump of dcmtk is not installed")


def report(text: str | None = None, **fields: Any) -> Dataset:
    sources = read_sources([("a", image(1, **fields)), ("b", image(2, **fields))])
    written = draft() if text is None else draft(text)
    return dcmread(BytesIO(dicom_bytes(structured_report(written, sources))))


def items(dataset: Dataset) -> list[Dataset]:
    below = list(dataset.get("ContentSequence", []))
    return [*below, *(item for one in below for item in items(one))]


def name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def test_patient_and_study_are_carried_over_and_nothing_else_of_the_image() -> None:
    made, source = report(), dcmread(BytesIO(image(1)))
    for field in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
                  "StudyTime", "AccessionNumber"):  # fmt: skip
        assert made[field].value == source[field].value
    assert made.SeriesInstanceUID != source.SeriesInstanceUID
    assert (made.Modality, made.SOPClassUID.name) == ("SR", "Comprehensive SR Storage")
    assert "PixelData" not in made and "ViewPosition" not in made


def test_it_says_what_it_is() -> None:
    made = report()
    assert (made.CompletionFlag, made.VerificationFlag, made.PreliminaryFlag) == (
        "PARTIAL",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert "VerifyingObserverSequence" not in made
    observer = next(item for item in items(made) if name(item) == "Observer Type")
    assert observer.ConceptCodeSequence[0].CodeMeaning == "Device"
    comment = next(item for item in items(made) if name(item) == "Comment")
    assert "Not a medical device" in comment.TextValue


def test_it_refers_to_every_image_in_content_and_evidence() -> None:
    made = report()
    shown = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in items(made) if item.ValueType == "IMAGE"
    }
    series = made.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    listed = {entry.ReferencedSOPInstanceUID for entry in series.ReferencedSOPSequence}
    assert shown == listed == {dcmread(BytesIO(image(number))).SOPInstanceUID for number in (1, 2)}
    assert made.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID == STUDY


def test_the_observation_is_the_question_and_its_status_the_answer() -> None:
    codes = [item for item in items(report()) if item.ValueType == "CODE" and item.RelationshipType == "CONTAINS"]
    assert {name(item): item.ConceptCodeSequence[0].CodeMeaning for item in codes} == {
        "Cardiomegaly": "Present",
        "Enlarged cardiomediastinum": "Present",
        "Abnormal lung volume": "Present",
        "Pneumonia": "Undetermined",
        "Pleural effusion": "Absent",
        "Pneumothorax": "Absent",
    }


def test_the_same_draft_gives_the_same_object() -> None:
    first, again = report(), report()
    assert first.SOPInstanceUID == again.SOPInstanceUID and first.SeriesInstanceUID == again.SeriesInstanceUID
    assert first.SOPInstanceUID != report("normal .").SOPInstanceUID


@pytest.mark.parametrize(
    ("encoding", "person"),
    [("ISO_IR 100", "Müller^Jörg"), ("ISO_IR 144", "Ильина^Яна"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎")],
)
def test_names_of_every_alphabet_survive(encoding: Any, person: str) -> None:
    assert str(report(SpecificCharacterSet=encoding, PatientName=person).PatientName) == person


def test_unknown_fields_are_empty_and_not_made_up() -> None:
    made = report(PatientID=None, PatientName=None, PatientBirthDate=None, StudyDate=None, AccessionNumber=None)
    assert not any(made[field].value for field in ("PatientID", "PatientBirthDate", "StudyDate", "AccessionNumber"))


def test_a_damaged_date_is_left_out_and_a_damaged_identifier_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = image(1, StudyDate="2026 JAN")
        wrong = image(1, PatientID="P" * 70)
        impossible = image(1, StudyDate="20260231", PatientBirthDate="19701301", StudyTime="236000")
    made = structured_report(draft(), read_sources([("a", content)]))
    assert made.StudyDate in (None, "")
    made = structured_report(draft(), read_sources([("a", impossible)]))
    assert not made.StudyDate and not made.PatientBirthDate and not made.StudyTime
    with pytest.raises(UserError, match="a: PatientID is malformed") as caught:
        read_source(wrong, "a")
    assert "PPP" not in str(caught.value)


def test_accession_numbers_that_differ_are_left_empty() -> None:
    sources = read_sources([("a", image(1)), ("b", image(2, AccessionNumber="A-8"))])
    made = structured_report(draft(), sources)
    assert made.AccessionNumber == ""
    assert b"A-7" not in dicom_bytes(made)


def test_images_of_two_studies_are_refused() -> None:
    with pytest.raises(UserError, match="StudyInstanceUID differs from that of"):
        read_sources([("a", image(1)), ("b", image(2, StudyInstanceUID="1.2.3"))])
    with pytest.raises(UserError, match=r"damaged|missing"):
        read_source(b"no DICOM at all", "c")


@pytest.mark.filterwarnings("error")
def test_no_warning_repeats_the_patient() -> None:
    sources = read_sources([("a", image(1, PatientName="Secret"))])
    dicom_bytes(structured_report(draft(), sources))


@needs_dcmtk
def test_dsrdump_reads_it_without_an_error(tmp_path: Path) -> None:
    file = tmp_path / "sr.dcm"
    file.write_bytes(dicom_bytes(structured_report(draft(), read_sources([("a", image(1))]))))
    printed = subprocess.run(["dsrdump", "+Pc", "+Pl", file], capture_output=True, text=True, check=True)
    assert "UNVERIFIED" in printed.stdout and 'SCT,"Pneumothorax")=(272519000,SCT,"Absent")' in printed.stdout
    assert '(enlarged_cardiomediastinum,99CROSSRAY,"Enlarged cardiomediastinum")' in printed.stdout
    assert not [line for line in printed.stderr.splitlines() if line.startswith(("E:", "F:"))]


def test_a_source_is_not_printed_with_its_patient() -> None:
    assert "Drawn" not in repr(read_source(image(1), "a"))
