"""The gallery: pages that CrossRay makes, photographed: `python -m docs.figures.pictures` from the repository's root.

Everything on them is drawn. The explain page shows the model that `make demo` left in demo/; without one it stays as it
is. The two systems of the report page are made up (tests/browser/example.py).
"""

import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
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


def report_page(work: Path) -> Path:
    """Two made-up systems on drawn studies."""
    runs = make_runs(work / "report", studies=300, size=256)
    command(["report", *map(str, runs), "--out", str(work / "report.html")])
    return work / "report.html"


def inspect_page(work: Path) -> Path:
    """The drawn dataset of the report page."""
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


def show_studies(page: Any) -> None:
    """Scroll to a study with a false alarm."""
    page.locator("[name=kind][value=false]").check()
    page.locator("#studies").evaluate("heading => heading.scrollIntoView({behavior: 'instant'})")


def point_at_a_word(page: Any) -> None:
    """Point at the word that names a finding."""
    words = page.get_by_text("enlarged", exact=True)
    (words.first if words.count() else page.locator("[tabindex]").first).hover()


#: Picture to what makes its page, its width and height, and what is done on it first.
PICTURES: dict[str, tuple[Callable[[Path], Path | None], int, int, Callable[[Any], None] | None]] = {
    "report-page.jpg": (report_page, 1120, 1000, show_studies),
    "inspect-page.jpg": (inspect_page, 1120, 900, None),
    "ablation-table.jpg": (ablation_page, 1120, 680, None),
    "explain.jpg": (explain_page, 1120, 640, point_at_a_word),
}


def main() -> None:
    """Make the pages, and photograph those that could be made; names of pictures on the command line choose."""
    chosen = sys.argv[1:] or list(PICTURES)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        browser = launch(playwright)
        for picture in chosen:
            make, width, height, act = PICTURES[picture]
            made = make(Path(name))
            if made is None:
                continue
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
            page.goto(made.resolve().as_uri())
            if act is not None:
                act(page)
            page.screenshot(path=FOLDER / picture, type="jpeg", quality=80)
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
