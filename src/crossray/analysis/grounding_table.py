"""Tables and the file of `crossray analyze grounding`."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import crossray
from crossray.analysis.grounding import DONORS, TOLERANCE, Grounding
from crossray.data.dataset import Dataset
from crossray.errors import UserError
from crossray.evaluation.files import write_whole
from crossray.evaluation.significance import Interval
from crossray.evaluation.tables import Grid, ends

if TYPE_CHECKING:
    from rich.console import Console

FORMAT = 1


def print_grounding(name: str, result: Grounding, console: "Console") -> None:
    """Print both tables of a model, and what the numbers mean."""
    if not result.targets:
        console.print(
            f"\n{name}: none of {result.studies} reports states a finding that is drawn in its study.",
            markup=False,
            highlight=False,
        )
        return
    for grid in grids(name, result):
        console.print()
        console.print(grid.render(), crop=False)
    console.print(
        f"pointing: the finding lies within {TOLERANCE:.3f} sides of the largest cell's centre; mass: share of the "
        f"view's attention inside the finding; shuffled: mean over the attention of up to {DONORS} other studies to "
        "the same observation; brackets: 95% intervals over studies.",
        markup=False,
        highlight=False,
    )


def grids(name: str, result: Grounding) -> list[Grid]:
    """The model beside what it is compared with, and the model by view and by observation."""
    compared = []
    for source in result.sources:
        cells = [source.name]
        for metric in ("pointing", "mass"):
            cells += [f"{source.scores[metric].value:.3f}", ends(source.scores[metric])]
            cells.append(_difference(source.differences.get(metric)))
        compared.append(cells)
    minus = "model minus this"
    header = ["attention of", "pointing", "interval", minus, "mass", "interval", minus]
    title = f"{name}: {result.targets} named findings in {result.studies} reports, counted in every view"
    parts = [
        [part.name, str(part.targets), *(f"{part.scores[metric]:.3f}" for metric in ("pointing", "mass"))]
        for part in result.parts
    ]
    return [
        Grid(title, header, compared),
        Grid(f"{name}: the model's own attention, part by part", ["", "targets", "pointing", "mass"], parts),
    ]


def save_grounding(results: Mapping[str, Grounding], dataset: Dataset, split: str, path: Path) -> None:
    """Write all models' results as JSON; the file appears whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    content = {
        "format": FORMAT,
        "crossray": crossray.__version__,
        "data": dataset.path.name,
        "data_sha256": dataset.info.sha256,
        "split": split,
        "tolerance": TOLERANCE,
        "models": {name: asdict(result) for name, result in results.items()},
    }
    try:
        write_whole(path, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"--out {path}: cannot be written ({error.strerror}); name a file in another folder.") from None


def _difference(difference: Interval | None) -> str:
    return "" if difference is None else f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
