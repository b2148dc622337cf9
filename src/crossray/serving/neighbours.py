"""The hospital systems around the service: senders of radiographs, and the receiver of reports."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from crossray.errors import UserError
from crossray.serving.delivery import Delivery, destination
from crossray.serving.dicom import DicomNode, NodeSettings, quiet_libraries
from crossray.serving.dicomweb import Archive
from crossray.serving.hospital import stored_objects
from crossray.serving.journal import Journal
from crossray.serving.settings import LOOPBACK, Settings
from crossray.serving.tls import tls_context


@contextmanager
def beside_neighbours(settings: Settings, journal: Journal, model: str) -> Iterator[DicomNode | None]:
    """Receive studies and deliver reports while the block runs.

    Args:
        settings: settings of the service; without a DICOM port, nothing happens.
        journal: journal that stores the studies.
        model: name of the model that reports them.

    Yields:
        The DICOM node; None without a DICOM port.

    Raises:
        UserError: the port cannot be opened, or an option is invalid.
    """
    if settings.dicom_port is None:
        yield None
        return
    named = NodeSettings(
        title=settings.dicom_title,
        host=settings.host,
        port=settings.dicom_port,
        callers=settings.dicom_callers,
        most_studies=settings.limits.in_flight,
        most_files=settings.limits.files,
        most_bytes=settings.limits.upload,
        attention=settings.overlay,
    )
    node = DicomNode(journal, named, model=model, tls=tls_context(settings))
    delivery = None
    if settings.send_to is not None:
        delivery = Delivery(journal, destination(settings.send_to, settings.dicom_title), stored_objects)
    node.start()
    if delivery is not None:
        delivery.start()
    try:
        yield node
    finally:
        node.stop()
        if delivery is not None:
            delivery.stop()


def check_neighbours(settings: Settings) -> None:
    """Check the options before anything is loaded.

    Raises:
        UserError: an option is invalid.
    """
    quiet_libraries()
    for root in settings.archives:
        Archive(root.rstrip("/"))
    if settings.send_to is not None:
        destination(settings.send_to, settings.dicom_title)
        if find_spec("highdicom") is None:  # otherwise, every report would be given up
            raise UserError("--send-to: needs highdicom; run `pip install 'crossray[hospital]'`.")
    if settings.dicom_port is not None:
        NodeSettings(title=settings.dicom_title, callers=settings.dicom_callers)
        if settings.host not in LOOPBACK and not settings.dicom_callers:
            raise UserError(f"anyone could send studies to --host {settings.host}; name allowed --dicom-callers.")
        if not 0 <= settings.dicom_port < 65536:
            raise UserError(f"--dicom-port {settings.dicom_port}: give a port from 1 to 65535.")
