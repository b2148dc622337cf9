"""`crossray demo`: the whole way in minutes, on synthetic images, with its own check of what came out."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from crossray.analysis import page
from crossray.data.dataset import Dataset
from crossray.data.writer import write_dataset
from crossray.errors import UserError
from crossray.evaluation.evaluate import evaluate
from crossray.evaluation.predictions import PredictionFile
from crossray.evaluation.results import Evaluation
from crossray.evaluation.significance import Interval
from crossray.evaluation.tables import HEADINGS, print_evaluation
from crossray.evaluation.trivial import TRIVIAL
from crossray.serving.generator import Generator, readable
from crossray.terminal import Progress, print_dataset
from crossray.training.recipe import load
from crossray.training.run import resume, train

ENCODER_RECIPE, RECIPE = "vision/demo", "baseline/demo"

#: Short side of the drawn images in pixels; the recipe's transform crops from it.
SIZE = 160

#: The check speaks of at least this many test studies.
LEAST_TEST_STUDIES = 100

_NOTICE = (
    "All images here are synthetic: drawn by CrossRay's phantom, not taken of any person. The model has seen nothing "
    "else; it is a demonstration and not for clinical use."
)


@dataclass(frozen=True)
class Check:
    """One thing that a report generator must show.

    Attributes:
        claim: what is claimed.
        difference: CIDEr of the model minus that of the other, with its paired-bootstrap interval.
    """

    claim: str
    difference: Interval

    @property
    def holds(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.difference.low > 0

    def __str__(self) -> str:
        by = self.difference
        verdict = "yes" if self.holds else "NO"
        return f"{self.claim}: {verdict} (by {by.value:.3f}, {by.level:.0%} interval {by.low:.3f} to {by.high:.3f})"


def run_demo(out: Path, *, studies: int, seed: int, console: Console) -> list[Check]:
    """Draw, train, generate, score, and write `index.html`; what an earlier call left in `out` is continued.

    Args:
        out: folder of everything that is made.
        studies: number of studies to draw.
        seed: of drawing and training.
        console: where progress and results are shown.

    Returns:
        The checks, whether they hold or not.

    Raises:
        UserError: too few studies, or `out` holds something else.
    """
    from crossray.data.phantom.source import phantom_studies

    began = time.monotonic()
    console.rule("1. drawing synthetic radiographs")
    source = {"kind": "phantom", "seed": seed, "severity": "easy", "synthetic_images": True, "studies": studies}
    with Progress("drawing studies", console) as progress:
        dataset = write_dataset(
            out / "data", phantom_studies(studies, seed, "easy"), size=SIZE, source=source, progress=progress
        )
    print_dataset(dataset, console)
    if len(dataset.rows("test")) < LEAST_TEST_STUDIES:
        raise UserError(
            f"--studies {studies}: the test split has {len(dataset.rows('test'))} studies; draw more of them."
        )

    console.rule("2. training an image encoder on the findings of the training studies")
    encoder = _trained(ENCODER_RECIPE, {"trainer.seed": seed}, out / "data", out / "encoder")

    console.rule("3. training the baseline over it")
    frozen = {"model.backbone.name": str(encoder), "model.backbone.trainable": False}
    run = out / "run"
    _trained(RECIPE, {"trainer.seed": seed, **frozen}, out / "data", run)

    console.rule("4. writing the test reports")
    predictions = out / "predictions.jsonl"
    with Progress("writing reports", console) as progress:
        Generator.from_pretrained(run).generate_dataset(dataset, "test", predictions, progress=progress)

    console.rule("5. scoring")
    with console.status("scoring"):
        result = evaluate(predictions, dataset=out / "data", seed=seed)
    result.save(out / "scores.json")
    print_evaluation(result, console)
    checks = make_checks(result)
    minutes = (time.monotonic() - began) / 60
    (out / "index.html").write_text(_page(dataset, run, predictions, result, checks, minutes), encoding="utf-8")

    console.rule("6. what this shows")
    for check in checks:
        console.print(f"[{'green' if check.holds else 'red'}]{check}[/]", highlight=False)
    console.print(f"[yellow]{_NOTICE}[/]")
    console.print(f"{minutes:.1f} minutes; the page: {out / 'index.html'}")
    return checks


def _trained(recipe: str, overrides: dict[str, Any], data: Path, run: Path) -> Path:
    """The best model of a run, which is begun or continued."""
    return resume(run) if (run / "recipe.yaml").exists() else train(load(recipe, overrides), data, run)


def make_checks(result: Evaluation) -> list[Check]:
    """CIDEr against each trivial baseline and against the model's own shuffle, on the whole references."""
    scored = result.protocols["full"]
    checks = [
        Check(f"CIDEr is above that of the {name}", scored.differences[name]["cider"])
        for name in TRIVIAL
        if scored.differences
    ]
    if scored.shuffle is not None:
        checks.append(
            Check("CIDEr falls when images are shuffled between studies", scored.shuffle.differences["cider"])
        )
    return checks


