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


def start(model: Path, store: str, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    command = [sys.executable, "-m", "crossray", "serve", "--model", f"a={model}", "--store", store, "--port", "0"]
    before = log.stat().st_size if log.exists() else 0
    with log.open("ab") as file:
        process = subprocess.Popen([*command, "--decoders", "1"], stdout=file, stderr=file)
    while True:
        text = log.read_bytes()[before:].decode()
        if "Uvicorn running on " in text:
            return process, text.split("Uvicorn running on ")[1].split()[0]
        assert process.poll() is None, text
        time.sleep(0.05)


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
    for _ in range(kills):
        process, address = start(model, store, log)
        with ThreadPoolExecutor(4) as clients:
            sent = [clients.submit(send, address, number + place) for place in range(12)]
            number += 12
            time.sleep(chance.uniform(0, wait))
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            accepted |= {key: study for key, study in (one.result() for one in sent) if study is not None}
    process, address = start(model, store, log)
    try:
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
            # a study that was begun three times and killed three times is given up, and says so
            assert answer.status_code == 200 or "each time" in answer.json()["detail"]
    finally:
        process.terminate()
        assert process.wait(60) in (0, -signal.SIGTERM)
    journal = Journal(store)
    counts = journal.counts()
    assert sum(counts.values()) == len(accepted) == number
    assert set(counts) <= {"done", "failed"}
    assert counts["done"] >= 0.9 * number
    assert "patient" not in log.read_text()
    print(f"{kills} kills, {number} studies sent, {len(accepted)} accepted: {counts}")  # noqa: T201  the figures of docs/serving.md


@pytest.mark.slow
def test_thirty_kills_lose_and_double_nothing(model_folder: Path, tmp_path: Path) -> None:
    kill_and_count(model_folder, tmp_path, kills=30, wait=1.5)


def test_a_kill_loses_and_doubles_nothing(model_folder: Path, tmp_path: Path) -> None:
    kill_and_count(model_folder, tmp_path, kills=1, wait=0.5)
