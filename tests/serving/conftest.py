"""A service with a small model of random weights."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.interop.studies import draft
from tests.models.tiny import tiny

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

from crossray.data.batches.transform import ImageTransform
from crossray.decoding.config import DecodingConfig
from crossray.decoding.settings import GenerationSettings
from crossray.interop.source import read_sources
from crossray.interop.sr import dicom_bytes, structured_report
from crossray.serving.app import create_app
from crossray.serving.decoder import Decoder
from crossray.serving.entries import Entry
from crossray.serving.journal import Journal
from crossray.serving.settings import Settings
from crossray.text.tokenizer import Tokenizer

TEXTS = ["the heart is normal . no effusion .", "lungs are clear . cardiomegaly is seen ."]


def save_model(place: Path, method: Any = "greedy", system: str = "baseline") -> Path:
    tokenizer = Tokenizer.train(TEXTS, min_count=1)
    model = tiny(system, vocabulary_size=tokenizer.vocabulary_size)
    model.tokenizer, model.transform = tokenizer, ImageTransform(size=32, resize=40)
    model.save_pretrained(place)
    GenerationSettings(DecodingConfig(method=method, max_length=12), "findings", 1).save(place)
    return place


def png(seed: int = 0, size: tuple[int, int] = (80, 64)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 200, size).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def wait(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something has happened in another thread; fail if it takes longer."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(f"sqlite:///{tmp_path / 'journal.db'}")
    yield opened
    opened.close()


def objects_of(entry: Entry, report: str, contents: Sequence[tuple[str, bytes]]) -> list[bytes]:
    """What an archive gets of a study whose stored report is its text."""
    return [dicom_bytes(structured_report(draft(report, identity=entry.id), read_sources(contents)))]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="session")
def decoder() -> Iterator[Decoder]:
    """One process that decodes, for all services: to start one takes seconds."""
    made = Decoder(1, 2**30, 60.0)
    end, made.close = made.close, lambda: None  # type: ignore[method-assign]
    yield made
    end()


@pytest.fixture
def fast(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Services start without a decoder of their own."""
    monkeypatch.setattr("crossray.serving.app.Decoder", lambda *_: decoder)


@pytest.fixture
def serving(model_folder: Path, tmp_path: Path, fast: None) -> Iterator[Callable[..., TestClient]]:
    """Starts services with these settings; they end with the test."""
    clients: list[TestClient] = []

    def start(**options: Any) -> TestClient:
        given = {"models": {"a": model_folder}, "store": f"sqlite:///{tmp_path / 'j.db'}", "decoders": 1, **options}
        client = TestClient(create_app(Settings(**given)), base_url="http://localhost")
        client.__enter__()
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture(scope="module")
def service(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One service for the tests that leave nothing behind which others mind."""
    store = f"sqlite:///{tmp_path_factory.mktemp('store') / 'j.db'}"
    settings = Settings(models={"a": model_folder, "b": model_folder}, store=store, decoders=1)
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        yield client


def images(*contents: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [
        ("images", (f"name of patient {place}.png", content, "image/png")) for place, content in enumerate(contents)
    ]
