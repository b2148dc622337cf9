"""OpenID Connect: verifies bearer tokens of an identity provider with its public keys."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import jwt

from crossray.errors import UserError

#: Accepted signature algorithms; those with shared secrets and "none" are excluded.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")

#: Timeout in seconds for requests to the issuer.
PATIENCE = 5.0

#: Seconds after a failure during which the issuer is not contacted and tokens are rejected immediately, so that they
#: cannot keep the service busy while the issuer is unavailable.
PAUSE = 10.0


class Tokens:
    """Verifies the tokens of one issuer."""

    def __init__(self, issuer: str, audience: str, jwks: str | None = None) -> None:
        """Read the keys of an issuer if they are in a file.

        Args:
            issuer: URL of the issuer, as in the claim `iss`.
            audience: name of this service, as in the claim `aud`.
            jwks: file or URL of the issuer's keys; by default, the URL in the issuer's discovery document, which is
                fetched for the first token.

        Raises:
            UserError: the file cannot be read.
        """
        self._issuer, self._audience = issuer, audience
        self._asking, self._silent_until = threading.Lock(), 0.0
        self._key: Callable[[str], Any] | None = None
        if jwks is not None and not jwks.startswith(("https://", "http://")):
            try:
                keys = jwt.PyJWKSet.from_json(Path(jwks).read_text(encoding="utf-8"))
            except (OSError, ValueError, jwt.PyJWTError):
                raise UserError(
                    f"--oidc-jwks {jwks}: not a JSON Web Key Set; export the issuer's keys again."
                ) from None
            self._key = lambda token: keys[jwt.get_unverified_header(token).get("kid", "")]
        elif jwks is not None:
            self._key = jwt.PyJWKClient(jwks, timeout=PATIENCE).get_signing_key_from_jwt

    def claims(self, token: str) -> dict[str, Any] | None:
        """Return the claims of a token; None if its signature, issuer, audience or time is invalid.

        May block to fetch the issuer's keys.

        Raises:
            jwt.ExpiredSignatureError: the token has expired.
        """
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key_of(token),
                algorithms=list(ALGORITHMS),
                audience=self._audience,
                issuer=self._issuer,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise
        except (jwt.PyJWTError, KeyError, TypeError, ValueError, OSError):
            return None
        return claims

    def _key_of(self, token: str) -> Any:
        with self._asking:
            if time.monotonic() < self._silent_until:
                raise ValueError("the issuer did not respond a moment ago")
            try:
                if self._key is None:
                    self._key = jwt.PyJWKClient(self._discover(), timeout=PATIENCE).get_signing_key_from_jwt
                return self._key(token)
            except (OSError, jwt.PyJWKClientConnectionError):
                self._silent_until = time.monotonic() + PAUSE
                raise

    def _discover(self) -> str:
        """Read the URL of the issuer's keys from its discovery document (OpenID Connect Discovery 1.0, section 4)."""
        address = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
        if not address.startswith("https://"):
            raise ValueError("an issuer must use https")
        with urlopen(address, timeout=PATIENCE) as answer:
            said = json.load(answer)
        if said["issuer"] != self._issuer or not str(said["jwks_uri"]).startswith("https://"):
            raise ValueError("the document names another issuer, or its keys do not use https")
        return str(said["jwks_uri"])


def scopes_of(claims: dict[str, Any]) -> frozenset[str]:
    """Return the scopes of a token, without the optional prefix "crossray."."""
    given = claims.get("scope") or claims.get("scp") or ()
    names = given.split() if isinstance(given, str) else [str(name) for name in given]
    return frozenset(name.removeprefix("crossray.") for name in names)
