"""Tables and output file of `crossray analyze grounding`."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from crossray.analysis.grounding import DONORS, TOLERANCE, Grounding
from crossray.analysis.results import as_json, signed
from crossray.data.store import Dataset
from crossray.errors import counted
from crossray.files.write import write_whole
from crossray.pages.tables import Grid, ends

if TYPE_CHECKING:
    from rich.console import Console


def print_grounding(name: str, result: Grounding, console: "Console") -> None:
    """Print the tables of a model, with explanations."""
    if not result.targets:
        console.print(
            f"\n{name}: none of {counted(result.studies, 'report')} states a finding that is drawn in its study.",
            highlight=False,
        )
        return
    for grid in grids(name, result):
        console.print()
        console.print(grid.render(), crop=False)
    console.print(
        f"pointing: the finding lies within {TOLERANCE:.3f} sides of the largest cell's center; mass: share of the "
        f"view's attention inside the finding; shuffled: mean over the attention of up to {DONORS} other studies to "
        "the same observation; brackets: 95% intervals over studies.",
        highlight=False,
    )


def grids(name: str, result: Grounding) -> list[Grid]:
    """The model next to what it is compared with, and the model by view and by observation."""
    compared = []
    for source in result.sources:
        cells = [source.name.replace("centre", "center")]  # files keep the earlier spelling
        for metric in ("pointing", "mass"):
            cells += [f"{source.scores[metric].value:.3f}", ends(source.scores[metric])]
            cells.append(signed(source.differences.get(metric)))
        compared.append(cells)
    minus = "model minus this"
    header = ["attention of", "pointing", "interval", minus, "mass", "interval", minus]
    named, reports = counted(result.targets, "named finding"), counted(result.studies, "report")
    title = f"{name}: {named} in {reports}, counted in every view"
    parts = [
        [part.name, str(part.targets), *(f"{part.scores[metric]:.3f}" for metric in ("pointing", "mass"))]
        for part in result.parts
    ]
    return [
        Grid(title, header, compared),
        Grid(f"{name}: the model's own attention, part by part", ["", "targets", "pointing", "mass"], parts),
    ]


def save_grounding(results: Mapping[str, Grounding], dataset: Dataset, split: str, path: Path) -> None:
    """Write the results of all models as JSON, atomically.

    Raises:
        UserError: the file cannot be written.
    """
    models = {name: asdict(result) for name, result in results.items()}
    write_whole(path, as_json(models, dataset, split, tolerance=TOLERANCE))
