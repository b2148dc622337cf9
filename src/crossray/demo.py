"""`crossray demo`: a few-minute end-to-end example on synthetic images that checks its own result."""

import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from crossray.data.store import Dataset
from crossray.data.store.writer import write_dataset
from crossray.errors import UserError, counted
from crossray.evaluation.evaluate import evaluate
from crossray.evaluation.predictions import PredictionFile
from crossray.evaluation.results import Evaluation
from crossray.evaluation.statistics.significance import Interval
from crossray.evaluation.trivial import TRIVIAL
from crossray.files.write import write_whole
from crossray.generation.generator import Generator
from crossray.pages.printing import print_evaluation
from crossray.pages.scorecard.build import build_scorecard
from crossray.pages.scorecard.runs import METRICS, System, read_history
from crossray.pages.terminal import Progress, print_dataset
from crossray.training.recipe import load
from crossray.training.run import resume, train

#: Recipe name that exists for every system; models that it needs, such as an image encoder, are trained first.
RECIPE = "demo"

#: Short side of the drawn images in pixels, before the recipe's transform crops them.
SIZE = 160

#: Minimum number of test studies for the check.
LEAST_TEST_STUDIES = 100

_NOTICE = (
    "All images here are synthetic: drawn by CrossRay's phantom, not taken of any person. The model was trained on "
    "nothing else; it is a demonstration and not for clinical use."
)


@dataclass(frozen=True)
class Check:
    """One property that a report generator must have.

    Attributes:
        claim: what is claimed.
        difference: CIDEr of the model minus that of the baseline, with its paired-bootstrap interval.
    """

    claim: str
    difference: Interval

    @property
    def holds(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.difference.low > 0

    def __str__(self) -> str:
        by = self.difference
        verdict = "yes" if self.holds else "NO"
        return f"{self.claim}: {verdict} (by {by.value:.3f}, {by.level:.0%} interval {by.low:.3f} to {by.high:.3f})"


def run_demo(out: Path, *, system: str = "baseline", studies: int, seed: int, console: Console) -> list[Check]:
    """Draw, train, generate, score, and write `index.html`; continue an unfinished run in `out`.

    Args:
        out: output folder with `data` and a folder per system, so that a second system reuses the studies and the image
            encoder.
        system: system to train, with its recipe SYSTEM/demo.
        studies: number of studies to draw.
        seed: random seed of the images and the training.
        console: console for progress and results.

    Returns:
        The checks, passed or not.

    Raises:
        UserError: there are too few studies, the system does not exist, or `out` contains other files.
    """
    from crossray.phantom.source import phantom_studies

    recipe = load(f"{system}/{RECIPE}", {"trainer.seed": seed})
    folder = out / system
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
            f"--studies {studies}: the test split has {counted(len(dataset.rows('test')), 'study')}; draw more of them."
        )

    console.rule(f"2. training {system} and the models that it needs")
    run = folder / "run"
    if (run / "recipe.yaml").exists():
        resume(run, out / "data")
    else:
        train(recipe, out / "data", run)

    console.rule("3. writing the test reports")
    predictions = folder / "predictions.jsonl"
    with Progress("writing reports", console) as progress:
        Generator.from_pretrained(run).generate_dataset(dataset, "test", predictions, progress=progress)

    console.rule("4. scoring")
    with console.status("scoring"):
        result = evaluate(predictions, dataset=out / "data", seed=seed)
    result.save(folder / "scores.json")
    print_evaluation(result, console)
    checks = make_checks(result)
    minutes = (time.monotonic() - began) / 60
    html = _page(dataset, run, system, PredictionFile.load(predictions), result, checks, minutes)
    write_whole(folder / "index.html", html)

    console.rule("5. what this shows")
    for check in checks:
        console.print(str(check), style="green" if check.holds else "red", highlight=False)
    console.print(_NOTICE, style="yellow")
    console.print(f"{minutes:.1f} minutes; the page: {folder / 'index.html'}")
    return checks


def make_checks(result: Evaluation) -> list[Check]:
    """Compare CIDEr with each trivial baseline and with shuffled images, on the full references."""
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
    name: str,
    predictions: PredictionFile,
    result: Evaluation,
    checks: list[Check],
    minutes: float,
) -> str:
    """Return the page of the demo: the scorecard below the checks."""
    system = System(name, predictions, result, read_history(run / METRICS))
    made = (
        f"Made in {minutes:.1f} minutes by crossray demo: {dataset.studies} studies drawn, a small {name} and the "
        f"models it needs trained, {len(predictions.rows)} test reports written and scored."
    )
    title = "CrossRay demo: reports of synthetic chest radiographs"
    return build_scorecard([system], title=title, template="demo.html", made=made, checks=checks)
