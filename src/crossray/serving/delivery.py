"""Delivers reports to an archive as DICOM structured reports (C-STORE or STOW-RS), retrying until each is confirmed.

The identifiers of a report are derived from its journal entry, so an archive that receives it twice stores it once.
"""

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crossray.errors import UserError, quoted
from crossray.serving.dicom import ORIGIN, ae_title
from crossray.serving.dicomweb import Archive, store_report
from crossray.serving.entries import Entry
from crossray.serving.journal import Journal

_LOGGER = logging.getLogger(__name__)

#: Seconds between two checks for reports, and the longest pause after a failure.
_PERIOD, _LONGEST_PAUSE = 0.5, 300.0

_PEER = re.compile(r"(?P<title>[^@]{1,16})@(?P<host>\[[0-9a-fA-F:]+\]|[^@:/\s]+):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True)
class Peer:
    """A DICOM node that receives reports by C-STORE.

    Attributes:
        title: AE title of the node; `host`, `port`: its address.
        calling: AE title of this service.
    """

    title: str
    host: str
    port: int
    calling: str = "CROSSRAY"

    def send(self, content: bytes) -> None:
        """Store a DICOM object on the node.

        Raises:
            UserError: the node does not accept the object.
        """
        from io import BytesIO

        from pydicom import dcmread, uid
        from pynetdicom import AE, build_context

        entity = AE(self.calling)
        entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 30
        report = dcmread(BytesIO(content))
        syntaxes = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)
        contexts = [build_context(report.SOPClassUID, syntax) for syntax in syntaxes]
        association = entity.associate(self.host, self.port, contexts, self.title)
        if not association.is_established:
            raise UserError(f"--send-to {self.title}: it rejects the association; add this service to its known nodes.")
        try:
            accepted = [context.transfer_syntax[0] for context in association.accepted_contexts]
            if not accepted:
                raise UserError(f"--send-to {self.title}: the node does not accept {report.SOPClassUID.name}.")
            if report.file_meta.TransferSyntaxUID not in accepted:
                report.file_meta.TransferSyntaxUID = accepted[0]
                implicit = BytesIO()
                report.save_as(implicit, implicit_vr=True, little_endian=True)
                report = dcmread(BytesIO(implicit.getvalue()))
            status = association.send_c_store(report)
        finally:
            if association.is_established:
                association.release()
        code = status.get("Status") if status else None
        if code is None or (code != 0 and code >> 12 != 0xB):  # 0xB...: stored, with a warning
            said = "nothing" if code is None else f"0x{code:04X}"
            raise UserError(f"--send-to {self.title}: the node answered a C-STORE with {said}; check its log.")


@dataclass(frozen=True)
class Web:
    """An archive that receives reports by STOW-RS.

    Attributes:
        archive: address of the archive.
    """

    archive: Archive

    def send(self, content: bytes) -> None:
        """Store a DICOM object in the archive; see `store_report`."""
        store_report(self.archive, content)


def destination(text: str, calling: str = "CROSSRAY") -> Peer | Web:
    """Parse --send-to: AE@host:port for C-STORE, or the root URL of a DICOMweb service.

    Raises:
        UserError: the text is neither.
    """
    if text.startswith(("http://", "https://")):
        return Web(Archive(text.rstrip("/")))
    found = _PEER.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise UserError(f"--send-to {quoted(text)}: give AE@host:port or https://pacs/dicom-web.")
    return Peer(ae_title(found["title"], "--send-to"), found["host"].strip("[]"), int(found["port"]), calling)


class UndeliverableError(UserError):
    """No object can be made of a report, now or later; the message is one sentence."""


class Delivery:
    """Sends every finished report of a DICOM study, in a separate thread."""

    def __init__(
        self,
        journal: Journal,
        receiver: Peer | Web,
        objects_of: Callable[[Entry, str, Sequence[tuple[str, bytes]]], list[bytes]],
        origin: str = ORIGIN,
    ) -> None:
        """Prepare the delivery; call `start` to begin.

        Args:
            journal: journal with the reports.
            receiver: receiver of the reports.
            objects_of: makes DICOM objects from a journal entry, its report and the study's files, with the same
                identifiers in every call for a study; after a `UserError`, it is not called again for this study.
            origin: origin of the studies whose reports are sent.
        """
        self._journal, self._receiver, self._objects_of, self._origin = journal, receiver, objects_of, origin
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crossray-delivery", daemon=True)
        #: By study: time of the next attempt, and the pause before it.
        self._later: dict[str, tuple[float, float]] = {}

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; unconfirmed reports are sent after the next start."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(_PERIOD):
            try:
                self.send_all()
            except Exception as error:  # keep trying: the database may become available again
                _LOGGER.error("the journal cannot be read (%s)", type(error).__name__)

    def send_all(self) -> int:
        """Send the undelivered reports that are due; return the number of confirmed ones."""
        sent = 0
        while (study := self._next()) is not None:
            entry = self._journal.entry(study)
            if entry is None:  # deleted in the meantime
                continue
            try:
                self._send(entry)
            except UndeliverableError as error:
                _LOGGER.error("report %s: cannot be delivered: %s", study, error)
                self._journal.undeliverable(study, str(error))
                self._journal.note(entry.owner, "deliver SR", "impossible", study)
                continue
            except Exception as error:
                _, pause = self._later.get(study, (0.0, _PERIOD))
                pause = min(2 * pause, _LONGEST_PAUSE)
                self._later[study] = (time.monotonic() + pause, pause)
                reason = str(error) if isinstance(error, UserError) else type(error).__name__
                _LOGGER.warning("report %s: not delivered, next attempt in %.0f s: %s", study, pause, reason)
                self._journal.note(entry.owner, "deliver SR", "failed", study)
                continue
            self._journal.delivered(study)
            self._journal.note(entry.owner, "deliver SR", "stored", study)
            sent += 1
        return sent

    def _next(self) -> str | None:
        """Return the study to send next: a new one first, then the one that is due first; None if none is due."""
        if self._ended.is_set():
            return None
        waiting = self._journal.undelivered(self._origin)
        self._later = {study: self._later[study] for study in waiting if study in self._later}
        first = min(waiting, key=self._due, default=None)  # the oldest among equals
        return None if first is None or self._due(first) > time.monotonic() else first

    def _due(self, study: str) -> float:
        return self._later.get(study, (-math.inf, 0.0))[0]

    def _send(self, entry: Entry) -> None:
        report = self._journal.report(entry.id)
        if report is None:
            raise UserError("its report no longer exists.")
        files = enumerate(self._journal.files(entry.id), start=1)
        contents = [(f"image {number}", file.content) for number, file in files]
        try:
            objects = self._objects_of(entry, report, contents)
        except UserError as error:
            raise UndeliverableError(str(error)) from None
        for content in objects:
            self._receiver.send(content)
