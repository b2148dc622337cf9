"""Runs the service until it is told to end."""

import logging

import uvicorn

from crossray.errors import UserError
from crossray.serving.app import create_app
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
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # names of routes and states, never a request's values; uvicorn's own lines hold addresses of callers and paths
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


def check_doors(settings: Settings) -> None:
    """See that a service which others reach knows its callers, and that its certificate is one.

    Raises:
        UserError: it does not.
    """
    if settings.open and settings.host not in LOOPBACK:
        host = settings.host
        raise UserError(f"--host {host}: anybody could use the service; give --keys FILE or --oidc-issuer as well.")
    tls_context(settings)
