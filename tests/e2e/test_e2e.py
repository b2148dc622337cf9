"""The whole: an archive, the service with a trained model, a browser. `make e2e` runs it alone.

A drawn study is sent by storescu. Its report arrives in Orthanc as a structured report, the study is reported again by
its DICOMweb address as a FHIR bundle, and a person goes through it on the page and takes it along.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi")

import httpx
from fhir.resources.R4B.bundle import Bundle
from pydicom import dcmread
from tests.browser.conftest import launch
from tests.interop.studies import image
from tests.serving.orthanc import STORESCU, Orthanc, free_port, needs_dcmtk, needs_orthanc, running_orthanc

from crossray.cli import main
from crossray.data.store import Dataset

#: A small encoder and decoder, trained for one epoch.
SMALL = [
    "--model.backbone.name", "random:resnet_tiny", "--model.layers", "1", "--model.width", "32", "--model.heads", "2",
    "--model.feedforward", "32", "--data.image.size", "64", "--data.image.resize", "64", "--data.batch_size", "8",
    "--trainer.threads", "1", "--trainer.max_epochs", "1",
]  # fmt: skip

STUDY = "1.2.826.0.1.3680043.10.7"


@dataclass
class Service:
    """`crossray serve` in a process of its own."""

    http: int
    dicom: int
    process: "subprocess.Popen[bytes]"

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.http}"


@contextmanager
def running_service(folder: Path, model: Path, archive: Orthanc) -> Iterator[Service]:
    http, dicom = free_port(), free_port()
    command = [
        sys.executable, "-m", "crossray", "serve", "--model", f"tiny={model}", "--port", str(http),
        "--store", f"sqlite:///{folder / 'journal.db'}", "--decoders", "1", "--dicom-port", str(dicom),
        "--quiet-seconds", "1", "--send-to", f"ORTHANC@127.0.0.1:{archive.dicom}",
        "--dicomweb", f"{archive.root}/dicom-web", "--attention-overlay",
    ]  # fmt: skip
    with (folder / "service.log").open("w") as log:
        service = Service(http, dicom, subprocess.Popen(command, stdout=log, stderr=log))
        try:
            end = time.monotonic() + 90
            while not _ready(service):
                said = (folder / "service.log").read_text()
                assert service.process.poll() is None and time.monotonic() < end, said
                time.sleep(0.2)
            yield service
        finally:
            if service.process.poll() is None:
                service.process.kill()
                service.process.wait()


def _ready(service: Service) -> bool:
    try:
        return httpx.get(f"{service.root}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def drawn_study(data: Path, folder: Path) -> list[Path]:
    """A frontal and a lateral view of a drawn study as DICOM files."""
    dataset = Dataset.open(data)
    row = next(row for row in range(dataset.studies) if len(dataset.views(row)) > 1)
    files = []
    for number, (view, position) in enumerate(zip(dataset.views(row), ("PA", "LL"), strict=False), start=1):
        pixels = np.asarray(dataset.image(view))
        fields = {"StudyInstanceUID": STUDY, "SOPInstanceUID": f"{STUDY}.1.{number}", "ViewPosition": position}
        size = {"Rows": pixels.shape[0], "Columns": pixels.shape[1], "PixelData": pixels.tobytes()}
        files.append(folder / f"{number}.dcm")
        files[-1].write_bytes(image(number, **fields, **size))
    return files


def read_and_take(page: Any, service: Service, files: Sequence[Path]) -> dict[str, bytes]:
    """A person reads the study on the page, rewrites the first sentence, and takes the draft along in each format."""
    page.goto(service.root)
    page.wait_for_selector("#model option", state="attached")
    page.set_input_files("#files", [str(file) for file in files])
    page.wait_for_selector(".sentence", timeout=60_000)
    assert "Not a medical device" in page.locator("header").inner_text()
    page.keyboard.press("e")
    page.keyboard.press("Control+A")
    page.keyboard.type("Large left pneumothorax.")
    page.keyboard.press("Enter")
    taken = {}
    for kind in ("text", "fhir", "sr"):
        with page.expect_download() as download:
            page.locator(f"[data-format={kind}]").click()
        taken[kind] = Path(download.value.path()).read_bytes()
    return taken


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "data"
    main(["prepare", "phantom", "--out", str(out), "--studies", "40", "--size", "64", "--seed", "3"])
    return out


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    main(["train", "baseline/phantom", "--data", str(data), "--out", str(out), *SMALL])
    return out


@pytest.mark.slow
@pytest.mark.browser
@needs_orthanc
@needs_dcmtk
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium: apt-get install chromium")
def test_a_study_from_the_modality_to_the_readers_draft(data: Path, model: Path, tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api")
    files = drawn_study(data, tmp_path)
    with running_orthanc(tmp_path) as archive, running_service(tmp_path, model, archive) as service:
        for file in files:
            archive.upload(file.read_bytes())
        send = [STORESCU, "-aec", "CROSSRAY", "127.0.0.1", str(service.dicom), *map(str, files)]
        subprocess.run(send, check=True, timeout=60)

        (content,) = archive.wait_for_reports(1, seconds=120)
        (tmp_path / "sr.dcm").write_bytes(content)
        printed = subprocess.run(["dsrdump", "+Pl", tmp_path / "sr.dcm"], capture_output=True, text=True, check=True)
        report = dcmread(BytesIO(content))
        assert "UNVERIFIED" in printed.stdout and report.StudyInstanceUID == STUDY
        _wait_for_overlay(archive, tmp_path)

        asked = {"study_url": f"{archive.root}/dicom-web/studies/{STUDY}"}
        answer = httpx.post(f"{service.root}/v1/reports?format=fhir", json=asked, timeout=60)
        assert answer.status_code == 200, answer.text
        bundle = answer.json()
        Bundle.model_validate(bundle)
        written = bundle["entry"][0]["resource"]["conclusion"]
        assert written in _texts(report)  # the same images, the same report

        with api.sync_playwright() as playwright:
            browser = launch(playwright)
            taken = read_and_take(browser.new_page(), service, files)
            browser.close()
        _check_taken(taken)

        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) in (0, -signal.SIGTERM)
    log = (tmp_path / "service.log").read_text()
    assert not any(word in log for word in ("Drawn", "P-1", STUDY)), log


@pytest.mark.slow
@needs_orthanc
@needs_dcmtk
def test_killed_at_any_moment_each_study_is_reported_once(data: Path, model: Path, tmp_path: Path) -> None:
    """Received, being reported, being delivered: SIGKILL, and the next start goes on.

    Twice: a study that was begun three times without an end is given up (`journal.MOST_ATTEMPTS`).
    """
    chance = random.Random(16)
    with running_orthanc(tmp_path) as archive:
        for number in range(2):
            file = tmp_path / f"{number}.dcm"
            fields = {"StudyInstanceUID": f"{STUDY}.{number}", "SOPInstanceUID": f"{STUDY}.{number}.1"}
            file.write_bytes(image(number, **fields))
            with running_service(tmp_path, model, archive) as service:
                send = [STORESCU, "-aec", "CROSSRAY", "127.0.0.1", str(service.dicom), str(file)]
                subprocess.run(send, check=True, timeout=60)
                time.sleep(chance.uniform(0, 3))
                service.process.kill()
        with running_service(tmp_path, model, archive):
            archive.wait_for_reports(2, seconds=120)
            time.sleep(2)  # long enough to send one again
            found = [dcmread(BytesIO(content)).StudyInstanceUID for content in archive.reports()]
    assert sorted(found) == [f"{STUDY}.{number}" for number in range(2)]


def _wait_for_overlay(archive: Orthanc, folder: Path) -> None:
    """The attention arrives as a third series of the one study, and dcmtk finds no fault with it."""
    end = time.monotonic() + 60
    while len(archive.get("/studies?expand")[0]["Series"]) < 3:
        assert time.monotonic() < end
        time.sleep(0.1)
    (study,) = archive.get("/studies?expand")
    query = {"Level": "Instance", "Query": {"Modality": "PR"}}
    (name,) = httpx.post(f"{archive.root}/tools/find", json=query).raise_for_status().json()
    (folder / "pr.dcm").write_bytes(httpx.get(f"{archive.root}/instances/{name}/file").content)
    subprocess.run(["dcmpschk", folder / "pr.dcm"], check=True, capture_output=True)
    assert len(study["Series"]) == 3


def _texts(report: Any) -> list[str]:
    below = list(report.get("ContentSequence", []))
    return [str(item.TextValue) for item in below if "TextValue" in item] + [
        text for item in below for text in _texts(item)
    ]


def _check_taken(taken: dict[str, bytes]) -> None:
    edited = "Large left pneumothorax."
    assert edited in taken["text"].decode() and "Not a medical device" in taken["text"].decode()
    bundle = json.loads(taken["fhir"])
    Bundle.model_validate(bundle)
    findings = [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == "Observation"]
    assert any(
        finding["code"]["text"] == "Pneumothorax" and finding["valueCodeableConcept"]["text"] == "Present"
        for finding in findings
    )
    report = dcmread(BytesIO(taken["sr"]))
    assert report.VerificationFlag == "UNVERIFIED"
    assert any(edited in text for text in _texts(report))
