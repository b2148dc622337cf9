"""The whole way, with real counterparts: an archive sends a drawn study, and a person reads its draft.

`make e2e` runs it. Orthanc, dcmtk and Chromium are Debian's; what is missing is left out, saying so.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.browser.conftest import launch
from tests.data.images.dicom_files import dicom
from tests.serving.conftest import save_model
from tests.serving.orthanc import free_port, needs_dcmtk, needs_orthanc, running_orthanc

from crossray.phantom.source import phantom_studies

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.xdist_group("browser"), needs_orthanc, needs_dcmtk]

STUDY = "1.2.826.0.1.3680043.10.7"
DX = "1.2.840.10008.5.1.4.1.1.1.1"


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A drawn study as DICOM files."""
    folder = tmp_path_factory.mktemp("study")
    drawn = next(study for study in phantom_studies(9, 3, "easy") if len(study.images) == 2)
    paths = []
    for number, view in enumerate(drawn.images, start=1):
        fields = {
            "SOPClassUID": DX, "StudyInstanceUID": STUDY, "SeriesInstanceUID": f"{STUDY}.1",
            "SOPInstanceUID": f"{STUDY}.1.{number}", "PatientName": "Drawn^Study", "PatientID": "P-7",
            "ViewPosition": ("PA", "LL")[number - 1], "AccessionNumber": "A-7", "StudyDate": "20260102",
        }  # fmt: skip
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(dicom(np.asarray(view.read(256).pixels), **fields))
    return paths


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str, int]]:
    """An archive, the address of a service that sends it reports, and the port of its node."""
    folder = tmp_path_factory.mktemp("place")
    port, log = free_port(), folder / "log"
    with running_orthanc(folder) as archive:
        command = [sys.executable, "-m", "crossray", "serve", "--model", f"a={save_model(folder / 'model')}"]
        command += ["--port", "0", "--store", f"sqlite:///{folder / 'j.db'}", "--dicom-port", str(port)]
        command += ["--send-to", f"ORTHANC@127.0.0.1:{archive.dicom}", "--quiet-seconds", "1"]
        command += ["--dicomweb", f"{archive.root}/dicom-web"]
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            while "Uvicorn running on " not in (text := log.read_text()):
                assert process.poll() is None, text
                time.sleep(0.1)
            yield archive, text.split("Uvicorn running on ")[1].split()[0], port
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) in (0, -signal.SIGTERM)
        text = log.read_text()
        assert "Drawn" not in text and "P-7" not in text and STUDY not in text


def test_a_study_that_was_sent_gets_its_report_in_the_archive(
    place: tuple[Any, str, int], views: list[Path], tmp_path: Path
) -> None:
    archive, _, port = place
    for view in views:
        archive.upload(view.read_bytes())
    send = ["storescu", "-aet", "WARD", "-aec", "CROSSRAY", "127.0.0.1", str(port), *map(str, views)]
    subprocess.run(send, check=True, timeout=60)
    (content,) = archive.wait_for_reports(1)
    (tmp_path / "sr.dcm").write_bytes(content)
    printed = subprocess.run(["dsrdump", "+Pl", tmp_path / "sr.dcm"], capture_output=True, text=True, check=True).stdout
    assert "#P-7" in printed and "UNVERIFIED" in printed and "not a medical device" in printed
    (study,) = archive.get("/studies?expand")  # beside the images, in the patient's one study
    assert len(study["Series"]) == 2


def test_a_study_of_the_archive_is_reported_as_fhir(place: tuple[Any, str, int], views: list[Path]) -> None:
    archive, address, _ = place
    for view in views:
        archive.upload(view.read_bytes())
    asked = {"study_url": f"{archive.root}/dicom-web/studies/{STUDY}"}
    answer = httpx.post(f"{address}/v1/reports?format=fhir", json=asked, timeout=60)
    assert answer.status_code == 200, answer.text
    bundle = answer.json()
    kinds = [entry["resource"]["resourceType"] for entry in bundle["entry"]]
    assert kinds[0] == "DiagnosticReport" and "Device" in kinds and "Provenance" in kinds
    assert bundle["entry"][0]["resource"]["status"] == "preliminary"
    assert STUDY in json.dumps(bundle)
    elsewhere = httpx.post(f"{address}/v1/reports", json={"study_url": "http://127.0.0.1:1/studies/1.2"}, timeout=60)
    assert elsewhere.status_code == 422


def test_a_person_reads_edits_and_takes_the_draft_along(
    place: tuple[Any, str, int], views: list[Path], tmp_path: Path
) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    _, address, _ = place
    with api.sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.goto(address)
        page.wait_for_selector("#model option", state="attached")
        page.set_input_files("#files", list(map(str, views)))
        page.wait_for_selector(".sentence")
        assert page.locator("figcaption").all_inner_texts() == ["View 1, frontal (PA)", "View 2, lateral"]
        page.keyboard.press("e")
        page.keyboard.press("Control+A")
        page.keyboard.type("There is no pleural effusion.")
        page.keyboard.press("Enter")
        if shots := os.environ.get("CROSSRAY_SCREENSHOTS"):
            page.screenshot(path=str(Path(shots) / "page.png"))
        saved = {}
        for kind in ("text", "fhir", "sr"):
            with page.expect_download() as download:
                page.locator(f"[data-format={kind}]").click()
            saved[kind] = tmp_path / kind
            download.value.save_as(saved[kind])
        browser.close()
    assert saved["text"].read_text().startswith("There is no pleural effusion.")
    assert (
        "There is no pleural effusion." in json.loads(saved["fhir"].read_text())["entry"][0]["resource"]["conclusion"]
    )
    printed = subprocess.run(["dsrdump", "+Pl", saved["sr"]], capture_output=True, text=True, check=True).stdout
    assert "There is no pleural effusion." in printed and "UNVERIFIED" in printed
