"""The copy of a run in a store: complete at any moment, and enough to continue bit for bit elsewhere."""

import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from tests.training.test_resume import Killed, assert_same_run, die, kill_at

from crossray.cli import main
from crossray.errors import UserError
from crossray.training.mirror import ARCHIVE, Mirror, fetch
from crossray.training.run import resume, train

ADDRESS = "memory://bucket/run"


@pytest.fixture(autouse=True)
def store() -> Iterator[Any]:
    """A store in the memory of this process."""
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def test_another_machine_continues_bit_for_bit(
    tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny(trainer__max_epochs=3, trainer__checkpoint_steps=2, trainer__threads=1, trainer__mirror=ADDRESS)
    plain = tiny(trainer__max_epochs=3, trainer__checkpoint_steps=2, trainer__threads=1)
    train(plain, blobs, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 8, die)
        train(recipe, blobs, tmp_path / "lost")
    shutil.rmtree(tmp_path / "lost")

    out = tmp_path / "elsewhere" / "run"
    main(["train", "--resume", ADDRESS, "--out", str(out), "--data", str(blobs)])
    assert_same_run(tmp_path / "whole", out)
    fetch(ADDRESS, tmp_path / "copy")
    assert_same_run(out, tmp_path / "copy")
    assert [path.name for path in tmp_path.glob(".*")] == []
    capsys.readouterr()
    assert resume(tmp_path / "copy") == tmp_path / "copy" / "best"
    assert "Training ended" not in capsys.readouterr().err


def test_a_store_that_fails_later_does_not_stop_the_training(
    tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny(trainer__max_epochs=2, trainer__mirror=ADDRESS)
    written = Mirror._write

    def fail(self: Mirror) -> None:
        if (self.run / "last.ckpt").exists() and self._store.exists(self._whole):
            self._store.pipe_file(self._part, b"half")
            raise ConnectionError("the network is gone")
        written(self)

    monkeypatch.setattr(Mirror, "_write", fail)
    train(recipe, blobs, tmp_path / "run")
    said = capsys.readouterr().err
    assert "out of date (ConnectionError: the network is gone); trying again" in said
    fetch(ADDRESS, tmp_path / "copy")  # of the first epoch
    assert (tmp_path / "copy" / "last.ckpt").exists()


def test_a_copy_is_never_replaced_by_another_run(tiny: Any, blobs: Path, tmp_path: Path, store: Any) -> None:
    store.pipe_file(f"/bucket/run/{ARCHIVE}", b"of another run")
    with pytest.raises(UserError, match=r"memory://bucket/run has the copy of another run; .* --resume memory://"):
        train(tiny(trainer__mirror=ADDRESS), blobs, tmp_path / "run")
    assert store.cat_file(f"/bucket/run/{ARCHIVE}") == b"of another run"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("address", ["s4://bucket/run", "file:///proc/none/run"])
def test_a_store_that_cannot_be_written_to_is_found_before_training(
    address: str, tiny: Any, blobs: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"'trainer.mirror': {address} cannot be written to"):
        train(tiny(trainer__mirror=address), blobs, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_address_has_a_scheme(tiny: Any) -> None:
    with pytest.raises(UserError, match=r"'trainer\.mirror' is 's3:bucket/run'; give an address"):
        tiny(trainer__mirror="s3:bucket/run")


@pytest.mark.parametrize("name", ["../outside", "/tmp/crossray-outside", "a/../../outside", "link"])
def test_an_archive_cannot_leave_its_folder(name: str, tmp_path: Path, store: Any) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo(name)
        if name == "link":
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member, io.BytesIO())
    store.pipe_file(f"/bucket/run/{ARCHIVE}", packed.getvalue())
    with pytest.raises(UserError, match="no run can be read from there"):
        fetch(ADDRESS, tmp_path / "deep" / "run")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list((tmp_path / "deep").iterdir()) == []


def test_what_is_no_copy_is_refused(tmp_path: Path, store: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no run can be read from there"):
        fetch(ADDRESS, tmp_path / "run")
    store.pipe_file(f"/bucket/run/{ARCHIVE}", b"no archive")
    with pytest.raises(UserError, match="no run can be read from there"):
        fetch(ADDRESS, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="run exists; give a new folder"):
        fetch(ADDRESS, tmp_path / "run")
    with pytest.raises(SystemExit):
        main(["train", "--resume", ADDRESS])
    assert "--out is needed: a new folder" in capsys.readouterr().err
