"""API keys: random, stored as hashes, with scopes and an expiry date; the file is reloaded when it changes.

A key has the form `crk_NUMBER_SECRET`. The file stores the SHA-256 of the secret; a slow hash is not needed, because
the secret has 256 random bits. To rotate a key, create a second one with the same name, give it to the client, then
revoke the first. Studies belong to the name, so both keys can access them.
"""

import hashlib
import hmac
import json
import logging
import os
import secrets
import stat
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crossray.errors import UserError, choose
from crossray.files.lock import locked
from crossray.files.write import replacing

_LOGGER = logging.getLogger(__name__)

#: Rights of a caller. report: send studies and read its own reports; metrics: read /metrics; admin: reload models and
#: read the audit trail.
SCOPES: tuple[str, ...] = ("report", "metrics", "admin")

#: Maximum length of an owner's name in the journal.
LONGEST_NAME = 128

#: Maximum lifetime of a key, a hundred years, so that the expiry can be shown as a date.
MOST_DAYS = 36_500


@dataclass(frozen=True)
class Key:
    """A key in the file.

    Attributes:
        number: public part of the key; `digest`: SHA-256 of the secret part.
        name: owner, as in the audit trail.
        scopes: rights of the key, from `SCOPES`.
        expires: time of expiry, in seconds since 1970.
    """

    number: str
    digest: str
    name: str
    scopes: tuple[str, ...]
    expires: float


class KeyFile:
    """The keys of a service, reloaded when their file changes."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            UserError: the file cannot be read.
        """
        self._path, self._lock = path, threading.Lock()
        self._changed: Any = None
        self._keys = {key.number: key for key in read_keys(path)}
        self._readable = True

    def find(self, text: str) -> Key | None:
        """Return the key for the text `crk_NUMBER_SECRET`, even if it has expired; None if there is none.

        While the file cannot be read, the last keys that could be read remain in use; without a file, there are none.
        """
        self.readable()
        _, _, rest = text.partition("crk_")
        number, _, secret = rest.partition("_")
        key = self._keys.get(number)
        # the comparison takes the same time for a wrong number and a wrong secret
        expected = "0" * 64 if key is None else key.digest
        return key if hmac.compare_digest(expected, _digest(secret)) else None

    def readable(self) -> bool:
        """Read the file if it has changed; return whether it could be read. A failure is logged once."""
        with self._lock:
            try:
                status = self._path.stat()
                changed = (status.st_mtime_ns, status.st_size, status.st_ino)
                if changed != self._changed:
                    content = self._path.read_bytes()
                    self._changed = changed  # also if it is damaged: then it is not parsed again until it changes
                    self._keys = {key.number: key for key in _parsed(content, self._path)}
                    self._readable = True
            except FileNotFoundError:
                if self._readable or self._keys:
                    _LOGGER.error("--keys %s: does not exist. No key is accepted.", self._path)
                self._keys, self._changed, self._readable = {}, None, False
            except OSError as error:
                self._unread(f"--keys: cannot be read ({error.strerror}).")
                self._changed = None
            except UserError as error:
                self._unread(str(error))
            return self._readable

    def _unread(self, reason: str) -> None:
        if self._readable:
            _LOGGER.error("%s The keys read before remain in use.", reason)
        self._readable = False


def read_keys(path: Path) -> list[Key]:
    """Read the keys in a file.

    Raises:
        UserError: the file cannot be read or is damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"--keys {path}: cannot be read ({error.strerror}); name a file.") from None
    return _parsed(content, path)


def _parsed(content: bytes, path: Path) -> list[Key]:
    try:
        rows = json.loads(content.decode())["keys"]
        return [Key(**{**row, "scopes": tuple(row["scopes"])}) for row in rows]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"--keys {path}: not a file of `crossray keys`; create a new one with that command.") from None


def make_key(path: Path, name: str, scopes: tuple[str, ...], days: float) -> str:
    """Create a key and add its hash to a file, which is created if it does not exist.

    Args:
        path: file of the keys.
        name: owner of the key.
        scopes: rights of the key, from `SCOPES`.
        days: number of days until the key expires.

    Returns:
        The key, which cannot be recovered from the file.

    Raises:
        UserError: a scope does not exist, the name or the number of days is invalid, or the file is damaged.
    """
    for scope in scopes:
        if scope not in SCOPES:
            raise UserError(f"--scopes {scope}: there is no such scope; {choose(scope, SCOPES)}.")
    if not 0 < days <= MOST_DAYS:
        raise UserError(f"--days {days}: give more than 0 and at most {MOST_DAYS}.")
    if not name.strip() or ":" in name or len(name) > LONGEST_NAME:  # names of other owners (oidc:, dicom:) have one
        raise UserError(f"--name {name!r}: give a name of at most {LONGEST_NAME} characters without a colon.")
    number, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    with _alone(path):
        _write(path, [*_known(path), Key(number, _digest(secret), name, scopes, time.time() + days * 86400)])
    return f"crk_{number}_{secret}"


def revoke(path: Path, number: str) -> None:
    """Remove the key with this number from a file.

    Raises:
        UserError: the key does not exist, or the file is damaged.
    """
    with _alone(path):
        keys = _known(path)
        left = [key for key in keys if key.number != number]
        if len(left) == len(keys):
            raise UserError(
                f"--revoke {number}: there is no such key in {path}; `crossray keys --keys {path}` lists them."
            )
        _write(path, left)


def _alone(path: Path) -> AbstractContextManager[None]:
    """Lock the file, because one of two simultaneous changes would be lost."""
    if not path.parent.is_dir():
        return nullcontext()
    return locked(path.with_name(f"{path.name}.lock"), f"--keys {path}: another command is using it; run this again.")


def _known(path: Path) -> list[Key]:
    return read_keys(path) if path.exists() else []


def _write(path: Path, keys: list[Key]) -> None:
    """Replace the file, with its owner and mode, because the service may run as another user."""
    known = path.stat() if path.exists() else None
    with replacing(path) as beside:
        beside.touch(0o600)
        beside.write_text(json.dumps({"keys": [asdict(key) for key in keys]}, indent=2) + "\n", encoding="utf-8")
        if known is not None:
            made = beside.stat()
            if (made.st_uid, made.st_gid) != (known.st_uid, known.st_gid):
                try:
                    os.chown(beside, known.st_uid, known.st_gid)
                except PermissionError:
                    raise UserError(f"--keys {path}: belongs to another user; run this as that user or root.") from None
            beside.chmod(stat.S_IMODE(known.st_mode))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
