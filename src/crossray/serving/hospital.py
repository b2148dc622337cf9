"""The service's answers in a hospital's formats, and its reports on their way to an archive."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from json import loads
from typing import Any

from crossray.interop.draft import DraftReport, ModelIdentity, draft_report
from crossray.interop.fhir import fhir_bundle
from crossray.interop.source import Source, read_sources
from crossray.interop.sr import dicom_bytes, structured_report
from crossray.serving.journal import Entry


def fhir_json(
    answer: Mapping[str, Any], text: str, made: datetime, contents: Sequence[tuple[str, bytes]]
) -> dict[str, Any]:
    """A FHIR bundle of a report; see `crossray.interop.fhir`.

    Args:
        answer: of the service.
        text: the report, as it is or as a person has edited it.
        made: when the model wrote it.
        contents: names and contents of the study's files; patient and study come from them where they are DICOM.

    Raises:
        UserError: the DICOM files are of several studies, or their identifiers are malformed.
    """
    return fhir_bundle(_draft(answer, text, made), _sources(contents))


def sr_file(answer: Mapping[str, Any], text: str, made: datetime, contents: Sequence[tuple[str, bytes]]) -> bytes:
    """A DICOM structured report; see `crossray.interop.sr`, and `fhir_json` for the arguments.

    Raises:
        UserError: the study's files are no DICOM, or as for `fhir_json`.
    """
    return dicom_bytes(structured_report(_draft(answer, text, made), _sources(contents)))


def draft_of(entry: Entry, report: str) -> DraftReport:
    """The draft of a study from its entry and its report in the journal, for `Delivery`."""
    answer = loads(report)
    return replace(_draft(answer, answer["text"], datetime.fromisoformat(answer["created"])), identity=entry.id)


def _draft(answer: Mapping[str, Any], text: str, made: datetime) -> DraftReport:
    model = answer["model"]
    identity = ModelIdentity(model["name"], model["system"], model["weights_sha256"], answer["crossray"])
    # an edited report is another object than the one that an archive may hold already
    edited = "" if text == answer["text"] else f" {hashlib.sha256(text.encode()).hexdigest()}"
    return draft_report(answer["id"], text, identity, written=made, identity=f"{answer['id']}{edited}")


def _sources(contents: Sequence[tuple[str, bytes]]) -> tuple[Source, ...]:
    """The study's DICOM images; none where a file is of another format, which names no patient."""
    if not contents or any(content[128:132] != b"DICM" for _, content in contents):
        return ()
    return read_sources(contents)
