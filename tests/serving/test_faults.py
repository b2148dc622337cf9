"""The service is killed at random moments, and every study that it accepted is reported exactly once."""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

import httpx
from tests.serving.conftest import images, png

from crossray.serving.journal import Journal

CONTENTS = [png(seed) for seed in range(4)]


#: Imports everything once, and starts the service at every line of its input; says its process, and how it ended.
_LIVES = """
import os, sys
import crossray
from crossray.serving.run import run
from crossray.serving.settings import Settings
model, store, log = sys.argv[1:]
crossray.load(model, device="cpu")  # imports the rest
for line in sys.stdin:
    process = os.fork()
    if not process:
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(file, 1), os.dup2(file, 2)
        run(Settings(models={"a": model}, store=store, decoders=1), port=0)
        os._exit(0)
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


class Lives:
    """A service that is started again and again."""

    def __init__(self, model: Path, store: str, log: Path) -> None:
        command = [sys.executable, "-c", _LIVES, str(model), store, str(log)]
        self._parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._log, self._process = log, 0

    def start(self) -> str:
        """The address of a new life."""
        assert self._parent.stdin is not None
        before = self._log.stat().st_size if self._log.exists() else 0
        self._parent.stdin.write("\n")
        self._parent.stdin.flush()
        self._process = int(self._line())
        while True:
            text = self._log.read_bytes()[before:].decode() if self._log.exists() else ""
            if "Uvicorn running on " in text:
                return text.split("Uvicorn running on ")[1].split()[0]
            os.kill(self._process, 0)
            time.sleep(0.02)

    def end(self, sign: int) -> int:
        """End it by a signal; its exit code."""
        os.kill(self._process, sign)
        return int(self._line())

    def close(self) -> None:
        self._parent.communicate(timeout=60)

    def _line(self) -> str:
        assert self._parent.stdout is not None
        return self._parent.stdout.readline()


def send(address: str, number: int) -> tuple[str, str | None]:
    """The idempotency key, and the id where the service accepted the study."""
    key = f"study {number}"
    headers = {"Idempotency-Key": key, "Prefer": "respond-async"}
    try:
        answer = httpx.post(f"{address}/v1/reports", files=images(CONTENTS[number % 4]), headers=headers, timeout=30)
    except httpx.HTTPError:
        return key, None
    return key, answer.json()["id"] if answer.status_code == 202 else None


def kill_and_count(model: Path, folder: Path, kills: int, wait: float) -> None:
    store, log = f"sqlite:///{folder / 'j.db'}", folder / "log"
    chance, accepted, number = random.Random(1), {}, 0
    lives = Lives(model, store, log)
    for _ in range(kills):
        address = lives.start()
        with ThreadPoolExecutor(4) as clients:
            sent = [clients.submit(send, address, number + place) for place in range(12)]
            number += 12
            time.sleep(chance.uniform(0, wait))
            assert lives.end(signal.SIGKILL) == -signal.SIGKILL
            accepted |= {key: study for key, study in (one.result() for one in sent) if study is not None}
    before = Journal(store).counts()
    address = lives.start()
    # what a client does that got no answer: it sends the study again under the same key
    for place in range(number):
        key, study = send(address, place)
        while study is None:  # too many are being reported
            time.sleep(0.2)
            key, study = send(address, place)
        assert accepted.setdefault(key, study) == study
    for study in accepted.values():
        while (answer := httpx.get(f"{address}/v1/reports/{study}", timeout=30)).status_code == 202:
            time.sleep(0.05)
        assert answer.status_code == 200, answer.text
    assert lives.end(signal.SIGTERM) in (0, -signal.SIGTERM)
    lives.close()
    counts = Journal(store).counts()
    assert counts == {"done": number}
    assert len(accepted) == number
    assert "patient" not in log.read_text()
    print(f"{kills} kills, {number} studies; after the last kill {before}, after the last start {counts}")  # noqa: T201


@pytest.mark.slow
def test_thirty_kills_lose_and_double_nothing(model_folder: Path, tmp_path: Path) -> None:
    # the twelve studies of a life take a second or two, so that kills come before, during and after their reports
    kill_and_count(model_folder, tmp_path, kills=30, wait=2.0)


def test_a_kill_loses_and_doubles_nothing(model_folder: Path, tmp_path: Path) -> None:
    kill_and_count(model_folder, tmp_path, kills=2, wait=1.0)
