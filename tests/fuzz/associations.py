"""Damaged DICOM associations against the node.

    python -m tests.fuzz.associations [--count 2000] [--first 0]

A whole association that stores an image is recorded; then it is played with damage: to any bytes of it, or to the
image's bytes alone, so that the association stays sound. Ends with code 1 if a thread of the node ends in an error, a
thread stays, memory grows, the node stops to answer, an accepted object cannot be read, or an answer holds something of
another study.
"""

import argparse
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread, uid
from pynetdicom import AE, build_context, evt
from tests.fuzz.mutation import mutated
from tests.fuzz.run import peak_memory
from tests.interop.studies import DX, image

from crossray.interop.source import read_source
from crossray.serving.dicom import DicomNode, NodeSettings
from crossray.serving.entries import File
from crossray.serving.journal import Journal

#: What the study of somebody else is full of.
SECRET = "SECRETPATIENT"

#: Most that memory may grow, in bytes.
GROWTH = 300e6

#: Seconds that a damaged association waits for an answer.
_PATIENCE = 0.5


@dataclass
class Outcome:
    """What became of the associations.

    Attributes:
        answers: how often each kind of answer ended an association.
        stored: objects that were accepted.
        faults: descriptions.
    """

    answers: Counter[str] = field(default_factory=Counter)
    stored: int = 0
    faults: list[str] = field(default_factory=list)


def fuzz_node(count: int, first: int = 0) -> Outcome:
    """Play so many damaged associations; see the head of this file."""
    outcome = Outcome()
    threading.excepthook, before = (
        (lambda error: outcome.faults.append(f"a thread ended: {error.exc_value!r}")),
        (threading.excepthook),
    )
    with tempfile.TemporaryDirectory() as name:
        journal = Journal(f"sqlite:///{Path(name) / 'journal.db'}")
        node = DicomNode(journal, NodeSettings(port=0, timeout=2.0, most_studies=10**6), model="m")
        node.start()
        try:
            session = _recorded(node)
            other = File(
                "9.9", image(1, StudyInstanceUID="9.9", SOPInstanceUID="9.9", PatientName=SECRET, PatientID=SECRET)
            )
            journal.collect(SECRET, other, model="m", owner=SECRET, origin="dicom")
            threads, memory = threading.active_count(), peak_memory()
            for seed in range(first, first + count):
                answer = _play(node.port, _damaged(session, seed))
                outcome.answers[_kind(answer)] += 1
                if SECRET.encode() in answer:
                    outcome.faults.append(f"{seed}: an answer holds another study")
                if seed % 100 == 99 and not _echoes(node):
                    outcome.faults.append(f"{seed}: the node does not answer any more")
                    break
            if not _echoes(node):
                outcome.faults.append("the node does not answer at the end")
            _settle(threads)
            if threading.active_count() > threads:
                outcome.faults.append(f"{threading.active_count() - threads} threads stay")
            if peak_memory() - memory > GROWTH:
                outcome.faults.append(f"memory grew by {(peak_memory() - memory) / 1e6:.0f} MB")
            _check_journal(journal, outcome)
        finally:
            node.stop()
            journal.close()
            threading.excepthook = before
    return outcome


def _recorded(node: DicomNode) -> list[bytes]:
    """The PDUs of a sender that stores an image: request, data, release."""
    sent: list[bytes] = []
    contexts = [build_context("1.2.840.10008.1.1"), build_context(DX, uid.ExplicitVRLittleEndian)]

    def keep(event: evt.Event) -> None:
        sent.append(bytes(event.data))

    made = AE("WARD").associate(
        "127.0.0.1", node.port, contexts, "CROSSRAY", evt_handlers=[(evt.EVT_DATA_SENT, keep)], max_pdu=4096
    )
    assert made.send_c_store(dcmread(BytesIO(image(1)))).Status == 0
    made.release()
    return sent


def _damaged(session: list[bytes], seed: int) -> list[bytes]:
    chance = random.Random(seed)
    pdus = list(session)
    data = [place for place, pdu in enumerate(pdus) if pdu[0] == 4]
    if chance.random() < 0.5:  # inside the values alone: the header of PDU and PDV, 12 bytes, stays
        place = chance.choice(data)
        head, values = pdus[place][:12], pdus[place][12:]
        changed = mutated(values, seed) if len(values) >= 16 else values
        pdus[place] = head + changed[: len(values)].ljust(len(values), b"\0")
        return pdus
    match chance.randrange(6):
        case 0:
            pdus.pop(chance.randrange(len(pdus)))
        case 1:
            pdus.insert(chance.randrange(len(pdus)), chance.choice(pdus))
        case 2:
            del pdus[chance.randrange(len(pdus)) :]
        case _:
            place = chance.randrange(len(pdus))
            pdus[place] = mutated(pdus[place].ljust(16, b"\0"), seed)
    return pdus


def _play(port: int, pdus: list[bytes]) -> bytes:
    """Send the first PDU, wait for its answer, send the rest; all that the node answers."""
    answer = b""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as peer:
        peer.sendall(b"".join(pdus[:1]))
        with suppress(TimeoutError):
            answer += peer.recv(65536)
        if answer[:1] == b"\x02":
            peer.sendall(b"".join(pdus[1:]))
        with suppress(TimeoutError):
            while piece := peer.recv(65536):
                answer += piece
    return answer


def _kind(answer: bytes) -> str:
    """The last PDU of an answer."""
    names = {2: "accepted", 3: "rejected", 4: "answered", 6: "released", 7: "aborted"}
    last, place = "nothing", 0
    while place + 6 <= len(answer):
        last = names.get(answer[place], "unknown")
        place += 6 + int.from_bytes(answer[place + 2 : place + 6], "big")
    return last


def _echoes(node: DicomNode) -> bool:
    end = time.monotonic() + 20
    while time.monotonic() < end:  # associations that are ending count among those that are allowed at once
        made = AE("WARD").associate("127.0.0.1", node.port, [build_context("1.2.840.10008.1.1")], "CROSSRAY")
        if made.is_established:
            status: Any = made.send_c_echo()
            made.release()
            return bool(status) and status.Status == 0
        time.sleep(0.2)
    return False


def _settle(threads: int) -> None:
    end = time.monotonic() + 20
    while threading.active_count() > threads and time.monotonic() < end:
        time.sleep(0.1)


def _check_journal(journal: Journal, outcome: Outcome) -> None:
    journal.release(0)
    for entry in journal.claim(10**6):
        for file in journal.files(entry.id):
            outcome.stored += 1
            if read_source(file.content).text("SOPInstanceUID") != file.name:
                outcome.faults.append(f"an object is stored under another's name: {entry.id}")
            if entry.owner != SECRET and SECRET.encode() in file.content:
                outcome.faults.append(f"a study holds something of another one: {entry.id}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.associations", description="Damaged associations.")
    parser.add_argument("--count", type=int, default=2000, help="number of associations (2000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (0)")
    arguments = parser.parse_args()
    outcome = fuzz_node(arguments.count, arguments.first)
    print(dict(outcome.answers), f"{outcome.stored} objects stored, {len(outcome.faults)} faults")  # noqa: T201
    print(*outcome.faults[:20], sep="\n", end="\n" if outcome.faults else "")  # noqa: T201
    return int(bool(outcome.faults))


if __name__ == "__main__":
    sys.exit(main())
