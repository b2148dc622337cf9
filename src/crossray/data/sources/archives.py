"""Reads the members of untrusted tar, tar.gz and zip archives, or the files of a folder.

Nothing is extracted by name: members are returned as bytes, and the caller chooses the file names. Paths that leave the
archive's folder, links, devices and decompression bombs raise an error. One member at a time is in memory.
"""

import errno
import gzip
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from crossray.errors import UserError

#: Maximum number of entries in an archive; MIMIC-CXR's reports have about 300,000.
MAX_MEMBERS = 2**20

#: Maximum ratio of unpacked to packed size; that of IU X-Ray's XML reports is about 30.
MAX_RATIO = 100

#: Unpacked size in bytes that is allowed whatever the ratio.
FREE_BYTES = 2**28

#: Maximum number of bytes read at once, which limits what a header of a tar archive can make `tarfile` load.
_CHUNK = 2**20

#: Errors that the standard library raises for damaged archives, besides `OSError`.
_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, NotImplementedError,
    OverflowError, struct.error,
)  # fmt: skip

#: Loads the bytes of a member; it must be called before the next member is requested.
Load = Callable[[], bytes]


def members(source: Path, suffixes: tuple[str, ...], max_bytes: int) -> Iterator[tuple[str, Load]]:
    """Iterate over the files with one of `suffixes` in an archive or folder; hidden files are skipped.

    Args:
        source: a .tar, .tar.gz (.tgz) or .zip archive, detected by content, or a folder.
        suffixes: lower-case endings of file names, such as ".xml".
        max_bytes: maximum size of a member in bytes.

    Yields:
        The member's relative POSIX path and a function that loads it, in the order of the archive, or sorted.

    Raises:
        UserError: the source is missing or damaged; a member is too large, outside the folder, or a link or device; or
            the archive unpacks to more than `MAX_RATIO` times its size.
    """
    if source.is_dir():
        yield from _folder(source, suffixes, max_bytes)
        return
    try:
        with source.open("rb") as file:
            start = file.read(262)
        if start[:4] == b"PK\x03\x04":
            yield from _zip(source, suffixes, max_bytes)
        elif start[:2] == b"\x1f\x8b":
            with gzip.open(source, "rb") as unpacked:
                yield from _tar(source, unpacked, suffixes, max_bytes)
        elif start[257:262] == b"ustar":
            with source.open("rb") as plain:
                yield from _tar(source, plain, suffixes, max_bytes)
        else:
            raise UserError(f"{source}: neither a tar, tar.gz nor zip archive nor a folder; give the downloaded file")
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror or 'damaged'}); check the path") from None


def _folder(root: Path, suffixes: tuple[str, ...], max_bytes: int) -> Iterator[tuple[str, Load]]:
    real = os.path.realpath(root).rstrip(os.sep) + os.sep
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if not _wanted(name, suffixes) or path.is_dir():
            continue
        if not os.path.realpath(path).startswith(real) or not path.is_file():
            raise UserError(f"{root}: {name!a}: is outside the folder or not a file; copy the file into the folder")
        _check_size(root, name, path.stat().st_size, max_bytes)
        yield name, path.read_bytes


def zip_members(source: Path, suffixes: tuple[str, ...], max_bytes: int) -> dict[str, Load]:
    """Return the functions that load the members of a zip archive in any order, by path.

    The archive stays open as long as one of the functions is referenced. See `members` for the arguments.

    Raises:
        UserError: the archive is missing, damaged or malicious (`members`), or not a zip archive.
    """
    try:
        if not zipfile.is_zipfile(source):
            source.open("rb").close()
            raise UserError(f"{source}: not a zip archive; give the downloaded file, or the folder that it unpacks to")
    except OSError as error:
        raise UserError(f"{source}: cannot be read ({error.strerror}); check the path") from None
    return dict(_zip_entries(source, _opened_zip(source), suffixes, max_bytes))


def _zip(source: Path, suffixes: tuple[str, ...], max_bytes: int) -> Iterator[tuple[str, Load]]:
    with _opened_zip(source) as archive:
        yield from _zip_entries(source, archive, suffixes, max_bytes)


def _opened_zip(source: Path) -> zipfile.ZipFile:
    with _damage_is_said(source):
        return zipfile.ZipFile(source)


def _zip_entries(
    source: Path, archive: zipfile.ZipFile, suffixes: tuple[str, ...], max_bytes: int
) -> Iterator[tuple[str, Load]]:
    entries = archive.infolist()
    _check_count(source, len(entries))
    _check_ratio(source, sum(entry.file_size for entry in entries))
    for entry in entries:
        if not entry.filename or entry.is_dir():  # `is_dir` fails for an empty name
            continue
        kind = stat.S_IFMT(entry.external_attr >> 16)
        name = _checked_name(source, entry.filename, regular=kind in (0, stat.S_IFREG))
        _check_size(source, name, entry.file_size, max_bytes)
        if _wanted(name, suffixes):
            yield name, _loader(source, lambda entry=entry: _zip_bytes(archive, entry))  # type: ignore[misc]


