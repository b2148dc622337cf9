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

#: Accepted signature algorithms, without shared secrets and "none".
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")

#: Timeout for the issuer in seconds.
PATIENCE = 5.0

#: Seconds after a failure in which the issuer is not contacted again: tokens are rejected immediately, so they cannot
#: keep the service busy while the issuer is unavailable.
PAUSE = 10.0


class Tokens:
    """The tokens of one issuer."""

    def __init__(self, issuer: str, audience: str, jwks: str | None = None) -> None:
        """Know an issuer.

        Args:
            issuer: its URL, as in tokens.
            audience: name of this service in tokens.
            jwks: file or URL of its keys; by default, the URL in the issuer's discovery document, which is fetched for
                the first token.

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
        """The claims of a token; None if its signature, issuer, audience or time is invalid. May wait for the issuer.

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
                raise ValueError("the issuer did not answer a moment ago")
            try:
                if self._key is None:
                    self._key = jwt.PyJWKClient(self._discover(), timeout=PATIENCE).get_signing_key_from_jwt
                return self._key(token)
            except (OSError, jwt.PyJWKClientConnectionError):
                self._silent_until = time.monotonic() + PAUSE
                raise

    def _discover(self) -> str:
        """The URL of the issuer's keys in its discovery document (OpenID Connect Discovery 1.0, section 4)."""
        address = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
        if not address.startswith("https://"):
            raise ValueError("an issuer is reached by https")
        with urlopen(address, timeout=PATIENCE) as answer:
            said = json.load(answer)
        if said["issuer"] != self._issuer or not str(said["jwks_uri"]).startswith("https://"):
            raise ValueError("the document is of another issuer, or its keys are not reached by https")
        return str(said["jwks_uri"])


def scopes_of(claims: dict[str, Any]) -> frozenset[str]:
    """The scopes in a token, with or without the prefix "crossray."."""
    given = claims.get("scope") or claims.get("scp") or ()
    names = given.split() if isinstance(given, str) else [str(name) for name in given]
    return frozenset(name.removeprefix("crossray.") for name in names)
