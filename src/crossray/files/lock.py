"""One process at a time in a folder."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from crossray.errors import UserError


@contextmanager
def locked(path: Path, busy: str | None = None, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; it ends with the process, also after `kill -9`.

    Args:
        path: the lock file; its folder must exist. The file stays, empty.
        busy: what to say when another process holds it; None waits for that process instead.
        patience: seconds to wait for it before that is said.

    Raises:
        UserError: another process holds it, or the file system has no locks at all.
    """
    lock = FileLock(path)
    try:
        with warnings.catch_warnings():
            # on a file system without flock the library locks by the file's existence, which is as good here
            warnings.filterwarnings("ignore", message="flock not supported")
            lock.acquire(timeout=-1 if busy is None else patience)
    except Timeout:
        raise UserError(str(busy)) from None
    except (OSError, NotImplementedError) as error:
        raise UserError(
            f"{path}: this file system cannot lock files ({getattr(error, 'strerror', None) or error}); choose a local "
            "folder."
        ) from error
    try:
        yield
    finally:
        lock.release()
