"""Converts a draft report to a FHIR R4 bundle: DiagnosticReport, one Observation per finding, Device, Provenance.

The patient is taken from the images or the caller; without a patient, the resources have no subject. The study is
referenced by its identifier (`urn:dicom:uid`), because the ImagingStudy belongs to the archive. The resources are the
same in R4 (4.0.1) and R4B.
"""

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC
from html import escape
from typing import Any, Literal

from crossray.errors import UserError, quoted
from crossray.interop.codes import (
    DIAGNOSTIC_IMAGING_REPORT,
    NOT_WRITTEN,
    Code,
    code_of,
    interpretations,
    status_codes,
)
from crossray.interop.draft import NOTICE, DraftReport
from crossray.interop.source import Source, study_date

#: Media type of a bundle.
MEDIA_TYPE = "application/fhir+json"

_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"

Resource = dict[str, Any]


def fhir_bundle(
    draft: DraftReport,
    sources: Sequence[Source] = (),
    *,
    subject: str | None = None,
    kind: Literal["collection", "transaction"] = "collection",
) -> Resource:
    """Build the bundle of a report, as JSON values.

    Args:
        draft: the report.
        sources: DICOM images of the report, from which study, patient, accession number and date are taken.
        subject: reference to the patient on the receiving server, such as "Patient/123"; replaces the images'
            PatientID.
        kind: "collection" for reading; "transaction" for posting to a FHIR server, which stores each resource.

    Raises:
        UserError: `subject` is not a reference to a patient.
    """
    person = _subject(sources, subject)
    study = _study(sources)
    given: Resource = {}
    if person:
        given["subject"] = person
    if day := study_date(sources):
        given["effectiveDateTime"] = day
    device, report, provenance = (_address(draft, part) for part in ("device", "report", "provenance"))
    observations = {
        _address(draft, f"observation {name}"): _observation(draft, name, status, device, study, given)
        for name, status in draft.observations.items()
        if name not in NOT_WRITTEN
    }
    resources = {
        report: _report(draft, sources, list(observations), study, given),
        **observations,
        device: _device(draft),
        provenance: _provenance(draft, [report, *observations], device, study),
    }
    entries = [_entry(address, resource, kind) for address, resource in resources.items()]
    return {
        "resourceType": "Bundle",
        "type": kind,
        "timestamp": _instant(draft),
        "identifier": {"system": "urn:ietf:rfc:3986", "value": _address(draft, "bundle")},
        "entry": entries,
    }


def _entry(address: str, resource: Resource, kind: str) -> Resource:
    entry: Resource = {"fullUrl": address, "resource": resource}
    if kind == "transaction":
        entry["request"] = {"method": "POST", "url": resource["resourceType"]}
        if "identifier" in resource:  # so that it is stored only once if it is posted twice
            known = resource["identifier"][0]
            entry["request"]["ifNoneExist"] = f"identifier={known['system']}|{known['value']}"
    return entry


def _report(
    draft: DraftReport,
    sources: Sequence[Source],
    observations: Sequence[str],
    study: Resource | None,
    given: Mapping[str, Any],
) -> Resource:
    """Build the DiagnosticReport. R4 allows no Device as performer; Observations and Provenance refer to it instead."""
    report: Resource = {
        "resourceType": "DiagnosticReport",
        "text": _narrative(draft.text),
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": _address(draft, "report")}],
        "status": "preliminary",
        "category": [{"coding": [{"system": f"{_TERMINOLOGY}v2-0074", "code": "RAD"}]}],
        "code": _concept("Chest X-ray report, machine-written draft", DIAGNOSTIC_IMAGING_REPORT),
        **given,
        "issued": _instant(draft),
        "conclusion": draft.text,
        "presentedForm": [
            {
                "contentType": "text/plain; charset=utf-8",
                "data": base64.b64encode(f"{draft.text}\n\n{NOTICE}\n".encode()).decode(),
                "title": NOTICE,
            }
        ],
    }
    if observations:
        report["result"] = [{"reference": address} for address in observations]
    if study:
        report["imagingStudy"] = [study]
    if sources and (number := sources[0].text("AccessionNumber")):
        kind = {"coding": [{"system": f"{_TERMINOLOGY}v2-0203", "code": "ACSN"}]}
        report["basedOn"] = [{"type": "ServiceRequest", "identifier": {"type": kind, "value": number}}]
    return report


