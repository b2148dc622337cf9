"""The DICOM node: receives radiographs by C-STORE and collects them in the journal.

    node = DicomNode(journal, NodeSettings(port=11112), model="rcan")
    node.start()
    ...
    node.stop()

A C-STORE is answered with success once the object is on disk (`Journal.collect`). When no new object has arrived for a
while, and the sender has left or gone on to another study, the study is complete and waits for its report
(`Journal.release`). While too many studies are unfinished, objects of new studies are answered with 0xA700 (out of
resources), so the sender tries again later; studies that are already being collected still accept objects, so that each
gets a single report. Objects beyond the limits of an upload are answered with 0xC001 (cannot understand), so the sender
does not try again. The node logs status codes, but never an identifier or a value of an object.
"""

import logging
import queue
import re
import ssl
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from crossray.data.images import MAX_BYTES
from crossray.errors import UserError
from crossray.interop.source import read_source
from crossray.serving.entries import File, StudyFullError
from crossray.serving.journal import Journal

if TYPE_CHECKING:
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.events import Event
    from pynetdicom.transport import ThreadedAssociationServer

_LOGGER = logging.getLogger(__name__)

#: Origin of DICOM studies in the journal.
ORIGIN = "dicom"

#: Option for studies that the sender cannot send again with fewer views: the service selects among the views.
CHOOSE = {"choose": True}

#: Status codes of a C-STORE response (PS3.4 B.2.3).
SUCCESS, OUT_OF_RESOURCES, NOT_UNDERSTOOD, TOO_LARGE = 0x0000, 0xA700, 0xC000, 0xC001

#: SOP class of C-ECHO.
_VERIFICATION = "1.2.840.10008.1.1"

#: State of an association that waits for its connection to close, and events that would send something (PS3.8 9.2).
_CLOSING, _OURS = "Sta13", ("Evt7", "Evt8", "Evt9", "Evt11", "Evt14")

#: Maximum size in bytes of a PDU that is read; the node asks senders for smaller ones, and an association request fits.
MAX_PDU = 2**20

_TITLE = re.compile(r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?")


def ae_title(text: str, option: str) -> str:
    r"""Check an application entity title (PS3.5 AE): 1 to 16 ASCII characters without a backslash.

    Raises:
        UserError: the title is invalid.
    """
    if not _TITLE.fullmatch(text):
        raise UserError(f"{option} is not an AE title; give 1 to 16 letters, digits or symbols, such as CROSSRAY.")
    return text


@dataclass(frozen=True)
class NodeSettings:
    """Settings of the DICOM node.

    Attributes:
        title: AE title of the node, which senders must use as the called AE title.
        host: address to listen on.
        port: port to listen on; 0 for any free one.
        callers: AE titles that may send; any if empty. A title is not authentication: use TLS and a firewall.
        most_studies: maximum number of unfinished studies; beyond it, objects of new studies are answered with 0xA700.
        most_files: maximum number of objects of a study; more are answered with 0xC001.
        most_bytes: maximum size of a study, beyond which objects are answered with 0xC001; a single object of this size
            ends its association.
        most_associations: maximum number of simultaneous associations; more are rejected.
        timeout: maximum number of seconds that a sender may be silent.
        attention: whether reports include where the model looked.
    """

    title: str = "CROSSRAY"
    host: str = "127.0.0.1"
    port: int = 11112
    callers: tuple[str, ...] = ()
    most_studies: int = 200
    most_files: int = 16
    most_bytes: int = MAX_BYTES
    most_associations: int = 16
    timeout: float = 30.0
    attention: bool = False

    def __post_init__(self) -> None:
        """Validate the AE titles."""
        for title in (self.title, *self.callers):
            ae_title(title, "--dicom-ae-title" if title == self.title else "--dicom-callers")


class DicomNode:
    """Receives studies by C-STORE.

    Attributes:
        settings: settings of the node.
    """

    def __init__(
        self, journal: Journal, settings: NodeSettings, *, model: str, tls: ssl.SSLContext | None = None
    ) -> None:
        """Create a node; call `start` to listen.

        Args:
            journal: journal that stores the studies, with origin "dicom" and owner "dicom:AE-TITLE".
            settings: settings of the node.
            model: name of the served model that reports the studies.
            tls: TLS context of the server; None for no TLS.

        Raises:
            UserError: pynetdicom is not installed.
        """
        try:
            import pynetdicom  # noqa: F401
        except ModuleNotFoundError:
            raise UserError("--dicom-port: needs pynetdicom; run `pip install 'crossray[hospital]'`.") from None
        quiet_libraries()
        self.settings = settings
        self._journal, self._model, self._tls = journal, model, tls
        self._server: ThreadedAssociationServer | None = None

    @property
    def port(self) -> int:
        """Port that the node listens on."""
        return int(self._server.server_address[1]) if self._server is not None else self.settings.port

    def receiving(self) -> list[str]:
        """Return the study of the last object of each open association: another object of it may be on its way."""
        associations = [] if self._server is None else self._server.active_associations
        return [study for one in associations if (study := getattr(one, "crossray_study", None)) is not None]

    def start(self) -> None:
        """Start to listen, in separate threads.

        Raises:
            UserError: the port cannot be opened.
        """
        from pynetdicom import evt

        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, self._on_connection),
            (evt.EVT_DIMSE_RECV, _on_message),
            (evt.EVT_C_ECHO, self._on_echo),
            (evt.EVT_C_STORE, self._on_store),
        ]
        address = (self.settings.host, self.settings.port)
        try:
            self._server = self._entity().start_server(
                address, block=False, ssl_context=self._tls, evt_handlers=handlers
            )
        except OSError as error:
            raise UserError(f"--dicom-port {self.settings.port}: cannot listen ({error.strerror}).") from None

    def stop(self) -> None:
        """Close every association; received objects remain in the journal."""
        if self._server is not None:
            self._server.shutdown()

    def _entity(self) -> Any:
        from pynetdicom import AE

        entity = AE(self.settings.title)
        entity.require_called_aet = True
        entity.require_calling_aet = list(self.settings.callers)
        entity.maximum_associations = self.settings.most_associations
        entity.maximum_pdu_size = MAX_PDU // 16
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = self.settings.timeout
        entity.add_supported_context(_VERIFICATION)
        for kind in storage_classes():
            entity.add_supported_context(kind, _transfer_syntaxes())
        return entity

    def _on_connection(self, event: "Event") -> None:
        _bound(event.assoc, self.settings.most_bytes, self.settings.timeout)
        _end_cleanly(event.assoc)

    def _on_echo(self, event: "Event") -> int:
        # a sender that keeps its association open in this way has sent the whole study
        cast("Any", event.assoc).crossray_study = None
        return SUCCESS

    def _on_store(self, event: "Event") -> int:
        caller = str(event.assoc.requestor.ae_title)
        try:
            status = self._store(event, caller)
        except Exception as error:  # such as a full disk or an unavailable database: the sender keeps the study
            _LOGGER.error("C-STORE: cannot be accepted (%s)", type(error).__name__)
            status = OUT_OF_RESOURCES
        if status != SUCCESS:
            _LOGGER.warning("C-STORE: answered 0x%04X", status)
            with suppress(Exception):  # the sender needs an answer even if the journal failed
                self._journal.note(f"dicom:{caller}", "C-STORE", f"0x{status:04X}")
        return status

    def _store(self, event: "Event", caller: str) -> int:
        content, request = event.encoded_dataset(), cast("C_STORE", event.request)
        try:
            source = read_source(content, "C-STORE")
        except UserError:
            return NOT_UNDERSTOOD
        if source.text("SOPInstanceUID") != str(request.AffectedSOPInstanceUID):
            return NOT_UNDERSTOOD
        file = File(source.text("SOPInstanceUID"), content)
        study, owner = source.text("StudyInstanceUID"), f"dicom:{caller}"  # names of API keys have no colon
        options = {**CHOOSE, "attention": self.settings.attention}
        try:
            taken = self._journal.collect(
                study,
                file,
                model=self._model,
                owner=owner,
                origin=ORIGIN,
                options=options,
                most=self.settings.most_studies,
                most_files=self.settings.most_files,
                most_bytes=self.settings.most_bytes,
            )
        except StudyFullError as full:
            cast("Any", event.assoc).crossray_study = full.study
            return TOO_LARGE
        # also None: as long as the sender tries this study again, the one before must not wait for it
        cast("Any", event.assoc).crossray_study = taken
        return SUCCESS if taken is not None else OUT_OF_RESOURCES


