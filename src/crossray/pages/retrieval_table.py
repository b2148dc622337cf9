"""Table and output file of `crossray analyze retrieval`."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from crossray.analysis.results import as_json, signed
from crossray.analysis.retrieval import Retrieved
from crossray.data.store import Dataset
from crossray.files.write import write_whole
from crossray.pages.tables import Grid, ends

if TYPE_CHECKING:
    from rich.console import Console


def grid(name: str, results: Mapping[str, Retrieved]) -> Grid:
    """The table of one model."""
    lines = [
        [way, *_cells(result, "hamming"), *_cells(result, "cider"), str(result.reports)]
        for way, result in results.items()
    ]
    own = next(iter(results))
    minus = f"{own} minus this"
    header = ["retrieved by", "labels that differ", "interval", minus, "cider", "interval", minus, "different reports"]
    return Grid(f"{name}: the nearest training report", header, lines)


def _cells(result: Retrieved, metric: str) -> list[str]:
    """Score, interval and difference of a metric; empty without a value, as for labels that no study has."""
    score = result.scores[metric]
    if math.isnan(score.value):
        return ["", "", ""]
    return [f"{score.value:.3f}", ends(score), signed(result.difference.get(metric))]


def print_retrieval(name: str, results: Mapping[str, Retrieved], console: "Console") -> None:
    """Print the table of one model."""
    console.print()
    console.print(grid(name, results).render(), crop=False)


def save_retrieval(results: Mapping[str, Mapping[str, Retrieved]], dataset: Dataset, split: str, path: Path) -> None:
    """Write the results of all models as JSON, atomically.

    Raises:
        UserError: the file cannot be written.
    """
    models = {name: {way: asdict(found) for way, found in ways.items()} for name, ways in results.items()}
    write_whole(path, as_json(models, dataset, split))
