"""Locks for folders that only one process may use."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from crossray.errors import UserError


@contextmanager
def locked(path: Path, busy: str | None = None, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path` while the block runs; it is released when the process ends, even by `kill -9`.

    Args:
        path: the lock file, whose folder must exist. The empty file remains.
        busy: message if another process holds it; None waits for that process instead.
        patience: seconds to wait before raising the error.

    Raises:
        UserError: another process holds it, or the file system does not support locks.
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
