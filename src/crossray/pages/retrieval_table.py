"""Table and output file of `crossray analyze retrieval`."""

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
    lines = []
    for way, result in results.items():
        hamming_, cider = result.scores["hamming"], result.scores["cider"]
        lines.append([
            way, f"{hamming_.value:.3f}", ends(hamming_), signed(result.difference.get("hamming")),
            f"{cider.value:.3f}", ends(cider), signed(result.difference.get("cider")), str(result.reports),
        ])  # fmt: skip
    own = next(iter(results))
    minus = f"{own} minus this"
    header = ["retrieved by", "labels that differ", "interval", minus, "cider", "interval", minus, "different reports"]
    return Grid(f"{name}: the nearest training report", header, lines)


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
