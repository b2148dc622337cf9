"""Outputs that appear whole or not at all, survive a power cut once they are there, and never replace a device.

Every file and folder that CrossRay writes goes through this module: written beside its place, flushed to disk, then
renamed. After a kill at any moment the old content or the new one is there, never a mixture.
"""

import errno
import glob
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from crossray.errors import UserError

#: Part of temporary names: processes of other machines may write into a shared folder.
_HOST = platform.node() or "host"


class WriteError(UserError, OSError):
    """An output cannot be written; `strerror` says why.

    It is an `OSError` too, so that code which knows a better remedy can catch it and say that instead.
    """

    def __init__(self, path: Path, reason: OSError) -> None:
        remedy = "free space or choose another place" if reason.errno == errno.ENOSPC else "choose another place"
        super().__init__(f"{path}: cannot be written ({reason.strerror or reason}); {remedy}.")
        self.strerror = reason.strerror or str(reason)


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A place beside `path` to write to, which replaces `path` when the block ends without an error.

    The folder of `path` is made when it is missing. A link is followed. What exists and is no regular file (a device, a
    pipe) is written to and stays what it is.

    Raises:
        WriteError: the file system refuses.
    """
    path = Path(path)
    try:
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
    except OSError as error:
        if isinstance(error, UserError):
            raise
        raise WriteError(path, error) from error


@contextmanager
def appearing(path: Path | str, mode: str = "w", *, newline: str | None = None) -> Iterator[IO[Any]]:
    r"""A file to write to that appears at `path` when the block ends without an error.

    Args:
        path: see `replacing`.
        mode: "w" for UTF-8 text, "wb" for bytes.
        newline: as in `open`; "\n" keeps line ends the same on every system.

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
    """Write a file, text as UTF-8, and its folder; it appears whole or not at all.

    Raises:
        WriteError: the file system refuses.
    """
    text = isinstance(content, str)
    with appearing(path, "w" if text else "wb", newline="" if text else None) as file:
        file.write(content)


def replace_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a folder beside `folder`, then put it in its place.

    `recover_folder` mends what a kill leaves.
    """
    beside, old = folder.with_name(folder.name + ".tmp"), folder.with_name(folder.name + ".old")
    try:
        for leftover in (beside, old):
            shutil.rmtree(leftover, ignore_errors=True)
        write(beside)
        for path in beside.rglob("*"):
            sync(path)
        if folder.exists():
            folder.replace(old)
        beside.replace(folder)
        sync(folder.parent)
    except OSError as error:
        if isinstance(error, UserError):
            raise
        raise WriteError(folder, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Bring the old folder back when a kill fell between the two renames of `replace_folder`."""
    old = folder.with_name(folder.name + ".old")
    if old.exists() and not folder.exists():
        old.replace(folder)


def _remove_leftovers(target: Path) -> None:
    """Remove what processes of this machine that were killed have left beside `target`."""
    for part in target.parent.glob(f".{glob.escape(target.name)}.{glob.escape(_HOST)}-*.part"):
        number = part.name.removesuffix(".part").rpartition("-")[2]
        if number.isdigit() and int(number) != os.getpid() and not _lives(int(number)):
            part.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    if os.name == "nt":  # where a signal would end the process; leave its file
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def sync(path: Path) -> None:
    """Make a file's content, or a folder's names, durable."""
    if path.is_dir() and os.name == "nt":  # Windows has no handles of folders; renames are durable there
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
