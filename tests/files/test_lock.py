"""One process at a time, and the right sentence when that cannot be had."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from crossray.errors import UserError
from crossray.files.lock import locked

HOLD = """
import sys
from pathlib import Path
from crossray.files.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_kept_out_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    other = subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match="taken"), locked(path, "taken"):
        pass
    other.kill()
    other.wait()
    with locked(path, "taken"):
        pass


def test_a_block_that_fails_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock", "taken"):
        raise ZeroDivisionError
    with locked(tmp_path / "lock", "taken"):
        pass


def test_a_file_system_without_flock_is_locked_by_the_files_existence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", missing)
    with (
        locked(tmp_path / "lock", "taken"),
        pytest.raises(UserError, match="taken"),
        locked(tmp_path / "lock", "taken"),
    ):
        pass


def test_a_file_system_that_cannot_lock_is_named_and_not_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refused)
    with (
        pytest.raises(UserError, match=r"this file system cannot lock files.*local folder"),
        locked(tmp_path / "l", "taken"),
    ):
        pass


def test_a_folder_that_cannot_be_written_is_not_a_fault_of_its_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as the dataset of somebody else, in which a frozen encoder would cache its features."""

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(FileLock, "acquire", refused)
    with (
        pytest.raises(UserError, match=r"cannot be written \(Permission denied\); change the perm"),
        locked(tmp_path / "l"),
    ):
        pass
