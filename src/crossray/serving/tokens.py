"""OpenID Connect: bearer tokens of an identity provider, checked with its public keys."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import jwt

from crossray.errors import UserError

#: Signatures that are believed; those with a shared secret are not, nor "none".
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")

#: Seconds that the issuer is given for an answer.
PATIENCE = 5.0

#: Seconds after a failure in which the issuer is not asked again: a token is refused at once, and nobody can keep the
#: service busy with tokens while the issuer is away.
PAUSE = 10.0


class Tokens:
    """The tokens of one issuer."""

    def __init__(self, issuer: str, audience: str, jwks: str | None = None) -> None:
        """Know an issuer.

        Args:
            issuer: its URL, as tokens name it.
            audience: this service, as tokens name it.
            jwks: file or URL of its keys; by default the one that the issuer's discovery document names, which is
                fetched when the first token comes.

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
        """What a token says; None where its signature, issuer, audience or time is wrong. It may wait for the issuer.

        Raises:
            jwt.ExpiredSignatureError: it was right, once.
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
        """Where the issuer's keys are, as its discovery document says (OpenID Connect Discovery 1.0, section 4)."""
        address = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
        if not address.startswith("https://"):
            raise ValueError("an issuer is reached by https")
        with urlopen(address, timeout=PATIENCE) as answer:
            said = json.load(answer)
        if said["issuer"] != self._issuer or not str(said["jwks_uri"]).startswith("https://"):
            raise ValueError("the document is of another issuer, or its keys are not reached by https")
        return str(said["jwks_uri"])


def scopes_of(claims: dict[str, Any]) -> frozenset[str]:
    """The scopes that a token carries, with or without "crossray." before them."""
    given = claims.get("scope") or claims.get("scp") or ()
    names = given.split() if isinstance(given, str) else [str(name) for name in given]
    return frozenset(name.removeprefix("crossray.") for name in names)
