"""Runs the service until it is stopped."""

import contextlib
import logging
import platform
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from crossray.errors import UserError
from crossray.files.folders import CONFIG, model_folder
from crossray.files.lock import locked
from crossray.serving.app import create_app
from crossray.serving.dicom import quiet_libraries
from crossray.serving.settings import LOOPBACK, NOTICE, Settings
from crossray.serving.tls import tls_context

_LOGGER = logging.getLogger("crossray.serving")

#: Switch interval of the interpreter's threads in seconds, a tenth of Python's default. The model's thread releases the
#: GIL at every tensor operation and would otherwise wait long for threads that parse requests.
SWITCH = 0.0005


def run(settings: Settings, *, port: int = 8000) -> None:
    """Run the service until SIGTERM or Ctrl-C, which first finish running reports.

    Args:
        settings: settings of the service.
        port: HTTP port; 0 for any free one.

    Raises:
        UserError: the service would be open to the network without access control, or a model, file or port cannot be
            opened.
    """
    check_doors(settings)
    check_port(settings.host, port)
    if settings.dicom_port is not None:
        check_port(settings.host, settings.dicom_port, "--dicom-port")
        if port == settings.dicom_port != 0:
            raise UserError(f"--port and --dicom-port are both {port}; give two different ports.")
    check_models(settings)
    set_up_log()
    sys.setswitchinterval(SWITCH)
    with _alone(settings.store):
        _LOGGER.info("%s", NOTICE)
        server_of(settings, port).run()


def server_of(settings: Settings, port: int) -> uvicorn.Server:
    """Create the server and the application; this loads the models.

    Raises:
        UserError: see `create_app`.
    """
    # no access log, because uvicorn's contains the callers' addresses and the paths
    config = uvicorn.Config(
        create_app(settings, worker=f"{platform.node()}:{port}"),
        host=settings.host,
        port=port,
        access_log=False,
        log_config=None,
        server_header=False,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.private_key,
        timeout_graceful_shutdown=30,
        h11_max_incomplete_event_size=2**16,
    )
    return uvicorn.Server(config)


def set_up_log() -> None:
    """Log only the messages of the service, because those of other libraries may quote identifiers and values."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("crossray.serving", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)
    quiet_libraries()
    warnings.simplefilter("ignore")


def check_models(settings: Settings) -> None:
    """Check that local models exist before the store is created.

    Raises:
        UserError: a model does not exist.
    """
    for folder in settings.models.values():
        on_hub = str(folder).count("/") == 1 and not Path(folder).parent.exists()
        if not on_hub and not (model_folder(folder) / CONFIG).is_file():
            raise UserError(f"--model {folder}: no config.json there; name a model folder or the folder of a run.")


def check_port(host: str, port: int, option: str = "--port") -> None:
    """Check that the service can listen before models are loaded.

    Raises:
        UserError: the port is invalid or cannot be opened.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"{option} {port}: give 0 to 65535.")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as door:
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind((host, port))
    except OSError as error:
        raise UserError(
            f"the service cannot listen on --host {host} {option} {port} ({error.strerror}); choose another host or "
            "port."
        ) from None


@contextlib.contextmanager
def _alone(store: str) -> Iterator[None]:
    """Lock a SQLite store, because a second service would claim the studies of the first."""
    try:
        url = make_url(store)
    except ArgumentError:
        url = None  # the journal reports the error
    if url is None or url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        yield
        return
    path = Path(f"{url.database}.lock")
    if not path.parent.is_dir():
        raise UserError(f"--store {store}: the folder {path.parent} does not exist; create it, or choose another.")
    with locked(path, f"--store {store}: another service is using it; choose another store."):
        yield


def check_doors(settings: Settings) -> None:
    """Check that a service on the network has access control, and that its certificate can be loaded.

    Raises:
        UserError: access control is missing, or the certificate cannot be used.
    """
    if settings.open and settings.host not in LOOPBACK:
        host = settings.host
        raise UserError(f"anyone could use the service on --host {host}; also give --keys FILE or --oidc-issuer.")
    tls_context(settings)
