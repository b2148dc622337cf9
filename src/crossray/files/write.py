"""Writes outputs atomically and durably; devices and pipes are never replaced.

All files and folders that CrossRay writes go through this module: they are written under a temporary name, flushed to
disk, and then renamed. If the process is killed at any point, the old or the new content remains, never a mixture.
"""

import errno
import glob
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from crossray.errors import UserError

#: Part of temporary names, because processes on other machines may write to the same shared folder.
_HOST = platform.node() or "host"


class WriteError(UserError, OSError):
    """An output cannot be written; `strerror` is the reason.

    It is also an `OSError`, so that callers with a better remedy can catch it.
    """

    def __init__(self, path: Path, reason: OSError) -> None:
        remedy = "free space or choose another place" if reason.errno == errno.ENOSPC else "choose another place"
        super().__init__(f"{path}: cannot be written ({reason.strerror or reason}); {remedy}.")
        self.strerror = reason.strerror or str(reason)


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """Raise a `WriteError` for an error of the system while `path` is written, and leave all other errors."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise WriteError(path, error) from error
    except SafetensorError as error:  # names an error of the system by its number only: (os error 28)
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise WriteError(path, OSError(int(number[1]), os.strerror(int(number[1])))) from error


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path to write to, which replaces `path` if the block ends without an error.

    The folder of `path` is created if it does not exist, and symbolic links are resolved. A device or pipe is written
    to directly.

    Raises:
        WriteError: the file cannot be written.
    """
    path = Path(path)
    with _one_sentence(path):
        target = path.resolve() if path.is_symlink() else path
        if target.exists() and not target.is_file():
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            yield target
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        beside = target.with_name(f".{target.name}.{_HOST}-{os.getpid()}.part")
        try:
            yield beside
            sync(beside)
            beside.replace(target)
            sync(target.parent)
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)


@contextmanager
def appearing(path: Path | str, mode: str = "w", *, newline: str | None = None) -> Iterator[IO[Any]]:
    r"""Open a file for writing, which appears at `path` if the block ends without an error.

    Args:
        path: path of the file; see `replacing`.
        mode: "w" for UTF-8 text, "wb" for bytes.
        newline: as in `open`; "\n" for the same line endings on every system.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "folder" / "a.txt"
        >>> with appearing(place) as file:
        ...     _ = file.write("whole")
        >>> place.read_text()
        'whole'
    """
    encoding = None if "b" in mode else "utf-8"
    with replacing(path) as beside, beside.open(mode, encoding=encoding, newline=newline) as file:
        yield file


def write_whole(path: Path | str, content: str | bytes | memoryview) -> None:
    """Write a file atomically, with text as UTF-8; create its folder if necessary.

    Raises:
        WriteError: the file cannot be written.
    """
    text = isinstance(content, str)
    with appearing(path, "w" if text else "wb", newline="" if text else None) as file:
        file.write(content)


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary folder, which then replaces `folder`.

    Use `recover_folder` to repair an interrupted replacement.

    Raises:
        WriteError: the folder cannot be written.
    """
    beside, old = folder.with_name(folder.name + ".tmp"), folder.with_name(folder.name + ".old")
    try:
        with _one_sentence(folder):
            for leftover in (beside, old):
                shutil.rmtree(leftover, ignore_errors=True)
            write(beside)
            for path in beside.rglob("*"):
                sync(path)
            if folder.exists():
                folder.replace(old)
            beside.replace(folder)
            sync(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Restore the old folder if the process was killed between the two renames of `replace_folder`."""
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():
        old.replace(folder)


def _remove_leftovers(target: Path) -> None:
    """Remove temporary files next to `target` from killed processes of this machine."""
    for part in target.parent.glob(f".{glob.escape(target.name)}.{glob.escape(_HOST)}-*.part"):
        number = part.name.removesuffix(".part").rpartition("-")[2]
        if number.isdigit() and int(number) != os.getpid() and not _lives(int(number)):
            part.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    if os.name == "nt":  # a signal would end the process there; leave its file
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open folders; renames are durable there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
