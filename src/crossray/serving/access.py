"""Access control: identifies callers by API key or token, and enforces scopes and rate limits."""

import hashlib
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import jwt

from crossray.serving.keys import LONGEST_NAME, SCOPES, KeyFile
from crossray.serving.problems import Problem
from crossray.serving.settings import Settings
from crossray.serving.tokens import Tokens, scopes_of


@dataclass(frozen=True)
class Caller:
    """A caller of the service.

    Attributes:
        name: name of the key, or "oidc:" and the subject of the token; studies belong to this name.
        scopes: rights of the caller.
    """

    name: str
    scopes: frozenset[str]


#: The caller of a service without access control, which listens on loopback only.
LOCAL = Caller("local", frozenset(SCOPES))


class Doorkeeper:
    """Identifies callers by their credentials."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        """Read the API keys, and the keys of the token issuer if they are in a file.

        Raises:
            UserError: a file of keys cannot be read.
        """
        self._open, self._clock = settings.open, clock
        self._keys = None if settings.keys is None else KeyFile(settings.keys)
        self._tokens = None
        if settings.issuer is not None and settings.audience is not None:
            self._tokens = Tokens(settings.issuer, settings.audience, settings.jwks)
        self._rate = Rate(settings.limits.rate)

    def ready(self) -> bool:
        """Whether the file of API keys can be read."""
        return self._keys is None or self._keys.readable()

    def know(self, authorization: str | None, api_key: str | None) -> Caller:
        """Identify the caller of a request.

        Args:
            authorization: value of the header `Authorization`: "Bearer" and a key or token.
            api_key: value of the header `X-API-Key`.

        Raises:
            Problem: 401, if the credentials are missing or invalid.
        """
        if self._open:
            return LOCAL
        kind, _, value = (authorization or "").partition(" ")
        shown = (api_key or (value if kind.lower() == "bearer" else "")).strip()
        if not shown:
            raise Problem(401, "a key or token is required; send it as Authorization: Bearer ...")
        if self._keys is not None and shown.startswith("crk_"):
            key = self._keys.find(shown)
            if key is not None and key.expires <= self._clock():
                raise Problem(401, "the key has expired; ask for a new one.")
            if key is not None:
                return Caller(key.name, frozenset(key.scopes))
        elif self._tokens is not None:
            try:
                claims = self._tokens.claims(shown)
            except jwt.ExpiredSignatureError:
                raise Problem(401, "the token has expired; sign in again.") from None
            if claims is not None:
                return Caller(_name_of(claims["sub"]), scopes_of(claims))
        raise Problem(401, "the key or token is unknown; ask the operator for one.")

    def count(self, caller: Caller) -> None:
        """Count a request against the caller's rate limit.

        Raises:
            Problem: 429, if the rate limit is exceeded.
        """
        wait = self._rate.wait(caller.name)
        if wait > 0:
            raise Problem(429, "too many requests from this caller; wait a moment.", retry=math.ceil(wait))


def _name_of(subject: str) -> str:
    """Return a caller's name for a token's subject; a long one is hashed, because truncated names may collide."""
    name = f"oidc:{subject}"
    return name if len(name) <= LONGEST_NAME else f"oidc:sha256:{hashlib.sha256(subject.encode()).hexdigest()}"


class Rate:
    """A token bucket per caller, which holds one minute's requests and refills evenly."""

    def __init__(self, minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Allow `minute` requests per minute; 0 allows any number."""
        self._minute, self._clock, self._lock = minute, clock, threading.Lock()
        self._left: dict[str, tuple[float, float]] = {}

    def wait(self, name: str) -> float:
        """Count a request and return 0, or return the number of seconds until the next one is allowed."""
        if not self._minute:
            return 0.0
        now = self._clock()
        with self._lock:
            left, last = self._left.get(name, (float(self._minute), now))
            left = min(float(self._minute), left + (now - last) * self._minute / 60)
            if left < 1:
                self._left[name] = (left, now)
                return (1 - left) * 60 / self._minute
            self._left[name] = (left - 1, now)
            return 0.0
