"""Archives: what is read, and that nothing hostile is."""

import errno
import gzip
import io
import os
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crossray.data.sources import archives
from crossray.data.sources.archives import members
from crossray.errors import UserError

FILES = {"a/1.xml": b"one", "a/2.XML": b"two" * 999, "a/._1.xml": b"hidden", "a/notes.txt": b"no", "b.xml": b""}
WANTED = {"a/1.xml": b"one", "a/2.XML": b"two" * 999, "b.xml": b""}


def entry(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def tar(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return path


def packed(path: Path) -> Path:
    """`FILES` as an archive or folder."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir("a") if hasattr(archive, "mkdir") else archive.writestr("a/", "")
            for name, content in FILES.items():
                archive.writestr(name, content)
        return path
    if path.suffix:
        return tar(path, entry("a", type=tarfile.DIRTYPE), *(entry(f"./{name}", FILES[name]) for name in FILES))
    for name, content in FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def read(source: Path, limit: int = 10**6) -> dict[str, bytes]:
    return {name: load() for name, load in members(source, (".xml",), limit)}


@pytest.mark.parametrize("name", ["x.tar", "x.tgz", "x.zip", "folder"])
def test_every_kind_gives_the_same_members(tmp_path: Path, name: str) -> None:
    source = packed(tmp_path / name)
    assert read(source) == WANTED
    assert [name for name, _ in members(source, (".txt",), 100_000)] == ["a/notes.txt"]
    with pytest.raises(UserError, match=r"2\.XML': larger than 0 MiB"):
        read(source, limit=2000)


def test_members_that_are_not_loaded_are_passed_over(tmp_path: Path) -> None:
    names = []
    for name, load in members(packed(tmp_path / "x.tgz"), (".xml",), 10**6):
        names.append(name)
        if name == "b.xml":
            assert load() == b""
    assert names == list(WANTED)


@pytest.mark.parametrize("name", ["../a.xml", "/a.xml", "a/../../b.xml", "C:/a.xml", "a\\..\\b.xml", "..\\a.xml"])
@pytest.mark.parametrize("kind", ["x.tgz", "x.zip"])
def test_paths_that_leave_the_archive_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    source = tmp_path / kind
    if kind == "x.zip":
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr(name, b"x")
    else:
        tar(source, entry(name, b"x"))
    with pytest.raises(UserError, match="points outside the archive's folder"):
        read(source)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    source = tar(tmp_path / "x.tgz", entry("a.xml", type=kind, linkname="/etc/passwd"))
    with pytest.raises(UserError, match="a link, device or sparse file"):
        read(source)


def test_links_in_zip_archives_and_out_of_folders_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        link = zipfile.ZipInfo("a.xml")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="a link, device"):
        read(tmp_path / "x.zip")
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret.xml").write_text("x")
    (tmp_path / "folder" / "a.xml").symlink_to(tmp_path / "secret.xml")
    with pytest.raises(UserError, match="is outside the folder"):
        read(tmp_path / "folder")
    (tmp_path / "folder" / "a.xml").unlink()
    os.mkfifo(tmp_path / "folder" / "a.xml")
    with pytest.raises(UserError, match="not a file"):
        read(tmp_path / "folder")


def bomb_of_members(path: Path) -> Path:
    return tar(path, *(entry(f"{i}.bin", bytes(10**6)) for i in range(4)))


def bomb_of_one_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bin", bytes(4 * 10**6))
    return path


def bomb_behind_the_end(path: Path) -> Path:
    with gzip.open(path, "wb") as file:
        file.write(bytes(8 * 10**6))
    return path


@pytest.mark.parametrize(
    ("make", "name"), [(bomb_of_members, "x.tgz"), (bomb_of_one_zip, "x.zip"), (bomb_behind_the_end, "x.tgz")]
)
def test_bombs_are_refused(
    tmp_path: Path, make: Callable[[Path], Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / name)
    monkeypatch.setattr(archives, "FREE_BYTES", 10**6)
    with pytest.raises(UserError, match="unpacks to more than 100 times its size"):
        read(source, limit=10**8)


def test_a_header_of_absurd_size_is_not_loaded(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2**33
    (tmp_path / "x.tar").write_bytes(header.tobuf() + bytes(1024))
    with pytest.raises(UserError, match="truncated or damaged"):
        read(tmp_path / "x.tar")


def test_too_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    for name in ("x.tgz", "x.zip"):
        with pytest.raises(UserError, match="more than 3 entries"):
            read(packed(tmp_path / name))


def test_lying_directories_of_zip_archives(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("n", b"content")
        archive.writestr("a.xml", b"content")
    whole = (tmp_path / "x.zip").read_bytes()
    directory = whole.index(b"PK\x01\x02")
    last = whole.rindex(b"PK\x01\x02")
    end = whole.index(b"PK\x05\x06")
    # a member whose header would lie behind the end
    behind = whole[: last + 42] + struct.pack("<I", end) + whole[last + 46 :]
    (tmp_path / "x.zip").write_bytes(behind)
    with pytest.raises(UserError, match="truncated or damaged"):
        read(tmp_path / "x.zip")
    # a member without a name: the byte becomes the comment's
    nameless = bytearray(whole)
    nameless[directory + 28 : directory + 34] = struct.pack("<HHH", 0, 0, 1)
    (tmp_path / "x.zip").write_bytes(nameless)
    assert read(tmp_path / "x.zip") == {"a.xml": b"content"}


def test_a_zip_member_that_says_it_is_small_is_not_inflated(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.xml", bytes(2**26))
    content = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(content.replace(struct.pack("<I", 2**26), struct.pack("<I", 1000)))
    tracemalloc.start()
    with pytest.raises(UserError, match="truncated or damaged"):
        read(tmp_path / "x.zip")
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_other_methods_of_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.xml", b"content")
    with pytest.raises(UserError, match="truncated or damaged"):
        read(tmp_path / "x.zip")


def test_what_is_no_archive_says_so(tmp_path: Path) -> None:
    (tmp_path / "x.tgz").write_bytes(b"hello")
    with pytest.raises(UserError, match="neither a tar"):
        read(tmp_path / "x.tgz")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "absent.tgz")


def test_a_disk_that_cannot_be_read_is_not_called_a_damaged_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = packed(tmp_path / "a.zip")

    def fails(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(zipfile.ZipExtFile, "read", fails)
    with pytest.raises(UserError, match=r"a\.zip: cannot be read \(Input/output error\)"):
        read(archive)


@pytest.mark.parametrize("name", ["x.tar", "x.tgz", "x.zip"])
def test_every_truncation_is_noticed(tmp_path: Path, name: str) -> None:
    whole = packed(tmp_path / name).read_bytes()
    content_end = len(whole) if name != "x.tar" else -(-len(whole.rstrip(b"\0")) // 512) * 512
    for end in np.linspace(1, content_end - 1, 40).astype(int):
        (tmp_path / name).write_bytes(whole[:end])
        with pytest.raises(UserError):
            read(tmp_path / name)


@pytest.mark.parametrize("name", ["x.tar", "x.tgz", "x.zip"])
def test_damaged_bytes_end_in_a_sentence_or_in_members(tmp_path: Path, name: str) -> None:
    whole = packed(tmp_path / name).read_bytes()
    random = np.random.default_rng(0)
    for _ in range(100):
        damaged = bytearray(whole)
        for place in random.integers(len(whole), size=random.integers(1, 6)):
            damaged[place] = random.integers(256)
        (tmp_path / name).write_bytes(bytes(damaged))
        try:
            read(tmp_path / name)
        except UserError as error:
            assert "\n" not in str(error)
