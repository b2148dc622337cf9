"""Uploads on the wire: slow ones, refused ones, and ones that are given up."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.serving.conftest import images, png

pytest.importorskip("fastapi")

import httpx
from tests.serving.live import running

from crossray.serving.keys import make_key
from crossray.serving.settings import Limits, Settings
from crossray.serving.uploads import Linger

#: Longest wait for anything, in seconds, on a machine under load.
PATIENCE = 30.0


@pytest.fixture
def served(model_folder: Path, tmp_path: Path, fast: None) -> Iterator[Any]:
    """Starts a service with these limits and gives its address; it ends with the test."""
    with ExitStack() as stack:

        def start(**more: Any) -> str:
            given: Any = {"models": {"a": model_folder}, "store": f"sqlite:///{tmp_path / 'j.db'}", **more}
            return stack.enter_context(running(Settings(**given)))

        yield start


@contextmanager
def sending(address: str, first: bytes, path: str = "/v1/reports", kind: str = "image/png") -> Iterator[socket.socket]:
    """A request whose body of a million bytes has only begun."""
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), PATIENCE) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 1000000\r\n\r\n"
        connection.sendall(head.encode() + first)
        yield connection


def comes(address: str, status: int, **request: Any) -> httpx.Response:
    """The first answer with this status to a repeated request."""
    end = time.monotonic() + PATIENCE
    while (answer := httpx.request(url=address, timeout=PATIENCE, **request)).status_code != status:
        assert time.monotonic() < end, answer.text
        time.sleep(0.05)
    return answer


def trickled(connection: socket.socket) -> bytes:
    """The answer to a client that sends a byte now and then for as long as the service lets it."""
    connection.settimeout(0.1)
    answer, end = b"", time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            connection.sendall(b"x")
            part = connection.recv(2**16)
        except TimeoutError:
            continue
        except ConnectionError:
            return answer
        if not part:
            return answer
        answer += part
    raise AssertionError(f"the connection is still open after {PATIENCE:g} s; answered: {answer!r}")


def test_uploads_count_from_their_first_byte_until_their_client_leaves(served: Any) -> None:
    address = served(limits=Limits(in_flight=2))
    reports, study = f"{address}/v1/reports", images(png())
    with sending(address, b"\x89"):
        assert httpx.post(reports, files=study, timeout=PATIENCE).status_code == 200
        with sending(address, b"\x89"):
            comes(f"{address}/readyz", 503, method="GET")
            assert "crossray_in_flight 2.0" in httpx.get(f"{address}/metrics").text
            refused = httpx.post(reports, files=study, timeout=PATIENCE)
            assert (refused.status_code, int(refused.headers["retry-after"]) > 0) == (429, True)
        assert comes(reports, 200, method="POST", files=study).json()["text"]
    comes(f"{address}/readyz", 200, method="GET")
    assert "crossray_in_flight 0.0" in httpx.get(f"{address}/metrics").text


def test_a_slow_upload_is_ended(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Linger, "SECONDS", 0.3)
    address = served(limits=Limits(in_flight=1, upload_seconds=0.5))
    for kind in ("image/png", "multipart/form-data; boundary=b", "application/json"):
        with sending(address, b"--b\r\n", kind=kind) as connection:
            assert trickled(connection).startswith(b"HTTP/1.1 408 "), kind
        assert httpx.post(f"{address}/v1/reports", files=images(png()), timeout=PATIENCE).status_code == 200


def test_a_refused_upload_is_not_read_forever(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Linger, "SECONDS", 0.3)
    address = served(limits=Limits(in_flight=1))
    with sending(address, b"\x89"):
        comes(f"{address}/readyz", 503, method="GET")
        with sending(address, b"\x89") as connection:
            assert trickled(connection).startswith(b"HTTP/1.1 429 ")


def test_a_client_that_sends_before_it_reads_gets_its_answer(served: Any) -> None:
    address = served(limits=Limits(upload=2**20))
    with httpx.Client(base_url=address, timeout=PATIENCE) as client:
        for _ in range(3):
            assert client.post("/v1/reports", files=images(b"x" * 2**25)).status_code == 413
            assert client.post("/v1/reports", content=iter([b"x" * 2**20] * 9)).status_code == 415
        answers = [client.post("/v1/reports", files=images(png())) for _ in range(2)]
        assert [(answer.status_code, answer.headers.get("connection")) for answer in answers] == [(200, None)] * 2


def test_an_edited_report_is_read_after_its_sender_is_known(served: Any, tmp_path: Path) -> None:
    key = make_key(tmp_path / "keys.json", "reader", ("report",), 1)
    address = served(keys=tmp_path / "keys.json")
    path = f"/v1/reports/{'0' * 32}/export"
    with sending(address, b"{", path, "application/json") as connection:
        assert connection.recv(2**16).startswith(b"HTTP/1.1 401 ")
    headers = {"Authorization": f"Bearer {key}"}

    def export(**body: Any) -> int:
        return httpx.post(address + path, headers=headers, timeout=PATIENCE, **body).status_code

    assert export(json={"sentences": ["x" * 2**20]}) == 413
    assert export(json={"sentences": "x"}) == 422
    assert export(content=b"{") == 415
    assert export(json={"sentences": ["x"]}) == 404
