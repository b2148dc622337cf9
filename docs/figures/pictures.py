"""The gallery: pages that CrossRay makes, photographed: `python -m docs.figures.pictures` from the repository's root.

Everything on them is drawn. The explain page shows the model that `make demo` left in demo/; without one it stays as it
is. The two systems of the scorecard are made up (tests/browser/example.py). The drafts of the reading page and of the
DICOM SR come from a model that was trained for seconds.
"""

import contextlib
import html
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright
from pydicom import dcmread
from pydicom.dataset import Dataset as Dicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid
from tests.browser.conftest import launch
from tests.browser.example import make_runs

from crossray.cli import main as command
from crossray.data.store import Dataset

FOLDER = Path(__file__).parent
DEMO = Path("demo")

#: What makes an ablation so small that three rows train within a minute.
SMALL = shlex.split(
    "--model.backbone.name random:resnet_tiny --model.layers 1 --model.width 32 --model.heads 2 --model.feedforward 32 "
    "--model.memory_slots 64 --model.memory_heads 2 --model.memory_top 8 --model.contrast_hidden 32 "
    "--data.image.size 64 --data.image.resize 64 --trainer.max_epochs 1 --trainer.threads 1 --decoding.method greedy"
)

#: What makes a training end within half a minute, with sentences that can be read.
SECONDS = shlex.split(
    "--model.backbone.name random:resnet18_narrow --model.backbone.trainable true --model.layers 1 "
    "--data.image.size 64 --data.image.resize 72 --trainer.max_epochs 8 --trainer.min_epochs 1 "
    "--trainer.validate_every 8 --trainer.monitor bleu4 --optimizer.learning_rate 2e-3 --trainer.threads 1"
)


def scorecard(work: Path) -> Path:
    """Two made-up systems on drawn studies."""
    runs = make_runs(work / "report", studies=300, size=256)
    command(["scorecard", *map(str, runs), "--out", str(work / "scorecard.html")])
    return work / "scorecard.html"


def inspect_page(work: Path) -> Path:
    """The drawn dataset of the scorecard."""
    command(["inspect", str(work / "report" / "data"), "--out", str(work / "inspect.html")])
    return work / "inspect.html"


def explain_page(work: Path) -> Path | None:
    """A test study of the demo, by the demo's model."""
    if not (DEMO / "baseline" / "run" / "best").is_dir():
        print("no demo/baseline/run: `make demo` first; explain.jpg stays as it is", file=sys.stderr)
        return None
    dataset = Dataset.open(DEMO / "data")
    rows = dataset.rows("test")
    reports = zip(dataset.ids(rows), dataset.reports(rows), strict=True)
    study = next(name for name, report in reports if "enlarged" in report)
    command(["explain", "--model", str(DEMO / "baseline" / "run"), "--data", str(DEMO / "data"), "--study", study,
             "--out", str(work / "explain.html")])  # fmt: skip
    return work / "explain.html"


def ablation_page(work: Path) -> Path:
    """Three rows of RCAN's Table 4, one epoch on 60 drawn studies: the form of the table, not its content."""
    data, out = str(work / "small"), str(work / "ablation")
    command(["prepare", "phantom", "--out", data, "--studies", "60", "--size", "64", "--workers", "0"])
    rows = ["R2GenCMN + RVE", "CGM + WCL", "RVE + CGM + WCL"]
    command(["ablate", "rcan/phantom", "--table", "table4", "--data", data, "--out", out, "--seeds", "0", "--meteor",
             "no", "--rows", *rows, *SMALL])  # fmt: skip
    return work / "ablation" / "table4" / "table.html"


def small_model(work: Path) -> tuple[Path, list[Path]]:
    """A model, and the views of a test study as files; made once."""
    data, run = work / "seconds-data", work / "seconds"
    views = [work / "frontal.png", work / "lateral.png"]
    if not run.exists():
        command(["prepare", "phantom", "--out", str(data), "--studies", "160", "--severity", "easy", "--size", "256",
                 "--workers", "0"])  # fmt: skip
        command(["train", "baseline/demo", "--data", str(data), "--out", str(run), *SECONDS])
        dataset = Dataset.open(data)
        for path, view in zip(views, dataset.views(dataset.rows("test")[0]), strict=True):
            Image.fromarray(dataset.image(view)).save(path)
    return run, views


@contextlib.contextmanager
def reading_page(work: Path) -> Iterator[str]:
    """The page of `crossray serve`, for as long as the service runs."""
    run, _ = small_model(work)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = f"sqlite:///{work / 'journal.db'}"
    words = ["serve", "--model", f"demo={run}", "--port", str(port), "--store", store]
    service = subprocess.Popen([sys.executable, "-m", "crossray", *words])
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz"):
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/"
    finally:
        service.terminate()
        service.wait()


