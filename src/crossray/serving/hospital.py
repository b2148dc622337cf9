"""Converts the service's responses to FHIR and DICOM, and makes the objects for delivery to an archive."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from json import loads
from typing import Any

import numpy as np

from crossray.interop.draft import DraftReport, ModelIdentity, draft_report
from crossray.interop.fhir import fhir_bundle
from crossray.interop.presentation import attention_overlay
from crossray.interop.source import Source, read_sources
from crossray.interop.sr import dicom_bytes, structured_report
from crossray.serving.entries import Entry


def fhir_json(
    answer: Mapping[str, Any], text: str, made: datetime, contents: Sequence[tuple[str, bytes]]
) -> dict[str, Any]:
    """Convert a report to a FHIR bundle; see `crossray.interop.fhir`.

    Args:
        answer: response of the service.
        text: text of the report, possibly edited by a person.
        made: time when the model generated it.
        contents: names and contents of the study's files; patient and study are read from DICOM files.

    Raises:
        UserError: the DICOM files belong to several studies, or their identifiers are malformed.
    """
    return fhir_bundle(_draft(answer, text, made), sources_of(answer, contents))


def sr_file(answer: Mapping[str, Any], text: str, made: datetime, contents: Sequence[tuple[str, bytes]]) -> bytes:
    """Convert a report to a DICOM structured report; see `crossray.interop.sr`, and `fhir_json` for the arguments.

    Raises:
        UserError: the study's files are not DICOM; also as for `fhir_json`.
    """
    return dicom_bytes(structured_report(_draft(answer, text, made), sources_of(answer, contents)))


def stored_objects(entry: Entry, report: str, contents: Sequence[tuple[str, bytes]]) -> list[bytes]:
    """Make the DICOM objects that `Delivery` sends for a study.

    These are the structured report, identical to `sr_file` of the unedited report, and, if the response has attention,
    a presentation state that shows where the model looked.
    """
    answer = loads(report)
    made = datetime.fromisoformat(answer["created"])
    objects = [sr_file(answer, answer["text"], made, contents)]
    looked = answer.get("attention")
    sources = sources_of(answer, contents, in_order=True)
    # this type of presentation state requires gray-scale images
    if looked and answer["sentences"] and all(source.text("SamplesPerPixel") in ("", "1") for source in sources):
        sentences = np.array([row["attention"] for row in answer["sentences"]])  # (sentences, views, cells)
        side = looked["side"]
        shares = sentences.mean(axis=0).reshape(-1, side, side)
        draft = _draft(answer, answer["text"], made)
        objects.append(dicom_bytes(attention_overlay(draft, sources, list(shares), looked["windows"])))
    return objects


def _draft(answer: Mapping[str, Any], text: str, made: datetime) -> DraftReport:
    model = answer["model"]
    identity = ModelIdentity(model["name"], model["system"], model["weights_sha256"], answer["crossray"])
    # an edited report must not have the identifiers of the unedited one, which an archive may already have
    edited = "" if text == answer["text"] else f" {hashlib.sha256(text.encode()).hexdigest()}"
    return draft_report(answer["id"], text, identity, written=made, identity=f"{answer['id']}{edited}")


def sources_of(
    answer: Mapping[str, Any], contents: Sequence[tuple[str, bytes]], *, in_order: bool = False
) -> tuple[Source, ...]:
    """Read the DICOM images of a report; empty if a file has another format, which does not name the patient.

    Args:
        answer: response of the service, which lists the files that the model used.
        contents: names and contents of the study's files.
        in_order: whether to return them in the order of the views instead of the files.
    """
    places = [view["file"] for view in answer["views"]]
    seen = places if in_order else sorted(set(places))
    contents = [contents[place] for place in seen if place < len(contents)]
    if not contents or any(content[128:132] != b"DICM" for _, content in contents):
        return ()
    return read_sources(contents)