def storage_classes() -> tuple[str, ...]:
    """Return the SOP classes of radiographs; others are not accepted by C-STORE, and skipped in fetched studies."""
    from pydicom import uid

    return (
        uid.ComputedRadiographyImageStorage,
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForProcessing,
        uid.SecondaryCaptureImageStorage,
    )


def _transfer_syntaxes() -> list[str]:
    """Return the transfer syntaxes that `crossray prepare` reads."""
    from crossray.data.images.dicom_pixels import TRANSFER_SYNTAXES

    return list(TRANSFER_SYNTAXES)


def _bound(association: Any, most_bytes: int, timeout: float) -> None:
    """Limit how much memory a peer can make the node use.

    Before any event handler runs, pynetdicom reads PDUs of up to 4 GiB, and messages of any number of PDUs. Raising an
    `OSError` while it reads closes the connection.
    """
    socket = association.dul.socket
    receive = socket.recv
    socket.socket.settimeout(timeout)
    association.crossray_received = 0

    def bounded(count: int) -> bytearray:
        association.crossray_received += count
        if count > MAX_PDU or association.crossray_received > most_bytes + MAX_PDU:
            raise OSError("too long")
        content: bytearray = receive(count)
        return content

    socket.recv = bounded


def _end_cleanly(association: Any) -> None:
    """Make pynetdicom close an association properly after a malformed message.

    Otherwise, a command without its required fields, or a response to an association that was just aborted, ends
    pynetdicom's thread with an error and leaves the connection open until it times out.
    """
    receive, machine = association.dimse.receive_primitive, association.dul.state_machine
    act = machine.do_action

    def guarded(primitive: Any) -> None:
        try:
            receive(primitive)
        except Exception:
            association.dul.event_queue.put("Evt19")  # an invalid PDU (PS3.8 9.2.1)

    def careful(event: str) -> None:
        if machine.current_state == _CLOSING and event in _OURS:
            with suppress(queue.Empty):
                association.dul.to_provider_queue.get(block=False)
        else:
            act(event)

    association.dimse.receive_primitive, machine.do_action = guarded, careful


def quiet_libraries() -> None:
    """Silence libraries whose log messages and warnings quote identifiers and values."""
    for library in ("pynetdicom", "pydicom", "highdicom", "httpx", "httpcore"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
        warnings.filterwarnings("ignore", module=library)


def _on_message(event: "Event") -> None:
    """Reset the count of received bytes after a complete message."""
    association: Any = event.assoc
    association.crossray_received = 0
