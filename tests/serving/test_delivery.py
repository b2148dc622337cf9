"""Reports of the journal on their way out; the receiver is a list, or a pynetdicom node."""

from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread, uid
from pynetdicom import AE, evt
from sqlalchemy import insert
from tests.interop.studies import draft, image
from tests.serving.conftest import objects_of

from crossray.errors import UserError
from crossray.interop.source import read_sources
from crossray.interop.sr import dicom_bytes, structured_report
from crossray.serving.delivery import Delivery, Peer, Web, destination
from crossray.serving.entries import File
from crossray.serving.journal import Journal
from crossray.serving.tables import studies


class Receiver:
    """Takes reports, or does not."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.refuses = False

    def send(self, content: bytes) -> None:
        if self.refuses:
            raise UserError("not now.")
        self.got.append(content)


def finished(journal: Journal, study: str, text: str = "small pneumothorax .", origin: str = "dicom") -> str:
    content = [File("1", image(1, StudyInstanceUID=study))]
    entry, _ = journal.accept(content, model="m", owner="WARD", origin=origin, claim=True)
    assert journal.complete(entry, text)
    return entry.id


def test_every_report_is_delivered_once(journal: Journal) -> None:
    receiver: Any = Receiver()
    delivery = Delivery(journal, receiver, objects_of)
    for study in ("1.2.1", "1.2.2"):
        finished(journal, study)
    finished(journal, "1.2.3", origin="http")
    assert (delivery.send_all(), delivery.send_all()) == (2, 0)
    made = [dcmread(BytesIO(content)) for content in receiver.got]
    assert [one.StudyInstanceUID for one in made] == ["1.2.1", "1.2.2"]


def test_a_report_that_was_refused_is_sent_again(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("crossray.serving.delivery.time.monotonic", lambda: now[0])
    receiver: Any = Receiver()
    receiver.refuses = True
    delivery = Delivery(journal, receiver, objects_of)
    entry = finished(journal, "1.2.1")
    assert delivery.send_all() == 0
    receiver.refuses = False
    assert delivery.send_all() == 0  # paused
    now[0] = 1.1
    assert delivery.send_all() == 1
    assert {str(note["outcome"]) for note in journal.notes()} == {"failed", "stored"}
    assert {note["study"] for note in journal.notes()} == {entry}


def test_reports_that_nobody_takes_hold_up_no_other(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"id": f"{number:032}", "state": "done", "origin": "dicom", "owner": "WARD", "model": "m", "options": "{}"}
        | {"received": number, "changed": number, "attempts": 1}
        for number in range(150)
    ]
    journal._write(lambda connection: connection.execute(insert(studies), rows))  # their reports are gone
    monkeypatch.setattr(journal, "note", lambda *_: None)
    monkeypatch.setattr("crossray.serving.delivery.time.monotonic", lambda: 0.0)
    receiver: Any = Receiver()
    delivery = Delivery(journal, receiver, objects_of)
    assert delivery.send_all() == 0
    finished(journal, "1.2.1")
    assert delivery.send_all() == 1
    assert len(journal.undelivered("dicom")) == 150


def test_a_report_that_no_object_can_be_made_of_is_given_up(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    receiver: Any = Receiver()
    content = [File("1", image(1)), File("2", image(2, PatientID="P-2"))]
    entry, _ = journal.accept(content, model="m", owner="WARD", origin="dicom", claim=True)
    assert journal.complete(entry, "no effusion .")
    delivery = Delivery(journal, receiver, objects_of)
    assert delivery.send_all() == 0
    assert (journal.undelivered("dicom"), receiver.got) == ([], [])
    found = journal.entry(entry.id)
    assert found is not None
    assert (found.state, found.error) == ("failed", "image 2: PatientID differs from that of image 1; give images of "
                                          "one study")  # fmt: skip
    assert f"report {entry.id}: cannot be delivered: {found.error}" in caplog.text
    (note,) = journal.notes()
    assert (note["outcome"], note["study"]) == ("impossible", entry.id)
    assert "P-2" not in caplog.text


def test_sent_twice_it_is_the_same_object(journal: Journal) -> None:
    """As after a kill between the sending and its note."""
    receiver: Any = Receiver()
    finished(journal, "1.2.1")
    entry = journal.entry(*journal.undelivered("dicom"))
    assert entry is not None
    for _ in range(2):
        Delivery(journal, receiver, objects_of)._send(entry)
    first, second = (dcmread(BytesIO(content)) for content in receiver.got)
    assert first.SOPInstanceUID == second.SOPInstanceUID


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
def test_a_node_gets_it_by_c_store(syntax: uid.UID) -> None:
    got: list[Any] = []
    entity = AE("PACS")
    entity.add_supported_context(uid.ComprehensiveSRStorage, syntax)

    def keep(event: evt.Event) -> int:
        got.append(event.dataset)
        return 0

    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    assert server is not None
    report = structured_report(draft(), read_sources([("a", image(1))]))
    try:
        Peer("PACS", "127.0.0.1", server.server_address[1]).send(dicom_bytes(report))
    finally:
        server.shutdown()
    assert got[0].SOPInstanceUID == report.SOPInstanceUID
    assert str(got[0].PatientName) == "Drawn^Study"


def test_a_node_that_is_not_there_or_refuses() -> None:
    content = dicom_bytes(structured_report(draft(), read_sources([("a", image(1))])))
    with pytest.raises(UserError, match="rejects the association"):
        Peer("PACS", "127.0.0.1", 9).send(content)
    entity = AE("PACS")
    entity.add_supported_context(uid.ComprehensiveSRStorage)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0xA700)])
    assert server is not None
    try:
        with pytest.raises(UserError, match="0xA700"):
            Peer("PACS", "127.0.0.1", server.server_address[1]).send(content)
    finally:
        server.shutdown()


def test_destinations() -> None:
    assert destination("PACS@10.0.0.1:104", "ME") == Peer("PACS", "10.0.0.1", 104, "ME")
    assert destination("A B@[::1]:11112") == Peer("A B", "::1", 11112, "CROSSRAY")
    web = destination("https://pacs/dicom-web/")
    assert isinstance(web, Web) and web.archive.root == "https://pacs/dicom-web"


@pytest.mark.parametrize("text", ["", "PACS", "PACS@host", "PACS@host:0", "PACS@host:99999", "@host:1", "ftp://a/b"])
def test_a_destination_that_is_none(text: str) -> None:
    with pytest.raises(UserError, match="give AE@host:port"):
        destination(text)
