"""What is found before a service begins: its port, its store, its models, its keys."""

import multiprocessing
import socket
from pathlib import Path

import pytest

from crossray import cli
from crossray.errors import UserError
from crossray.files.lock import locked
from crossray.serving.keys import MOST_DAYS, make_key, read_keys
from crossray.serving.run import check_models, check_port, run
from crossray.serving.settings import Settings


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_is_one(port: int) -> None:
    with pytest.raises(UserError, match="give 0 to 65535"):
        check_port("127.0.0.1", port)


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match="cannot listen on"):
            check_port("127.0.0.1", other.getsockname()[1])


def test_a_dicom_port_in_use_is_named_before_models_are_loaded(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        used = other.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot listen on .*--dicom-port {used}"):
            run(Settings({"a": tmp_path}, dicom_port=used), port=0)
    with pytest.raises(UserError, match="two different ports"):
        run(Settings({"a": tmp_path}, dicom_port=used), port=used)


def _hold(path: Path, ready: "multiprocessing.synchronize.Event", end: "multiprocessing.synchronize.Event") -> None:
    with locked(path):
        ready.set()
        end.wait(60)


def test_two_services_do_not_share_a_file(tmp_path: Path) -> None:
    """The second would let the studies wait again that the first is working on."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    store = f"sqlite:///{tmp_path}/crossray.db"
    context = multiprocessing.get_context("spawn")
    ready, end = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "crossray.db.lock", ready, end))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(UserError, match="another service is using it"):
            run(Settings({"a": tmp_path / "model"}, store=store), port=0)
    finally:
        end.set()
        other.join()
    assert not (tmp_path / "crossray.db").exists()


def test_a_path_of_two_parts_is_local_where_its_folder_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match=r"--model runs/nope: no config\.json there"):
        check_models(Settings({"nope": "runs/nope"}))
    check_models(Settings({"name": "user/name"}))  # may be on the hub


@pytest.mark.parametrize(
    ("name", "days", "words"),
    [("oidc:alice", 1.0, "without a colon"), (" ", 1.0, "without a colon"), ("a", 1e12, f"at most {MOST_DAYS}"),
     ("a", float("nan"), "more than 0")],
)  # fmt: skip
def test_keys_that_cannot_be(name: str, days: float, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        make_key(tmp_path / "keys.json", name, ("report",), days)
    assert not (tmp_path / "keys.json").exists()


def test_a_folder_is_no_file_of_keys(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name a file"):
        read_keys(tmp_path)


@pytest.mark.parametrize("option", ["--decode-seconds=0", "--upload-seconds=0", "--quiet-seconds=-1"])
def test_no_time_at_all_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["serve", "--model", "nowhere", option])
    assert caught.value.code == 2
    assert option.partition("=")[0] in capsys.readouterr().err
