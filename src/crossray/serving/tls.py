"""TLS for HTTP and DICOM, with a certificate from files."""

import ssl

from crossray.errors import UserError
from crossray.serving.settings import Settings


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Create the TLS context of the server; None without a certificate.

    Raises:
        UserError: the certificate or its key cannot be used.
    """
    if settings.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.certificate, settings.private_key)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error.strerror or "damaged"
        raise UserError(
            f"--tls-certificate {settings.certificate}: cannot be used ({reason}); give PEM files."
        ) from None
    return context
