"""The node and its reports against real counterparts: Orthanc, and the tools of dcmtk."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from tests.interop.studies import STUDY, TEXT, draft, image
from tests.serving.conftest import objects_of
from tests.serving.orthanc import STORESCU, Orthanc, needs_dcmtk, needs_orthanc, running_orthanc
from tests.serving.test_dicom import node

from crossray.interop.source import read_sources
from crossray.interop.sr import dicom_bytes, structured_report
from crossray.serving.delivery import Delivery, destination
from crossray.serving.dicom import DicomNode, NodeSettings
from crossray.serving.dicomweb import Archive, fetch_study
from crossray.serving.journal import Journal


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


def storescu(running: DicomNode, *files: Path, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [
        STORESCU,
        "-aec",
        "CROSSRAY",
        "-aet",
        "WARD",
        *options,
        "127.0.0.1",
        str(running.port),
        *map(str, files),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def report_all(journal: Journal) -> None:
    for entry in journal.claim(9):
        assert journal.complete(entry, TEXT)


@needs_dcmtk
def test_echoscu(journal: Journal) -> None:
    with node(journal) as running:
        command = ["echoscu", "-aec", "CROSSRAY", "127.0.0.1", str(running.port)]
        subprocess.run(command, check=True, timeout=60)


@needs_dcmtk
@needs_orthanc
@pytest.mark.parametrize("by", ["c-store", "stow-rs"])
def test_storescu_sends_a_study_and_orthanc_gets_its_report(
    journal: Journal, archive: Orthanc, tmp_path: Path, by: str
) -> None:
    study = f"{STUDY}.{1 if by == 'c-store' else 2}"
    files = [tmp_path / "1.dcm", tmp_path / "2.dcm"]
    for number, file in enumerate(files, start=1):
        file.write_bytes(image(number, StudyInstanceUID=study))
        archive.upload(file.read_bytes())
    known = len(archive.reports())
    with node(journal) as running:
        assert storescu(running, *files).returncode == 0
    assert len(journal.release(0)) == 1
    report_all(journal)
    receiver = destination(f"ORTHANC@127.0.0.1:{archive.dicom}" if by == "c-store" else f"{archive.root}/dicom-web")
    assert Delivery(journal, receiver, objects_of).send_all() == 1

    found = archive.wait_for_reports(known + 1)
    (content,) = (one for one in found if study.encode() in one)
    sr = tmp_path / "sr.dcm"
    sr.write_bytes(content)
    printed = subprocess.run(["dsrdump", "+Pl", sr], capture_output=True, text=True, check=True).stdout
    assert "Drawn^Study (O, 1970-01-01, #P-1)" in printed and "UNVERIFIED" in printed
    assert "The heart is enlarged." in printed
    # the archive files it beside the images, in the patient's one study
    (patient,) = {entry["PatientMainDicomTags"]["PatientID"] for entry in archive.get("/studies?expand")}
    (filed,) = (
        entry for entry in archive.get("/studies?expand") if entry["MainDicomTags"]["StudyInstanceUID"] == study
    )
    assert patient == "P-1" and len(filed["Series"]) == 2


@needs_dcmtk
@needs_orthanc
def test_sent_twice_the_archive_holds_it_once(archive: Orthanc) -> None:
    content = dicom_bytes(structured_report(draft(), read_sources([("a", image(1, StudyInstanceUID="1.2.9"))])))
    known = len(archive.reports())
    for _ in range(2):
        destination(f"ORTHANC@127.0.0.1:{archive.dicom}").send(content)
        destination(f"{archive.root}/dicom-web").send(content)
    assert len(archive.reports()) == known + 1


@needs_dcmtk
@pytest.mark.parametrize("option", ["-xi", "-xe", "-xs", "-xv", "-xr"])
def test_storescu_sends_what_prepare_reads(journal: Journal, tmp_path: Path, option: str) -> None:
    """Implicit and explicit, lossless JPEG, JPEG 2000, run lengths; compressed by dcmtk or pydicom."""
    file = tmp_path / "1.dcm"
    file.write_bytes(image(1))
    if option == "-xs":
        subprocess.run(["dcmcjpeg", file, file], check=True, capture_output=True)
    elif option == "-xr":
        subprocess.run(["dcmcrle", file, file], check=True, capture_output=True)
    elif option == "-xv":
        dataset = dcmread(file)
        dataset.compress("1.2.840.10008.1.2.4.90", encoding_plugin="pylibjpeg")
        dataset.save_as(file)
    with node(journal) as running:
        assert storescu(running, file, options=(option,)).returncode == 0
    journal.release(0)
    (entry,) = journal.claim()
    (received,) = journal.files(entry.id)
    sent = dcmread(file)
    place = tmp_path / "received.dcm"
    place.write_bytes(received.content)
    assert (dcmread(place).pixel_array == sent.pixel_array).all()


@needs_dcmtk
def test_storescu_is_told_of_back_pressure(journal: Journal, tmp_path: Path) -> None:
    file = tmp_path / "1.dcm"
    file.write_bytes(image(1))
    with node(journal, most_studies=0) as running:
        sent = storescu(running, file, options=("-v",))
    assert "Out of resources" in (sent.stdout + sent.stderr).replace("OutOfResources", "Out of resources")
    assert journal.counts() == {}


@needs_orthanc
def test_orthanc_sends_a_study_by_itself(journal: Journal, archive: Orthanc) -> None:
    """The way of a hospital: the archive forwards what it gets to a node that it knows."""
    import httpx

    archive.upload(image(1, StudyInstanceUID="1.2.77"))
    with node(journal) as running:
        modality = {"AET": "CROSSRAY", "Host": "127.0.0.1", "Port": running.port}
        httpx.put(f"{archive.root}/modalities/crossray", json=modality).raise_for_status()
        (study,) = (
            entry["ID"]
            for entry in archive.get("/studies?expand")
            if entry["MainDicomTags"]["StudyInstanceUID"] == "1.2.77"
        )
        httpx.post(f"{archive.root}/modalities/crossray/store", json=[study], timeout=60).raise_for_status()
    assert len(journal.release(0)) == 1


@needs_orthanc
def test_a_study_of_orthancs_dicomweb_is_fetched(archive: Orthanc) -> None:
    for number in (1, 2):
        archive.upload(image(number, StudyInstanceUID="1.2.88", SOPInstanceUID=f"1.2.88.{number}"))
    web = Archive(f"{archive.root}/dicom-web")
    files = fetch_study(f"{web.root}/studies/1.2.88", [web])
    assert {file.name for file in files} == {"1.2.88.1", "1.2.88.2"}
    assert {
        source.text("StudyInstanceUID") for source in read_sources((file.name, file.content) for file in files)
    } == {"1.2.88"}


def test_the_settings_name_defaults_of_the_documentation() -> None:
    settings = NodeSettings()
    assert (settings.title, settings.port) == ("CROSSRAY", 11112)
