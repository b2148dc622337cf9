"""The bundle against the R4B models of fhir.resources; the resources used are the same in R4."""

import base64
import json
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from tests.interop.studies import STUDY, draft, image

from crossray.errors import UserError
from crossray.interop.draft import NOTICE
from crossray.interop.fhir import fhir_bundle
from crossray.interop.source import read_sources

SOURCES = read_sources([("a", image(1)), ("b", image(2))])


def resources(bundle: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]


@pytest.mark.parametrize("kind", ["collection", "transaction"])
@pytest.mark.parametrize("sources", [SOURCES, ()], ids=["dicom", "png"])
def test_the_bundle_is_valid(kind: Any, sources: Any) -> None:
    bundle = fhir_bundle(draft(), sources, kind=kind)
    read = Bundle.model_validate(json.loads(json.dumps(bundle)))
    assert json.loads(read.model_dump_json()) == bundle
    assert all(("request" in entry) == (kind == "transaction") for entry in bundle["entry"])


def test_every_reference_inside_the_bundle_leads_somewhere() -> None:
    bundle = fhir_bundle(draft(), SOURCES)
    places = {entry["fullUrl"] for entry in bundle["entry"]}
    named: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            named.extend([value["reference"]] if "reference" in value else [])
            for part in value.values():
                walk(part)
        elif isinstance(value, list):
            for part in value:
                walk(part)

    walk(bundle)
    assert len(places) == len(bundle["entry"])
    assert set(named) == places - {place for place in places if _kind(bundle, place) == "Provenance"}


def _kind(bundle: dict[str, Any], place: str) -> str:
    (found,) = (entry["resource"]["resourceType"] for entry in bundle["entry"] if entry["fullUrl"] == place)
    return str(found)


def test_a_denied_finding_is_absent_and_a_doubtful_one_undetermined() -> None:
    said = {
        entry["code"]["coding"][-1]["code"]: (
            entry["valueCodeableConcept"]["coding"][0]["display"],
            entry["interpretation"][0]["coding"][0]["code"],
        )
        for entry in resources(fhir_bundle(draft(), SOURCES), "Observation")
    }
    assert said == {
        "cardiomegaly": ("Present", "POS"),
        "enlarged_cardiomediastinum": ("Present", "POS"),
        "lung_volume_abnormal": ("Present", "POS"),
        "pneumonia": ("Undetermined", "IND"),
        "pleural_effusion": ("Absent", "NEG"),
        "pneumothorax": ("Absent", "NEG"),
    }


def test_no_finding_is_no_observation() -> None:
    bundle = fhir_bundle(draft("the lungs are clear . normal ."))
    names = [entry["code"]["coding"][-1]["code"] for entry in resources(bundle, "Observation")]
    assert "no_finding" not in names and draft("normal .").observations["no_finding"] == "positive"


def test_nothing_is_more_than_preliminary_and_all_says_what_it_is() -> None:
    bundle = fhir_bundle(draft(), SOURCES)
    (report,) = resources(bundle, "DiagnosticReport")
    assert {entry["status"] for entry in [report, *resources(bundle, "Observation")]} == {"preliminary"}
    assert all(NOTICE in entry["resource"]["text"]["div"] for entry in bundle["entry"])
    form = base64.b64decode(report["presentedForm"][0]["data"]).decode()
    assert form.startswith(report["conclusion"]) and NOTICE in form


def test_patient_and_study_are_those_of_the_images() -> None:
    (report,) = resources(fhir_bundle(draft(), SOURCES), "DiagnosticReport")
    assert report["subject"] == {"type": "Patient", "identifier": {"value": "P-1"}}
    assert report["imagingStudy"][0]["identifier"] == {"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"}
    assert report["basedOn"][0]["identifier"]["value"] == "A-7"
    assert report["effectiveDateTime"] == "2026-01-02"


def test_no_patient_is_made_up() -> None:
    bundle = fhir_bundle(draft())
    assert not any({"subject", "imagingStudy", "derivedFrom", "effectiveDateTime"} & set(entry["resource"])
                   for entry in bundle["entry"])  # fmt: skip
    assert "Drawn" not in json.dumps(fhir_bundle(draft(), SOURCES))  # a name is not needed to refer to someone


def test_a_given_subject_replaces_the_one_of_the_images() -> None:
    (report,) = resources(fhir_bundle(draft(), SOURCES, subject="Patient/9"), "DiagnosticReport")
    assert report["subject"] == {"reference": "Patient/9"}
    with pytest.raises(UserError, match="does not refer to a patient"):
        fhir_bundle(draft(), subject="somebody")


def test_the_same_report_has_the_same_identifiers_and_another_has_others() -> None:
    first, again, other = (fhir_bundle(draft(identity=name)) for name in ("1", "1", "2"))
    assert first == again
    device = draft().model.uuid.urn
    assert {entry["fullUrl"] for entry in first["entry"]} & {entry["fullUrl"] for entry in other["entry"]} == {device}


def test_markup_in_a_report_stays_text() -> None:
    bundle = fhir_bundle(draft("<script>alert(1)</script> pneumonia ."))
    (report,) = resources(bundle, "DiagnosticReport")
    assert "<script" not in report["text"]["div"]
    Bundle.model_validate(bundle)


@pytest.mark.filterwarnings("ignore:Invalid value")
@pytest.mark.parametrize(("given", "day"), [("20260228", "2026-02-28"), ("20260231", None), ("20261301", None)])
def test_a_date_that_is_none_is_left_out(given: str, day: str | None) -> None:
    bundle = fhir_bundle(draft(), read_sources([("a", image(1, StudyDate=given))]))
    Bundle.model_validate(bundle)
    for kind in ("DiagnosticReport", "Observation"):
        assert {made.get("effectiveDateTime") for made in resources(bundle, kind)} == {day}


@pytest.mark.parametrize("second", ["A-8", ""])
def test_accession_numbers_that_differ_are_left_out(second: str) -> None:
    for order in ((1, 2), (2, 1)):
        numbers = {1: "A-7", 2: second}
        sources = read_sources([(str(number), image(number, AccessionNumber=numbers[number])) for number in order])
        (made,) = resources(fhir_bundle(draft(), sources), "DiagnosticReport")
        assert "basedOn" not in made
