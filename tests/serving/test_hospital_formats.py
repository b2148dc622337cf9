"""Answers of the service as FHIR and SR."""

import json
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from pydicom import dcmread
from tests.interop.studies import SERIES, STUDY, image

from crossray.errors import UserError
from crossray.serving.entries import Entry
from crossray.serving.hospital import fhir_json, sr_file, stored_objects

MADE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ANSWER: dict[str, Any] = {
    "id": "0f" * 16,
    "created": MADE.isoformat(),
    "model": {"name": "a", "system": "baseline", "weights_sha256": "ab" * 32},
    "crossray": "1.0",
    "text": "Small left pleural effusion. No pneumothorax.",
    "views": [{"number": 0, "position": "pa", "file": 0}, {"number": 1, "position": "lateral", "file": 1}],
}
IMAGES = [("image 1", image(1)), ("image 2", image(2))]


def test_fhir_of_dicom_and_of_a_picture() -> None:
    bundle = fhir_json(ANSWER, ANSWER["text"], MADE, IMAGES)
    Bundle.model_validate(bundle)
    assert STUDY in json.dumps(bundle) and ANSWER["text"] in json.dumps(bundle)
    picture = fhir_json(ANSWER, ANSWER["text"], MADE, [("image 1", b"\x89PNG")])
    Bundle.model_validate(picture)
    assert "subject" not in json.dumps(picture)


def test_sr_of_dicom_and_of_a_picture() -> None:
    made = dcmread(BytesIO(sr_file(ANSWER, ANSWER["text"], MADE, IMAGES)))
    assert (made.StudyInstanceUID, made.ContentDate) == (STUDY, MADE.astimezone().strftime("%Y%m%d"))
    with pytest.raises(UserError, match="needs DICOM images"):
        sr_file(ANSWER, ANSWER["text"], MADE, [("image 1", b"\x89PNG")])


def test_an_edited_report_is_another_object_with_its_own_findings() -> None:
    first = dcmread(BytesIO(sr_file(ANSWER, ANSWER["text"], MADE, IMAGES)))
    edited = dcmread(BytesIO(sr_file(ANSWER, "Large pneumothorax.", MADE, IMAGES)))
    assert first.SOPInstanceUID != edited.SOPInstanceUID
    bundle = fhir_json(ANSWER, "Large pneumothorax.", MADE, IMAGES)
    observations = [
        entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == "Observation"
    ]
    assert [entry["valueCodeableConcept"]["text"] for entry in observations] == ["Present"]


def test_what_is_delivered_is_what_is_downloaded() -> None:
    entry = Entry(ANSWER["id"], "done", "dicom", "WARD", None, "a", {}, 0.0, 0.0, 1, None, None, None)
    (content,) = stored_objects(entry, json.dumps(ANSWER), IMAGES)
    sent = dcmread(BytesIO(content))
    assert sent.SOPInstanceUID == dcmread(BytesIO(sr_file(ANSWER, ANSWER["text"], MADE, IMAGES))).SOPInstanceUID


def test_the_report_refers_to_the_views_that_the_model_saw() -> None:
    answer = {**ANSWER, "views": [{"number": 0, "position": "pa", "file": 1}]}
    made = dcmread(BytesIO(sr_file(answer, ANSWER["text"], MADE, IMAGES)))
    series = made.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert [one.ReferencedSOPInstanceUID for one in series.ReferencedSOPSequence] == [f"{SERIES}.2"]
