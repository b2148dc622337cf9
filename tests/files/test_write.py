"""Outputs appear whole or not at all."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from crossray.errors import UserError
from crossray.files import write
from crossray.files.write import WriteError, appearing, recover_folder, replace_folder, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", ["ä\r\nb\n", b"\x00\xff", memoryview(b"view")])
def test_a_file_holds_what_was_given_and_nothing_lies_beside_it(tmp_path: Path, content: str | bytes) -> None:
    write_whole(tmp_path / "new" / "a", content)
    expected = content.encode() if isinstance(content, str) else bytes(content)
    assert (tmp_path / "new" / "a").read_bytes() == expected
    assert names(tmp_path / "new") == ["a"]


def test_a_block_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), appearing(tmp_path / "a") as file:
        file.write("half")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_content_is_on_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    real = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (steps.append(str(Path(f"/proc/self/fd/{handle}").readlink())), real(handle))
    )
    write_whole(tmp_path / "a", "x")
    assert [Path(step).name for step in steps] == [steps[0].rsplit("/", 1)[1], tmp_path.name]
    assert steps[0].endswith(".part")


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen([sys.executable, "-c", f"print(open({str(pipe)!r}).read())"], stdout=subprocess.PIPE)
    write_whole(pipe, "through")
    assert reader.communicate()[0] == b"through\n"
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


@pytest.mark.parametrize("place", ["folder", "file/below"])
def test_what_cannot_be_written_is_said_in_one_sentence(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match=r"cannot be written \(.+\); choose another place\.$") as found:
        write_whole(tmp_path / place, "x")
    assert isinstance(found.value, UserError)
    assert str(found.value).startswith(str(tmp_path / place))


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, "sync", full)
    with pytest.raises(WriteError, match=r"No space left on device.*free space"):
        write_whole(tmp_path / "a", "x")
    assert names(tmp_path) == []


def test_what_a_killed_process_left_is_removed_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = tmp_path / f".a.{write._HOST}-{ended.pid}.part"
    living = tmp_path / f".a.{write._HOST}-{os.getppid()}.part"
    elsewhere = tmp_path / f".a.another-host-{ended.pid}.part"
    for path in (dead, living, elsewhere):
        path.write_text("half")
    write_whole(tmp_path / "a", "whole")
    assert names(tmp_path) == sorted(["a", living.name, elsewhere.name])


def fill(text: str):
    def into(folder: Path) -> None:
        folder.mkdir()
        (folder / "x").write_text(text)

    return into


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    replace_folder(tmp_path / "f", fill("old"))
    replace_folder(tmp_path / "f", fill("new"))
    assert (tmp_path / "f" / "x").read_text() == "new"
    assert names(tmp_path) == ["f"]


def test_a_folder_that_cannot_be_filled_stays_as_it_was(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        folder.mkdir()
        raise OSError(errno.ENOSPC, "No space left on device")

    replace_folder(tmp_path / "f", fill("old"))
    with pytest.raises(WriteError, match="free space"):
        replace_folder(tmp_path / "f", broken)
    assert (tmp_path / "f" / "x").read_text() == "old"
    assert names(tmp_path) == ["f"]


@pytest.mark.skipif(sys.platform == "win32", reason="files have no limit there")
def test_tensors_that_do_not_fit_on_the_disk(tmp_path: Path) -> None:
    """Tensors are written by other code than Python's; a limit on the size of files stands for a full disk."""
    script = """if True:
        import resource, sys
        from pathlib import Path
        import torch
        from safetensors.torch import save_file
        from crossray.files.write import WriteError, replace_folder, replacing

        def fill(folder):
            folder.mkdir()
            save_file({"x": torch.zeros(10_000)}, folder / "x")

        def one(path):
            with replacing(path) as beside:
                save_file({"x": torch.zeros(10_000)}, beside)

        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        for write, place in ((lambda path: replace_folder(path, fill), "folder"), (one, "file")):
            try:
                write(Path(sys.argv[1], place))
            except WriteError as error:
                print(error)
    """
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    expected = [
        f"{tmp_path / place}: cannot be written (File too large); choose another place." for place in ("folder", "file")
    ]
    assert done.stdout.splitlines() == expected, done.stderr
    assert names(tmp_path) == []


def test_a_kill_between_the_two_renames_is_mended(tmp_path: Path) -> None:
    replace_folder(tmp_path / "f", fill("old"))
    (tmp_path / "f").rename(tmp_path / "f.old")
    recover_folder(tmp_path / "f")
    assert (tmp_path / "f" / "x").read_text() == "old"
