"""The F1 of each observation on a scorecard, as bars and as a table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crossray.analysis.agreement import spoken
from crossray.evaluation.metrics.clinical import CONVENTIONS, ClassScore
from crossray.pages import charts, page
from crossray.pages.scorecard.runs import System
from crossray.pages.scorecard.scores import NO_VALUE, present, value

if TYPE_CHECKING:
    from markupsafe import Markup

#: Headings of the columns of a system.
_HEADINGS = ("written", "precision", "recall", "F1")


def observations(systems: Sequence[System], name: str) -> dict[str, Any]:
    """Bars and tables under one protocol and both conventions; empty if a system has no clinical scores."""
    results = [system.evaluation.protocols[name].result for system in systems]
    if not all(result.classes for result in results):
        return {}
    names = [system.name for system in systems]
    studies = results[0].studies
    figures, tables = [], []
    for convention in CONVENTIONS:
        scores = list(zip(*(result.classes[convention.name] for result in results), strict=True))
        bars = [_bars(of_systems, studies) for of_systems in scores if any(map(_is_stated, of_systems))]
        figures.append(charts.bar_chart(bars, names, "F1", present(convention)))
        tables.append(_table(scores, names, present(convention)))
    return {"protocol": name, "legend": charts.legend(names), "charts": figures, "tables": tables}


def _is_stated(score: ClassScore) -> bool:
    """Whether there is a score: if no text states the observation, there is none."""
    return score.support + score.written > 0


def _bars(scores: Sequence[ClassScore], studies: int) -> charts.Bars:
    """The scores of all systems for one observation."""
    return charts.Bars(
        label=spoken(scores[0].observation),
        note=f"in {scores[0].support} of {studies} references",
        values=tuple(score.f1 if _is_stated(score) else None for score in scores),
    )


def _table(scores: Sequence[Sequence[ClassScore]], names: Sequence[str], caption: str) -> "Markup":
    headings = ["observation", "support", *(f"{system}: {word}" for system in names for word in _HEADINGS)]
    rows = [
        [
            spoken(of_systems[0].observation),
            str(of_systems[0].support),
            *(cell for score in of_systems for cell in _cells(score)),
        ]
        for of_systems in scores
    ]
    return page.table(headings, rows, caption=caption)


def _cells(score: ClassScore) -> list[page.Cell]:
    if not _is_stated(score):
        return [str(score.written), NO_VALUE, NO_VALUE, NO_VALUE]
    return [str(score.written), f"{score.precision:.3f}", f"{score.recall:.3f}", value(score.f1)]
