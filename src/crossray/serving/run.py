"""Runs the service until it is told to end."""

import logging
import ssl
from pathlib import Path

import uvicorn

from crossray.errors import UserError
from crossray.serving.app import create_app
from crossray.serving.settings import LOOPBACK, NOTICE, Settings

_LOGGER = logging.getLogger("crossray.serving")


def run(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    certificate: Path | None = None,
    private_key: Path | None = None,
) -> None:
    """Serve; SIGTERM and Ctrl-C let what is being reported end first.

    Args:
        settings: of the service.
        host: address to listen on.
        port: 0 for any that is free.
        certificate: of TLS, PEM with its chain; `private_key`: of the certificate.
        private_key: PEM.

    Raises:
        UserError: anybody on the network could use the service, or something cannot be opened.
    """
    dicom_tls = check_doors(settings, host, certificate, private_key)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # names of routes and states, never a request's values; uvicorn's own lines hold addresses of callers and paths
    config = uvicorn.Config(
        create_app(settings, dicom_tls),
        host=host,
        port=port,
        access_log=False,
        log_config=None,
        server_header=False,
        ssl_certfile=certificate,
        ssl_keyfile=private_key,
        timeout_graceful_shutdown=30,
        h11_max_incomplete_event_size=2**16,
    )
    _LOGGER.info("%s", NOTICE)
    uvicorn.Server(config).run()


def check_doors(
    settings: Settings, host: str, certificate: Path | None, private_key: Path | None
) -> ssl.SSLContext | None:
    """See that a service which others reach knows its callers and keeps their secrets.

    Returns:
        TLS of the DICOM port, None without a certificate.

    Raises:
        UserError: it does not.
    """
    if settings.open and host not in LOOPBACK:
        raise UserError(f"--host {host}: anybody could use the service; give --keys FILE or --oidc-issuer as well.")
    if settings.dicom is not None and host not in LOOPBACK and not settings.dicom.callers:
        raise UserError(f"--host {host}: anybody could send studies; name who may with --dicom-callers.")
    if (certificate is None) != (private_key is None):
        raise UserError("--tls-certificate and --tls-key belong together; give both.")
    if certificate is not None and private_key is not None:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, private_key)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "reason", None) or error.strerror or "damaged"
            raise UserError(f"--tls-certificate {certificate}: cannot be used ({reason}); give PEM files.") from None
        return context
    return None