def structured_report(work: Path) -> Path:
    """The content of a DICOM SR, item by item."""
    run, views = small_model(work)
    study, files = generate_uid(), []
    for view, position in zip(views, ("PA", "LL"), strict=True):
        files.append(work / f"{position}.dcm")
        _as_dicom(np.asarray(Image.open(view)), position, study).save_as(files[-1], enforce_file_format=True)
    out = work / "sr.jsonl"
    command(["generate", ",".join(map(str, files)), "--model", str(run), "--out", str(out)])
    command(["export", str(out), "--format", "sr", "--out", str(work / "sr")])
    report = dcmread(next((work / "sr").iterdir()))
    flags = " &middot; ".join((report.CompletionFlag, report.PreliminaryFlag, report.VerificationFlag))
    body = "".join(_items(report, 0))
    page = work / "sr.html"
    page.write_text(
        f"<body style='font:15px sans-serif;margin:24px'><h2>{report.SeriesDescription}</h2><p>{flags}</p>{body}",
        encoding="utf-8",
    )
    return page


def _as_dicom(pixels: Any, position: str, study: str) -> Dicom:
    image = Dicom()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = ComputedRadiographyImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID, image.Modality = study, generate_uid(), "CR"
    image.PatientID, image.PatientName, image.PatientBirthDate, image.PatientSex = "DRAWN-1", "Drawn^Patient", "", "O"
    image.StudyID, image.AccessionNumber, image.StudyDate, image.StudyTime = "1", "A1", "20261129", "120000"
    image.ReferringPhysicianName, image.InstanceNumber, image.ViewPosition = "", 1, position
    image.Rows, image.Columns = pixels.shape
    image.PhotometricInterpretation, image.SamplesPerPixel = "MONOCHROME2", 1
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 8, 8, 7, 0
    image.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    return image


def _items(item: Dicom, depth: int) -> Iterator[str]:
    name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""
    coded = item.ConceptCodeSequence[0].CodeMeaning if "ConceptCodeSequence" in item else ""
    value = html.escape(str(item.get("TextValue") or coded))
    yield (
        f"<div style='padding-left:{28 * depth}px;line-height:1.7'>"
        f"<small style='color:#52606d'>{item.ValueType}</small> "
        f"<b>{name}</b> {value}</div>"
    )
    for part in item.get("ContentSequence", []):
        yield from _items(part, depth + 1)


def ask(page: Any, work: Path) -> None:
    """Give the views of a study to the reading page."""
    page.wait_for_selector("#model option", state="attached")
    page.set_input_files("#files", [str(path) for path in small_model(work)[1]])
    page.wait_for_selector(".sentence", timeout=300_000)


def show_studies(page: Any, work: Path) -> None:
    """Scroll to a study with a false alarm."""
    page.locator("[name=kind][value=false]").check()
    page.locator("#studies").evaluate("heading => heading.scrollIntoView({behavior: 'instant'})")


def point_at_a_word(page: Any, work: Path) -> None:
    """Point at a word that names the finding."""
    for finding in ("enlarged", "cardiomegaly", "large"):
        words = page.locator(".word", has_text=re.compile(rf"^{finding}$"))
        if words.count():
            words.first.hover()
            break


#: Picture to what makes its page, its width and height, and what is done on it first.
PICTURES: dict[str, tuple[Callable[[Path], Any], int, int, Callable[[Any, Path], None] | None]] = {
    "scorecard.jpg": (scorecard, 1120, 1000, show_studies),
    "inspect-page.jpg": (inspect_page, 1120, 900, None),
    "ablation-table.jpg": (ablation_page, 1120, 680, None),
    "reading-page.jpg": (reading_page, 1280, 860, ask),
    "dicom-sr.jpg": (structured_report, 1120, 560, None),
    "explain.jpg": (explain_page, 1120, 740, point_at_a_word),
}


def main() -> None:
    """Make the pages, and photograph those that could be made; names of pictures on the command line choose."""
    chosen = sys.argv[1:] or list(PICTURES)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = launch(playwright)
        for picture in chosen:
            make, width, height, act = PICTURES[picture]
            with contextlib.ExitStack() as running:
                made = make(Path(name))
                if made is None:
                    continue
                address = made.resolve().as_uri() if isinstance(made, Path) else running.enter_context(made)
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
                page.goto(address)
                if act is not None:
                    act(page, Path(name))
                page.screenshot(path=FOLDER / picture, type="jpeg", quality=80)
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
