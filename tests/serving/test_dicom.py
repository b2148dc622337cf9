"""The DICOM node against pynetdicom's own sender, and against peers that mean no good."""

import logging
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread, uid
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from tests.interop.studies import DX, SERIES, STUDY, image
from tests.serving.conftest import wait

from crossray.data.images.dicom_pixels import TRANSFER_SYNTAXES
from crossray.errors import UserError
from crossray.serving.dicom import DicomNode, NodeSettings
from crossray.serving.journal import Journal


@contextmanager
def node(journal: Journal, **fields: Any) -> Iterator[DicomNode]:
    settings = NodeSettings(**{"port": 0, "timeout": 5.0, **fields})
    running = DicomNode(journal, settings, model="m")
    running.start()
    try:
        yield running
    finally:
        running.stop()


@contextmanager
def association(running: DicomNode, called: str = "CROSSRAY", calling: str = "WARD") -> Iterator[Association]:
    entity = AE(calling)
    entity.add_requested_context("1.2.840.10008.1.1")
    for syntax in (uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless):
        entity.requested_contexts = [*entity.requested_contexts, build_context(DX, syntax)]
    made = entity.associate("127.0.0.1", running.port, ae_title=called)
    try:
        yield made
    finally:
        if made.is_established:
            made.release()


def store(made: Association, content: bytes) -> int | None:
    status = made.send_c_store(dcmread(BytesIO(content)))
    return int(status.Status) if "Status" in status else None


def test_echo_and_store(journal: Journal) -> None:
    with node(journal) as running, association(running) as made:
        assert made.send_c_echo().Status == 0
        assert store(made, image(1)) == 0
    assert journal.counts() == {"collecting": 1}
    journal.release(0)
    (entry,) = journal.claim()
    assert (entry.origin, entry.owner, entry.model) == ("dicom", "dicom:WARD", "m")
    (file,) = journal.files(entry.id)
    assert file.name == f"{SERIES}.1"
    assert dcmread(BytesIO(file.content)).PixelData == dcmread(BytesIO(image(1))).PixelData


def test_views_of_a_study_become_one_entry_and_a_repeated_one_is_one(journal: Journal) -> None:
    with node(journal) as running, association(running) as made:
        for number in (1, 2, 1):
            assert store(made, image(number)) == 0
        assert store(made, image(9, StudyInstanceUID="1.2.3", SOPInstanceUID="1.2.3.9")) == 0
    assert len(journal.release(0)) == 2
    assert sorted(len(journal.files(entry.id)) for entry in journal.claim(9)) == [1, 2]


def test_a_study_is_held_while_its_sender_is_connected(journal: Journal) -> None:
    with node(journal) as running:
        with association(running) as made:
            assert store(made, image(1)) == 0
            (study,) = running.receiving()
            assert journal.release(0, running.receiving()) == []
            assert store(made, image(9, StudyInstanceUID="1.2.3", SOPInstanceUID="1.2.3.9")) == 0
            (other,) = running.receiving()
            assert journal.release(0, running.receiving()) == [study]  # the sender went on
            assert made.send_c_echo().Status == 0
            assert running.receiving() == []
            assert store(made, image(8, StudyInstanceUID="1.2.3", SOPInstanceUID="1.2.3.8")) == 0
            assert running.receiving() == [other]
        wait(lambda: not running.receiving())  # its thread ends
        assert journal.release(0) == [other]


def test_every_transfer_syntax_that_is_read_is_accepted(journal: Journal) -> None:
    with node(journal) as running:
        entity = AE("WARD")
        contexts = [build_context(DX, syntax) for syntax in TRANSFER_SYNTAXES]
        made = entity.associate("127.0.0.1", running.port, contexts, "CROSSRAY")
        accepted = {context.transfer_syntax[0] for context in made.accepted_contexts}
        made.release()
    assert accepted == set(TRANSFER_SYNTAXES)


def test_back_pressure(journal: Journal) -> None:
    with node(journal, most_studies=1) as running, association(running) as made:
        assert store(made, image(1)) == 0
        assert store(made, image(1, StudyInstanceUID="1.2.3")) == 0xA700
        assert store(made, image(2)) == 0  # of the study that has been begun
        journal.delete(journal.release(0)[0])
        assert store(made, image(1, StudyInstanceUID="1.2.3")) == 0


def test_a_study_has_the_limits_of_an_upload(journal: Journal) -> None:
    with node(journal, most_files=2) as running, association(running) as made:
        assert [store(made, image(number)) for number in (1, 2, 3, 2)] == [0, 0, 0xC001, 0]
        assert store(made, image(3)) == 0xC001
        assert journal.release(0, running.receiving()) == []  # the sender is still sending this study
        assert store(made, image(1, StudyInstanceUID="1.2.3", SOPInstanceUID="1.2.3.1")) == 0
    size = sum(len(file.content) for file in journal.files(journal.release(0)[0]))
    with node(journal, most_bytes=size) as running, association(running) as made:
        assert [store(made, image(number)) for number in (1, 2, 3, 2)] == [0, 0, 0xC001, 0]


