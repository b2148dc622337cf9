"""Damaged requests on the wire: the service answers or hangs up, lives on, and tells nobody another's study.

    python -m tests.serving.fuzz_requests [--count 2000] [--first 0]

Every mutation has a number; the same number is the same request everywhere.
"""

import argparse
import random
import re
import socket
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from tests.fuzz.mutation import mutated
from tests.serving.conftest import images, png, save_model
from tests.serving.live import running

from crossray.serving.keys import make_key
from crossray.serving.settings import Limits, Settings

#: Longest time for an answer, in seconds, on a machine under load.
PATIENCE = 60.0

#: Seconds without an answer after which a request is taken for one that the service waits for the end of.
SILENCE = 1.0


@dataclass
class Outcome:
    """What the mutations led to.

    Attributes:
        answers: how often each status was answered; 0: the service hung up without one.
        faults: number and description of what must not happen.
    """

    answers: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def requests(key: str, study: str) -> list[bytes]:
    """Whole requests of every kind, as bytes."""
    form = httpx.Request("POST", "http://x", files=images(png(1, (40, 36)), png(2, (40, 36))))
    body, kind = form.read(), form.headers["content-type"]
    head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
    export = b'{"sentences": ["The heart is normal."]}'
    query = "include=attention,views&model=a"

    def post(path: str, kind: str, body: bytes, more: str = "") -> bytes:
        lines = f"POST {path} HTTP/1.1\r\n{head}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        return lines.encode() + body

    return [
        post(f"/v1/reports?{query}", kind, body),
        post("/v1/reports", kind, body, "Accept: text/event-stream\r\n"),
        post("/v1/reports?format=text", "image/png", png(3, (40, 36)), "Idempotency-Key: 1\r\n"),
        post(f"/v1/reports/{study}/export?format=text", "application/json", export),
        post("/v1/models/a/reload", "text/plain", b""),
        f"GET /v1/reports/{study} HTTP/1.1\r\n{head}\r\n".encode(),
        f"DELETE /v1/reports/{study} HTTP/1.1\r\n{head}\r\n".encode(),
        f"GET /v1/audit?limit=10 HTTP/1.1\r\n{head}\r\n".encode(),
        f"GET /page/app.js HTTP/1.1\r\n{head}\r\n".encode(),
    ]


def fuzz(count: int, first: int = 0) -> Outcome:
    """Send the mutations `first` ... `first + count - 1` to a service of this process."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        keys = folder / "keys.json"
        victim, caller = (make_key(keys, owner, ("report",), 1) for owner in ("victim", "caller"))
        settings = Settings(
            models={"a": save_model(folder / "model")}, store=f"sqlite:///{folder / 'j.db'}", keys=keys, decoders=1,
            limits=Limits(upload=2**20),
        )  # fmt: skip
        with running(settings) as address:
            theirs = {"Authorization": f"Bearer {victim}"}
            secret = httpx.post(f"{address}/v1/reports", files=images(png(9)), headers=theirs, timeout=PATIENCE).json()
            whole = requests(caller, secret["id"])
            for number in range(first, first + count):
                chosen = whole[random.Random(number).randrange(len(whole))]
                answer = exchange(address, damaged(chosen, number))
                status = int(answer[9:12]) if answer[:7] == b"HTTP/1." and answer[9:12].isdigit() else 0
                outcome.answers[status] += 1
                if status >= 500:
                    outcome.faults.append(f"{number}: answered {status}")
                # the caller's own requests name the study; nobody but its owner is told anything of it
                if secret["created"].encode() in answer or (status == 200 and secret["id"].encode() in answer):
                    outcome.faults.append(f"{number}: another's study was answered")
            again = httpx.get(f"{address}/v1/reports/{secret['id']}", headers=theirs, timeout=PATIENCE)
            if again.json() != secret:
                outcome.faults.append("the victim's study has changed")
            whole_again = exchange(address, whole[0])
            if b" 200 " not in whole_again[:16]:
                outcome.faults.append("a sound request is not answered any more")
    return outcome


def damaged(request: bytes, number: int) -> bytes:
    """Damage anywhere; of every second request with a body only there, with its length set right again."""
    head, end, body = request.partition(b"\r\n\r\n")
    if number % 2 or len(body) < 16:
        return mutated(request, number)
    body = mutated(body, number)
    return re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(body), head) + end + body


def exchange(address: str, request: bytes) -> bytes:
    """Send bytes and read the answer; after `SILENCE` seconds without any, tell that there are no more bytes."""
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as connection:
        answer, ended = b"", False
        try:
            connection.settimeout(SILENCE)
            connection.sendall(request)
            while True:
                try:
                    part = connection.recv(2**16)
                except TimeoutError:
                    if ended:
                        raise
                    ended = True  # the service waits for more of the request
                    connection.settimeout(PATIENCE)
                    connection.shutdown(socket.SHUT_WR)
                    continue
                if not part:
                    return answer
                answer += part
        except ConnectionError:
            return answer


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.serving.fuzz_requests", description="Send damaged requests.")
    parser.add_argument("--count", type=int, default=2000, help="requests (2000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (0)")
    chosen = parser.parse_args()
    outcome = fuzz(chosen.count, chosen.first)
    for status, times in sorted(outcome.answers.items()):
        print(f"{times:7} {status or 'hung up'}")  # noqa: T201
    print(*outcome.faults, f"{len(outcome.faults)} faults", sep="\n")  # noqa: T201
    return int(bool(outcome.faults))


if __name__ == "__main__":
    sys.exit(main())