def _zip_bytes(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("a method whose decoder takes what memory the entry tells it to")
    with archive.open(entry) as file:
        return _whole(file, entry.file_size)


def _tar(
    source: Path, file: IO[bytes] | gzip.GzipFile, suffixes: tuple[str, ...], max_bytes: int
) -> Iterator[tuple[str, Load]]:
    forward = _Forward(source, file)
    with _damage_is_said(source):
        archive = tarfile.open(fileobj=forward, mode="r:")  # type: ignore[call-overload]  # noqa: SIM115
    count = 0
    while True:
        with _damage_is_said(source):
            entry = archive.next()
        archive.members = []  # otherwise, `tarfile` keeps all headers in memory
        if entry is None:
            with _damage_is_said(source):
                forward.check_end()
            return
        count += 1
        _check_count(source, count)
        if entry.isdir():
            continue
        name = _checked_name(source, entry.name, regular=entry.isreg() and not entry.issparse())
        _check_size(source, name, entry.size, max_bytes)
        if _wanted(name, suffixes):
            yield name, _loader(source, lambda entry=entry: _tar_bytes(archive, entry))  # type: ignore[misc]


def _tar_bytes(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(entry)
    if file is None:
        raise ValueError("no file")
    return _whole(file, entry.size)


def _whole(file: IO[bytes], size: int) -> bytes:
    """Read a member in chunks, because a member with a false size could otherwise fill the memory."""
    parts = []
    while part := file.read(_CHUNK):
        parts.append(part)
    content = b"".join(parts)
    if len(content) != size:
        raise EOFError
    return content


class _Forward:
    """A file that is read once, sequentially and in small chunks, up to the allowed ratio."""

    def __init__(self, source: Path, file: IO[bytes] | gzip.GzipFile) -> None:
        self._source, self._file, self._position = source, file, 0
        self._last = b""

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _CHUNK:
            raise tarfile.ReadError("a header of absurd size")
        content = self._last = self._file.read(size)
        self._position += len(content)
        _check_ratio(self._source, self._position)
        return content

    def seek(self, position: int) -> None:
        if position < self._position:
            raise tarfile.ReadError("a header that points back")
        while self._position < position and self.read(min(_CHUNK, position - self._position)):
            pass

    def check_end(self) -> None:
        """Check that the archive ends with zeros, because `tarfile` mistakes a damaged header for the end.

        All remaining bytes are read, so that gzip's checksum is verified.
        """
        if not self._last or any(self._last):
            raise tarfile.ReadError("no end")
        while part := self.read(_CHUNK):
            if any(part):
                raise tarfile.ReadError("something behind the end")


@contextmanager
def _damage_is_said(source: Path) -> Iterator[None]:
    try:
        yield
    except RecursionError:
        raise UserError(f"{source}: the headers are nested without end; download the archive again") from None
    except OSError as error:
        # EINVAL: a damaged header made the library seek to an impossible place; others: the disk cannot be read
        if error.errno not in (None, errno.EINVAL):
            raise UserError(
                f"{source}: cannot be read ({error.strerror}); check the disk and its permissions"
            ) from None
        raise _damaged(source) from None
    except _DAMAGED:
        raise _damaged(source) from None


def _damaged(source: Path) -> UserError:
    return UserError(f"{source}: the archive is truncated or damaged; download it again")


def _loader(source: Path, load: Load) -> Load:
    def guarded() -> bytes:
        with _damage_is_said(source):
            return load()

    return guarded


def _wanted(name: str, suffixes: tuple[str, ...]) -> bool:
    path = PurePosixPath(name)
    return path.name.lower().endswith(suffixes) and not any(part.startswith(".") for part in path.parts)


def _checked_name(source: Path, name: str, *, regular: bool) -> str:
    shown = ascii(name[:120])
    path = PurePosixPath(name.removeprefix("./"))
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or name[1:2] == ":":
        raise UserError(f"{source}: {shown}: points outside the archive's folder; do not use this archive")
    if not regular:
        raise UserError(f"{source}: {shown} is a link, device or sparse file; pack plain files only")
    return path.as_posix()


def _check_size(source: Path, name: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise UserError(
            f"{source}: {name[:120]!a}: larger than {max_bytes / 2**20:.0f} MiB; remove it from the archive"
        )


def _check_count(source: Path, count: int) -> None:
    if count > MAX_MEMBERS:
        raise UserError(f"{source}: more than {MAX_MEMBERS} entries; give the original archive")


def _check_ratio(source: Path, unpacked: int) -> None:
    if unpacked > FREE_BYTES and unpacked > MAX_RATIO * source.stat().st_size:
        raise UserError(
            f"{source}: unpacks to more than {MAX_RATIO} times its size, as no real archive does; do not use it"
        )
