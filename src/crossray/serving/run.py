"""Runs the service until it is told to end."""

import logging
import warnings

import uvicorn

from crossray.errors import UserError
from crossray.files.folders import CONFIG, model_folder
from crossray.serving.app import create_app
from crossray.serving.dicom import quiet_libraries
from crossray.serving.settings import LOOPBACK, NOTICE, Settings
from crossray.serving.tls import tls_context

_LOGGER = logging.getLogger("crossray.serving")


def run(settings: Settings, *, port: int = 8000) -> None:
    """Serve; SIGTERM and Ctrl-C let what is being reported end first.

    Args:
        settings: of the service.
        port: of HTTP; 0 for any that is free.

    Raises:
        UserError: anybody on the network could use the service, or something cannot be opened.
    """
    check_doors(settings)
    check_models(settings)
    set_up_log()
    # uvicorn's own lines of requests hold addresses of callers and paths
    config = uvicorn.Config(
        create_app(settings),
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
    _LOGGER.info("%s", NOTICE)
    uvicorn.Server(config).run()


def set_up_log() -> None:
    """Log what the service itself says; other libraries quote identifiers and values of what they read."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in ("crossray.serving", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.INFO)
    quiet_libraries()
    warnings.simplefilter("ignore")


def check_models(settings: Settings) -> None:
    """See that local models are there before the store is made.

    Raises:
        UserError: one is not.
    """
    for folder in settings.models.values():
        if str(folder).count("/") != 1 and not (model_folder(folder) / CONFIG).is_file():
            raise UserError(f"--model {folder}: no config.json there; name a model folder or the folder of a run.")


def check_doors(settings: Settings) -> None:
    """See that a service which others reach knows its callers, and that its certificate is one.

    Raises:
        UserError: it does not.
    """
    if settings.open and settings.host not in LOOPBACK:
        host = settings.host
        raise UserError(f"--host {host}: anybody could use the service; give --keys FILE or --oidc-issuer as well.")
    tls_context(settings)
