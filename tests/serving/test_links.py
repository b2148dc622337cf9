"""The service with its DICOM node, its way to an archive, and studies by their address."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from fhir.resources.R4B.bundle import Bundle
from pydicom import dcmread, uid
from pynetdicom import AE, build_context, evt
from tests.interop.studies import DX, SERIES, STUDY, image
from tests.serving.test_dicomweb import Handler, multipart

from crossray.cli import main
from crossray.errors import UserError
from crossray.serving.dicomweb import Archive
from crossray.serving.neighbours import check_neighbours
from crossray.serving.settings import Settings


@pytest.fixture
def pacs() -> Iterator[tuple[str, list[Any]]]:
    """Where an archive listens, and what it got."""
    got: list[Any] = []
    entity = AE("PACS")
    for kind in (uid.ComprehensiveSRStorage, uid.GrayscaleSoftcopyPresentationStateStorage):
        entity.add_supported_context(kind)

    def keep(event: evt.Event) -> int:
        got.append(event.dataset)
        return 0

    server: Any = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    yield f"PACS@127.0.0.1:{server.server_address[1]}", got
    server.shutdown()


@pytest.fixture
def archive() -> Iterator[Archive]:
    Handler.status, Handler.kind = 200, 'multipart/related; type="application/dicom"; boundary=b1'
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield Archive(f"http://127.0.0.1:{server.server_port}/dicom-web")
    server.shutdown()
    server.server_close()


def test_a_study_comes_by_dicom_and_its_report_goes_to_the_archive(
    serving: Callable[..., Any], pacs: tuple[str, list[Any]]
) -> None:
    place, got = pacs
    client = serving(dicom_port=0, send_to=place, quiet=0.2, keep=0.0, overlay=True)
    port = client.app.state.node.port
    made = AE("WARD").associate("127.0.0.1", port, [build_context(DX, uid.ExplicitVRLittleEndian)], "CROSSRAY")
    # more views than the model takes: it is given a frontal and a lateral one
    for number, position in enumerate(("AP", "PA", "LL", "LL"), start=1):
        sent = made.send_c_store(dcmread(BytesIO(image(number, ViewPosition=position))))
        assert sent.Status == 0
    made.release()
    end = time.monotonic() + 60
    while len(got) < 2:
        assert time.monotonic() < end, client.app.state.journal.counts()
        time.sleep(0.05)
    report, overlay = got
    assert (report.StudyInstanceUID, str(report.PatientName)) == (STUDY, "Drawn^Study")
    series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    views = client.app.state.shelf.get("a").reporter.model.config.views
    assert views == 2
    read = [f"{SERIES}.1", f"{SERIES}.3"]
    assert [one.ReferencedSOPInstanceUID for one in series.ReferencedSOPSequence] == read
    shown = [one.ReferencedImageSequence[0].ReferencedSOPInstanceUID for one in overlay.GraphicAnnotationSequence]
    assert (overlay.Modality, overlay.StudyInstanceUID, shown) == ("PR", STUDY, read)


def test_a_study_of_dicom_is_nobody_elses(serving: Callable[..., Any]) -> None:
    client = serving(dicom_port=0, quiet=0.0)
    port = client.app.state.node.port
    made = AE("local").associate("127.0.0.1", port, [build_context(DX, uid.ExplicitVRLittleEndian)], "CROSSRAY")
    made.send_c_store(dcmread(BytesIO(image(1))))
    assert len(client.app.state.desk.receiving()) == 1
    made.release()
    end = time.monotonic() + 60
    while not (done := client.app.state.journal.undelivered("dicom")):
        assert time.monotonic() < end, client.app.state.journal.counts()
        time.sleep(0.05)
    assert client.get(f"/v1/reports/{done[0]}").status_code == 404


def test_a_study_is_reported_by_its_address(serving: Callable[..., Any], archive: Archive) -> None:
    client = serving(archives=(archive.root,))
    Handler.body = multipart(image(1), image(2), image(3))
    asked = {"study_url": f"{archive.root}/studies/{STUDY}"}
    answer = client.post("/v1/reports?format=fhir", json=asked)
    assert answer.status_code == 200
    Bundle.model_validate(answer.json())
    assert STUDY in answer.text
    assert client.post("/v1/reports", json=asked).json()["input"]["remarks"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ('{"study_url": "http://127.0.0.1:1/dicom-web/studies/1.2"}', 422, "not in an allowed archive"),
        ('{"study_url": "file:///etc/passwd"}', 422, "not in an allowed archive"),
        ('{"study_url": 1}', 422, "not in an allowed archive"),
        ("[]", 400, "send {"),
        ("nonsense", 400, "send {"),
    ],
)
def test_an_address_that_is_not_fetched(service: Any, body: str, status: int, words: str) -> None:
    answer = service.post("/v1/reports", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status and words in answer.json()["detail"]


def test_a_node_that_others_reach_knows_who_may_send(tmp_path: Path) -> None:
    open_node = Settings(models={"a": tmp_path}, keys=tmp_path / "k.json", dicom_port=104, host="10.0.0.1")
    with pytest.raises(UserError, match="--dicom-callers"):
        check_neighbours(open_node)
    check_neighbours(replace(open_node, dicom_callers=("WARD",)))


def test_reports_are_sent_only_where_they_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sending = Settings(models={"a": tmp_path}, dicom_port=104, send_to="PACS@10.0.0.1:104")
    check_neighbours(sending)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UserError, match="--send-to: needs highdicom"):
        check_neighbours(sending)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dicomweb", "ftp://pacs"], "not a DICOMweb address"),
        (["--dicom-port", "0", "--dicom-ae-title", "far too long for a title"], "not an AE title"),
        (["--send-to", "PACS@host:104"], "also give --dicom-port"),
    ],
)
def test_mistakes(
    arguments: list[str], words: str, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--model", str(model_folder), "--store", f"sqlite:///{tmp_path / 'j.db'}", *arguments])
    assert words in capsys.readouterr().err
