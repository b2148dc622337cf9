"""The service's answers in a hospital's formats, and its reports on their way to an archive."""

import hashlib
import ssl
from collections.abc import Mapping, Sequence
from datetime import datetime
from json import loads
from typing import Any

from crossray.interop.draft import DraftReport, ModelIdentity, draft_report
from crossray.interop.fhir import fhir_bundle
from crossray.interop.source import Source, read_sources
from crossray.interop.sr import dicom_bytes, structured_report
from crossray.serving.delivery import Delivery, destination
from crossray.serving.dicom import DicomNode
from crossray.serving.journal import Entry, Journal
from crossray.serving.settings import Settings


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
    return fhir_bundle(_draft(answer, text, made), sources_of(answer, contents))


def sr_file(answer: Mapping[str, Any], text: str, made: datetime, contents: Sequence[tuple[str, bytes]]) -> bytes:
    """A DICOM structured report; see `crossray.interop.sr`, and `fhir_json` for the arguments.

    Raises:
        UserError: the study's files are no DICOM, or as for `fhir_json`.
    """
    return dicom_bytes(structured_report(_draft(answer, text, made), sources_of(answer, contents)))


def stored_sr(entry: Entry, report: str, contents: Sequence[tuple[str, bytes]]) -> bytes:
    """The structured report of a study in the journal, for `Delivery`: the same object as `sr_file` of it unedited."""
    answer = loads(report)
    return sr_file(answer, answer["text"], datetime.fromisoformat(answer["created"]), contents)


class HospitalLinks:
    """The DICOM node of a service and the way of its reports to an archive, as far as the settings name them."""

    def __init__(self, settings: Settings, journal: Journal, model: str, tls: ssl.SSLContext | None = None) -> None:
        """Make them; `start` opens the port.

        Args:
            settings: of the service.
            journal: of the service, which reports what waits there.
            model: that reports studies that come by DICOM.
            tls: of a server, for DICOM over TLS.
        """
        self.node = None if settings.dicom is None else DicomNode(journal, settings.dicom, model=model, tls=tls)
        self._delivery = None
        if settings.dicom is not None and settings.send_to is not None:
            receiver = destination(settings.send_to, settings.dicom.title)
            self._delivery = Delivery(journal, receiver, stored_sr)

    def start(self) -> None:
        """Listen and deliver.

        Raises:
            UserError: the port cannot be opened.
        """
        if self.node is not None:
            self.node.start()
        if self._delivery is not None:
            self._delivery.start()

    def stop(self) -> None:
        """End both; what has been accepted or not delivered stays in the journal."""
        if self.node is not None:
            self.node.stop()
        if self._delivery is not None:
            self._delivery.stop()


def _draft(answer: Mapping[str, Any], text: str, made: datetime) -> DraftReport:
    model = answer["model"]
    identity = ModelIdentity(model["name"], model["system"], model["weights_sha256"], answer["crossray"])
    # an edited report is another object than the one that an archive may hold already
    edited = "" if text == answer["text"] else f" {hashlib.sha256(text.encode()).hexdigest()}"
    return draft_report(answer["id"], text, identity, written=made, identity=f"{answer['id']}{edited}")


def sources_of(answer: Mapping[str, Any], contents: Sequence[tuple[str, bytes]]) -> tuple[Source, ...]:
    """The DICOM images that a report was written of; none where a file is of another format, which names no patient.

    Args:
        answer: of the service, which says which files the model looked at.
        contents: names and contents of the study's files.
    """
    seen = sorted({view["file"] for view in answer["views"]})
    contents = [contents[place] for place in seen if place < len(contents)]
    if not contents or any(content[128:132] != b"DICM" for _, content in contents):
        return ()
    return read_sources(contents)
