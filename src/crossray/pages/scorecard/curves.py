"""The training curves of a scorecard, from the metrics.jsonl of the runs."""

from collections.abc import Sequence
from math import ceil
from statistics import fmean
from typing import TYPE_CHECKING, Any

from crossray.pages import charts
from crossray.pages.scorecard.runs import System
from crossray.pages.tables import HEADINGS

if TYPE_CHECKING:
    from markupsafe import Markup

_X = "optimiser step"

#: Maximum number of points per line; beyond it, neighboring rows of the log are averaged.
MOST_POINTS = 200

#: Fields of a row other than losses and metrics.
_PLACES = ("step", "epoch", "stage", "seconds", "learning_rate", "images_per_second", "memory_gb")


def curves(systems: Sequence[System]) -> dict[str, Any]:
    """Charts of the losses and validation metrics of all systems, and the names of systems without a log."""
    lacking = [system.name for system in systems if not system.history]
    validated = _names(systems, "val")
    main = ["loss", *(name for name in HEADINGS if name in validated)]
    others = [name for name in (*validated, *_names(systems, "train")) if name not in main]
    return {
        "legend": charts.legend([system.name for system in systems], "line"),
        "styles": charts.line_styles("training", "validation"),
        "main": _charts(systems, main) if len(lacking) < len(systems) else [],
        "others": _charts(systems, list(dict.fromkeys(others))),
        "lacking": ", ".join(lacking),
    }


def _charts(systems: Sequence[System], names: Sequence[str]) -> list["Markup | str"]:
    figures = []
    for name in names:
        lines = [
            charts.Line(system.name, points, number, thin=split == "train")
            for number, system in enumerate(systems)
            for split in ("train", "val")
            if (points := _points(system.history, split, name))
        ]
        figures.append(charts.line_chart(lines, HEADINGS.get(name, name.replace("_", " ").capitalize()), _X))
    return figures


def _names(systems: Sequence[System], split: str) -> list[str]:
    """Names of the values of a split, in order of appearance."""
    rows = (row for system in systems for row in system.history if row["split"] == split)
    return list(dict.fromkeys(name for row in rows for name in row if name not in ("split", *_PLACES)))


def _thinned(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Average neighboring points if there are more than `MOST_POINTS`."""
    size = ceil(len(points) / MOST_POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size or 1)]
    return tuple((part[-1][0], fmean(value for _, value in part)) for part in parts)


def _points(history: Sequence[dict[str, Any]], split: str, name: str) -> tuple[tuple[float, float], ...]:
    rows = (row for row in history if row["split"] == split and isinstance(row.get(name), int | float))
    return _thinned([(float(row["step"]), float(row[name])) for row in rows])
