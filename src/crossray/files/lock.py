"""Lock files, for folders that only one process may use."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from crossray.errors import UserError


@contextmanager
def locked(path: Path, busy: str | None = None, *, patience: float = 0.0) -> Iterator[None]:
    """Hold a lock while the block runs; it is also released when the process ends, even by `kill -9`.

    Args:
        path: path of the lock file, whose folder must exist. The empty file is not deleted.
        busy: error message if another process holds the lock; None to wait for that process without a limit.
        patience: number of seconds to wait before raising the error.

    Raises:
        UserError: another process holds the lock, the folder is read-only, or the file system does not support locks.
    """
    lock = FileLock(path)
    try:
        with warnings.catch_warnings():
            # without flock, the library uses the file's existence as the lock, which is sufficient here
            warnings.filterwarnings("ignore", message="flock not supported")
            lock.acquire(timeout=-1 if busy is None else patience)
    except Timeout:
        raise UserError(str(busy)) from None
    except PermissionError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); change the permissions of its folder or use a copy of it."
        ) from error
    except (OSError, NotImplementedError) as error:
        raise UserError(
            f"{path}: this file system cannot lock files ({getattr(error, 'strerror', None) or error}); choose a local "
            "folder."
        ) from error
    try:
        yield
    finally:
        lock.release()