def _page(
    dataset: Dataset,
    run: Path,
    predictions: Path,
    result: Evaluation,
    checks: list[Check],
    minutes: float,
    shown: int = 16,
) -> str:
    """The demo's page: one file, no network."""
    body = [
        page.paragraph(_NOTICE, "notice"),
        page.paragraph(
            f"Made in {minutes:.1f} minutes by crossray demo: {dataset.studies} studies drawn, an encoder and a "
            f"small baseline trained, {len(dataset.rows('test'))} test reports written and scored.",
            "muted",
        ),
        page.heading("Does the model look at the image?"),
    ]
    body += [page.paragraph(str(check), "good" if check.holds else "bad") for check in checks]
    for name, scored in result.protocols.items():
        ours = scored.result
        body.append(page.heading(f"Scores, protocol {name}"))
        metrics = [metric for metric in HEADINGS if metric in ours.scores]
        headings = ["system", *(HEADINGS[metric] for metric in metrics), "different reports"]
        rows = [
            [
                "this model" if line is ours else line.system,
                *(f"{line.scores[metric].value:.3f}" for metric in metrics),
                f"{line.variety.distinct_reports:.0%}",
            ]
            for line in (ours, *scored.baselines)
        ]
        if scored.shuffle is not None:
            shuffled = [f"{scored.shuffle.scores[m]:.3f}" if m in scored.shuffle.scores else "" for m in metrics]
            rows.insert(1, ["this model, images shuffled", *shuffled, ""])
        body.append(page.table(headings, rows, own=0))
    body.append(
        page.paragraph(
            "The tag oracle copies a training report with the same true findings; it is told what to see.", "muted"
        )
    )
    body.append(page.heading("Training"))
    body += _curves(run / "metrics.jsonl")
    body.append(page.heading("Test studies"))
    body += _studies(dataset, predictions, shown)
    return page.document("CrossRay demo: reports of synthetic chest radiographs", body)


def _curves(metrics: Path) -> list[str]:
    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    curves = []
    for name in ("loss", "cider", "bleu4"):
        points = [(row["epoch"] + 1, row[name]) for row in rows if row["split"] == "val" and name in row]
        curves.append(page.curve(points, f"validation {name} by epoch"))
    return curves


def _studies(dataset: Dataset, predictions: Path, shown: int) -> list[str]:
    """A mixture of normal and abnormal test studies, in the order of the file."""
    row_of = {dataset.record(row).id: row for row in dataset.rows("test")}
    pieces = []
    for prediction in PredictionFile.load(predictions).rows[:shown]:
        row = row_of[prediction.id]
        record = dataset.record(row)
        views = [
            page.image(dataset.image(view), f"synthetic {position} radiograph")
            for view, position in zip(dataset.views(row), record.positions, strict=True)
        ]
        texts = {
            "true report of what is drawn": record.findings,
            "written by the model": readable(prediction.prediction),
        }
        pieces.append(page.study(f"{prediction.id} (synthetic)", views, texts))
    return pieces
