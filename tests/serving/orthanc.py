"""Orthanc and dcmtk as counterparts; tests are skipped, saying so, where the programs are missing."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

PROGRAM = shutil.which("Orthanc") or shutil.which("orthanc")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

needs_orthanc = pytest.mark.skipif(
    PROGRAM is None or not PLUGIN.exists(), reason="Orthanc is not installed (Debian: orthanc, orthanc-dicomweb)"
)
#: dcmtk's storescu; pynetdicom installs another program of that name into the virtual environment.
STORESCU = next(
    (
        found
        for folder in os.get_exec_path()
        if Path(folder) != Path(sys.executable).parent and (found := shutil.which("storescu", path=folder))
    ),
    "",
)
needs_dcmtk = pytest.mark.skipif(not STORESCU or shutil.which("dsrdump") is None, reason="dcmtk is not installed")


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@dataclass
class Orthanc:
    """A running archive of the title ORTHANC."""

    http: int
    dicom: int

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    def get(self, path: str) -> Any:
        return httpx.get(f"{self.root}{path}").raise_for_status().json()

    def upload(self, content: bytes) -> None:
        httpx.post(f"{self.root}/instances", content=content).raise_for_status()

    def reports(self) -> list[bytes]:
        """Structured reports that it holds."""
        found = httpx.post(f"{self.root}/tools/find", json={"Level": "Instance", "Query": {"Modality": "SR"}})
        return [httpx.get(f"{self.root}/instances/{name}/file").content for name in found.raise_for_status().json()]

    def wait_for_reports(self, count: int, seconds: float = 60) -> list[bytes]:
        """Its structured reports, as soon as there are so many."""
        end = time.monotonic() + seconds
        while len(found := self.reports()) < count:
            assert time.monotonic() < end, f"{len(found)} of {count} reports have come"
            time.sleep(0.1)
        return found


@contextmanager
def running_orthanc(folder: Path) -> Iterator[Orthanc]:
    """Start Orthanc with its data in a folder."""
    archive = Orthanc(free_port(), free_port())
    settings = {
        "Name": "Test", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
        "HttpPort": archive.http, "DicomPort": archive.dicom, "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "DicomAlwaysAllowStore": True,
        "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "HttpThreadsCount": 4, "ConcurrentJobs": 1,
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    assert PROGRAM is not None
    with (folder / "orthanc.log").open("w") as log:
        process = subprocess.Popen([PROGRAM, str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            end = time.monotonic() + 30
            while True:
                try:
                    archive.get("/system")
                    break
                except httpx.HTTPError:
                    assert process.poll() is None and time.monotonic() < end, "Orthanc does not start"
                    time.sleep(0.1)
            yield archive
        finally:
            process.terminate()
            process.wait(20)