def test_a_refused_study_does_not_hold_the_one_before(journal: Journal) -> None:
    with node(journal, most_studies=1) as running, association(running) as made:
        assert store(made, image(1)) == 0
        other = image(9, StudyInstanceUID="1.2.3", SOPInstanceUID="1.2.3.9")
        assert store(made, other) == 0xA700
        (study,) = journal.release(0, running.receiving())  # although its sender is connected, and tries again
        journal.delete(study)
        assert store(made, other) == 0


def test_a_broken_journal_is_told_to_the_sender(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise OSError("disk full")

    for name in ("collect", "note"):
        monkeypatch.setattr(journal, name, fail)
    with node(journal) as running, association(running) as made:
        assert store(made, image(1)) == 0xA700


def test_what_cannot_be_reported_is_refused(journal: Journal) -> None:
    with node(journal) as running, association(running) as made:
        dataset = dcmread(BytesIO(image(1)))
        del dataset.StudyInstanceUID
        assert made.send_c_store(dataset).Status == 0xC000
    assert journal.counts() == {}


@pytest.mark.parametrize(
    ("called", "calling", "callers"), [("OTHER", "WARD", ()), ("CROSSRAY", "STRANGER", ("WARD", "PACS"))]
)
def test_titles(journal: Journal, called: str, calling: str, callers: tuple[str, ...]) -> None:
    with node(journal, callers=callers) as running:
        with association(running, called, calling) as made:
            assert made.is_rejected
        with association(running) as made:
            assert made.is_established


def test_associations_are_limited(journal: Journal) -> None:
    with node(journal, most_associations=1) as running, association(running) as first:
        assert first.is_established
        with association(running) as second:
            assert not second.is_established


def test_a_longer_object_than_allowed_ends_the_association(journal: Journal) -> None:
    with node(journal, most_bytes=1000) as running:
        with association(running) as made:
            long = dcmread(BytesIO(image(1)))
            long.PixelData = b"\0" * 4_000_000
            assert "Status" not in made.send_c_store(long)
        with association(running) as made:  # and nobody else's
            assert made.send_c_echo().Status == 0
    assert journal.counts() == {}


def test_a_pdu_that_claims_four_gigabytes_is_not_read(journal: Journal) -> None:
    with node(journal) as running:
        with socket.create_connection(("127.0.0.1", running.port), timeout=10) as peer:
            peer.sendall(struct.pack(">BBL", 1, 0, 2**32 - 1) + b"\0" * 65536)
            with suppress(ConnectionResetError):
                assert peer.recv(1024) == b""
        with association(running) as made:
            assert made.send_c_echo().Status == 0


def test_nothing_of_the_patient_is_logged(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), node(journal, most_studies=1) as running, association(running) as made:
        store(made, image(1))
        store(made, image(2, StudyInstanceUID="1.2.3"))
        dataset = dcmread(BytesIO(image(1)))
        del dataset.StudyInstanceUID
        made.send_c_store(dataset)
    assert not any(word in caplog.text for word in ("Drawn", "P-1", STUDY, "A-7"))
    notes = [str(note) for note in journal.notes()]
    assert notes and not any(word in note for word in ("Drawn", "P-1", STUDY) for note in notes)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_tls(journal: Journal, tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made_for = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        *made_for,
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    subprocess.run(command, check=True, capture_output=True)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate, key)
    running = DicomNode(journal, NodeSettings(port=0, timeout=5.0), model="m", tls=server)
    running.start()
    try:
        entity = AE("WARD")
        client = ssl.create_default_context(cafile=str(certificate))
        contexts = [build_context(DX, uid.ExplicitVRLittleEndian)]
        made = entity.associate("127.0.0.1", running.port, contexts, "CROSSRAY", tls_args=(client, "localhost"))
        assert store(made, image(1)) == 0
        made.release()
        entity.acse_timeout = entity.network_timeout = 1
        assert not entity.associate("127.0.0.1", running.port, contexts, "CROSSRAY").is_established
    finally:
        running.stop()


def test_settings_are_checked(journal: Journal) -> None:
    with pytest.raises(UserError, match="not an AE title"):
        NodeSettings(title="far too long for a title")
    with node(journal) as running, pytest.raises(UserError, match="cannot listen"):
        DicomNode(journal, NodeSettings(port=running.port), model="m").start()
