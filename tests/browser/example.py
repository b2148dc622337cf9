"""Runs of two made-up systems on phantom studies, for the tests of the scorecard and for its figure in the documents.

`python -m tests.browser.example FOLDER` makes them and the page, and photographs it.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crossray.data.store import Dataset, write_dataset
from crossray.evaluation.evaluate import evaluate
from crossray.evaluation.predictions import Prediction, Provenance, write_predictions
from crossray.evaluation.predictions.protocol import references
from crossray.phantom.source import phantom_studies
from crossray.text.sentences import split_sentences
from crossray.text.tokenizer import Tokenizer

MAX_LENGTH = 60

#: Made-up system to the shares of the true sentences that it keeps and that it takes from another study instead.
SYSTEMS = {"careful": (0.75, 0.15), "hasty": (0.35, 0.35)}


def make_runs(folder: Path, *, studies: int, size: int) -> list[Path]:
    """Folders of runs with predictions, scores and a training log, on drawn studies in folder/data."""
    source = {"kind": "phantom", "seed": 5, "severity": "easy", "synthetic_images": True, "studies": studies}
    dataset = write_dataset(folder / "data", phantom_studies(studies, 5, "easy"), size=size, source=source, workers=0)
    tokenizer = Tokenizer.train(dataset.reports(dataset.rows("train")), min_count=1)
    runs = []
    for seed, (name, shares) in enumerate(SYSTEMS.items()):
        run = folder / name
        run.mkdir(exist_ok=True)
        _write_predictions(run / "predictions.jsonl", dataset, tokenizer, name, shares, seed)
        evaluate(run / "predictions.jsonl", meteor="no", resamples=200).save(run / "predictions.scores.json")
        _write_history(run / "metrics.jsonl", seed)
        runs.append(run)
    return runs


def _write_predictions(
    path: Path, dataset: Dataset, tokenizer: Tokenizer, name: str, shares: tuple[float, float], seed: int
) -> None:
    draw = np.random.default_rng(seed)
    rows = dataset.rows("test")
    reports = dataset.reports(rows)
    written = [tokenizer.clean(_corrupted(report, reports, shares, draw)) for report in reports]
    provenance = Provenance(
        model=f"runs/{name}/best", system="made up", data=str(dataset.path), data_sha256=dataset.info.sha256,
        split="test", cleaner="legacy", max_length=MAX_LENGTH, min_count=1, tokenizer=tokenizer.fingerprint(),
        views="2", decoding={"beams": 3, "max_length": MAX_LENGTH}, versions={"crossray": "example"},
    )  # fmt: skip
    write_predictions(
        path,
        provenance,
        [
            Prediction(study, text, references(report, tokenizer, MAX_LENGTH))
            for study, text, report in zip(dataset.ids(rows), written, reports, strict=True)
        ],
    )


def _corrupted(report: str, others: Sequence[str], shares: tuple[float, float], draw: np.random.Generator) -> str:
    """A report whose sentences are kept, replaced by some of another report, or dropped."""
    kept, foreign = shares
    sentences = []
    for sentence in split_sentences(report):
        lot = draw.random()
        if lot < kept:
            sentences.append(sentence)
        elif lot < kept + foreign:
            sentences.append(str(draw.choice(split_sentences(str(draw.choice(others))))))
    return " ".join(f"{sentence} ." for sentence in sentences or ["the heart is normal"])


def _write_history(path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    rows = []
    for step in range(10, 401, 10):
        loss = 4 * np.exp(-step / (120 + 60 * seed)) + 1 + 0.1 * draw.random()
        rows.append({"split": "train", "step": step, "epoch": (step - 1) // 40, "loss": loss, "learning_rate": 1e-4})
        if step % 40 == 0:
            cider = 0.6 * (1 - np.exp(-step / 150)) / (1 + seed) + 0.02 * draw.random()
            values = {"loss": loss + 0.2, "bleu4": 0.2 * cider, "rouge_l": 0.3 + 0.1 * cider, "cider": cider}
            rows.append({"split": "val", "step": step, "epoch": step // 40 - 1, **values})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    """Make the page in the folder that is named, and photograph its studies with a false alarm."""
    from playwright.sync_api import sync_playwright
    from tests.browser.conftest import launch

    from crossray.files.write import write_whole
    from crossray.pages.scorecard.build import build_scorecard
    from crossray.pages.scorecard.runs import read_systems

    folder = Path(sys.argv[1])
    write_whole(folder / "page.html", build_scorecard(read_systems(make_runs(folder, studies=300, size=256))))
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page(viewport={"width": 1120, "height": 1000}, color_scheme="light")
        page.goto((folder / "page.html").resolve().as_uri())
        page.locator("[name=kind][value=false]").check()
        page.locator("#studies").evaluate("heading => heading.scrollIntoView({behavior: 'instant'})")
        page.screenshot(path=folder / "scorecard.jpg", type="jpeg", quality=80)
        browser.close()


if __name__ == "__main__":
    main()