def _observation(
    draft: DraftReport, name: str, status: str, device: str, study: Resource | None, given: Mapping[str, Any]
) -> Resource:
    """Build an Observation: code is the finding, value its presence, so it cannot be read as the opposite."""
    code = code_of(name)
    answer = status_codes()[status]
    words = "; ".join(draft.words.get(name, ()))
    observation: Resource = {
        "resourceType": "Observation",
        "text": _narrative(f"{code.meaning}: {answer.meaning}"),
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": _address(draft, f"observation {name}")}],
        "status": "preliminary",
        "category": [{"coding": [{"system": f"{_TERMINOLOGY}observation-category", "code": "imaging"}]}],
        "code": _concept(code.meaning, *([code.code] if code.code else []), code.own),
        **given,
        "issued": _instant(draft),
        "valueCodeableConcept": _concept(answer.meaning, answer),
        "interpretation": [
            {"coding": [{"system": f"{_TERMINOLOGY}v3-ObservationInterpretation", "code": interpretations()[status]}]}
        ],
        "bodySite": _concept(code.site.meaning, code.site),
        "device": {"reference": device},
        "note": [{"text": f"Words of the report: {words}. {NOTICE}" if words else NOTICE}],
    }
    if study:
        observation["derivedFrom"] = [study]
    return observation


def _device(draft: DraftReport) -> Resource:
    model = draft.model
    versions = [{"type": {"text": "CrossRay"}, "value": model.version}]
    if model.weights:
        versions.append({"type": {"text": "SHA-256 of the weights"}, "value": model.weights})
    return {
        "resourceType": "Device",
        "text": _narrative(f"CrossRay, {model.system}"),
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": model.uuid.urn}],
        "status": "active",
        "manufacturer": "CrossRay (open-source research software)",
        "deviceName": [{"name": f"CrossRay {model.name}", "type": "user-friendly-name"}],
        "modelNumber": model.system,
        "type": {"text": "Software that drafts reports of chest X-rays"},
        "version": versions,
        "note": [{"text": NOTICE}],
    }


def _provenance(draft: DraftReport, targets: Sequence[str], device: str, study: Resource | None) -> Resource:
    kind = {"coding": [{"system": f"{_TERMINOLOGY}provenance-participant-type", "code": "author"}]}
    provenance: Resource = {
        "resourceType": "Provenance",
        "text": _narrative("Written by a machine; no person has verified it."),
        "target": [{"reference": address} for address in targets],
        "recorded": _instant(draft),
        "activity": {"text": "Report drafted from images by a machine; verified by nobody"},
        "agent": [{"type": kind, "who": {"reference": device}}],
    }
    if study:
        provenance["entity"] = [{"role": "source", "what": study}]
    return provenance


def _subject(sources: Sequence[Source], subject: str | None) -> Resource | None:
    if subject is not None:
        if not subject.isascii() or any(part.isspace() for part in subject) or "Patient/" not in subject:
            raise UserError(
                f"subject: {quoted(subject)} does not refer to a patient; give a reference such as Patient/123."
            )
        return {"reference": subject}
    if not sources or not sources[0].text("PatientID"):
        return None
    identifier: Resource = {"value": sources[0].text("PatientID")}
    if issuer := sources[0].text("IssuerOfPatientID"):
        identifier["assigner"] = {"display": issuer}
    return {"type": "Patient", "identifier": identifier}


def _study(sources: Sequence[Source]) -> Resource | None:
    if not sources:
        return None
    value = f"urn:oid:{sources[0].text('StudyInstanceUID')}"
    return {"type": "ImagingStudy", "identifier": {"system": "urn:dicom:uid", "value": value}}


def _instant(draft: DraftReport) -> str:
    return draft.written.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _concept(text: str, *codes: Code) -> Resource:
    # no display for LOINC: its title differs from DICOM's for the same code, and servers reject a wrong one
    codings = [
        {"system": code.system, "code": code.value, **({} if code.scheme == "LN" else {"display": code.meaning})}
        for code in codes
    ]
    return {"coding": codings, "text": text}


def _narrative(text: str) -> Resource:
    html = f'<div xmlns="http://www.w3.org/1999/xhtml"><p>{escape(text)}</p><p>{escape(NOTICE)}</p></div>'
    return {"status": "generated", "div": html}


def _address(draft: DraftReport, part: str) -> str:
    return (draft.model.uuid if part == "device" else draft.uuid(part)).urn
