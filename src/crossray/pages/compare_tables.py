"""Tables of a comparison, for the terminal and for Markdown."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from crossray.evaluation.alarms import signed
from crossray.evaluation.compare import Comparison, PairComparison, ProtocolComparison
from crossray.evaluation.results import Result
from crossray.evaluation.statistics.significance import LEVEL
from crossray.pages.tables import HEADINGS, Grid, ends, title, value

if TYPE_CHECKING:
    from rich.console import Console

# Widths in characters of the longest metric name and of a score with its interval.
_METRIC_WIDTH, _SCORE_WIDTH = 19, 20


def print_comparison(comparison: Comparison, console: "Console") -> None:
    """Print the scores of all systems and the tests of all pairs, protocol by protocol, and the notes."""
    for part in comparison.protocols.values():
        names = [result.system for result in part.results]
        beside = (console.width - _METRIC_WIDTH) // (max(_SCORE_WIDTH, *map(len, names)) + 2)
        for grid in grids(part, max(1, beside)):
            console.print(grid.render(), crop=False)
        console.print(caption(part), highlight=False)
    for note in comparison.notes:
        console.print(f"note: {note}", highlight=False)


def markdown_page(comparison: Comparison) -> str:
    """The scores and tests as Markdown."""
    parts = [
        text
        for part in comparison.protocols.values()
        for text in (*(grid.markdown() for grid in grids(part)), f"{caption(part)}\n")
    ]
    return "\n".join([*parts, "".join(f"- {note}\n" for note in comparison.notes)])


def grids(part: ProtocolComparison, beside: int | None = None) -> Iterator[Grid]:
    """The scores of all systems, and a table of tests for each pair.

    Args:
        part: the comparison under one protocol.
        beside: maximum number of systems per table of scores; None for all in one.
    """
    for start in range(0, len(part.results), beside or len(part.results)):
        yield _scores(part, part.results[start:][:beside])
    yield from map(_tests, part.pairs)


def caption(part: ProtocolComparison) -> str:
    """Explanation of the tests."""
    return (
        f"Differences with {LEVEL:.0%} paired bootstrap intervals; two-sided p of the paired bootstrap and of "
        f"exchanges (approximate randomization), the latter corrected (Holm) for the {part.comparisons} tests under "
        "this protocol."
    )


def _scores(part: ProtocolComparison, results: Sequence[Result]) -> Grid:
    tested = {name for pair in part.pairs for name in pair.tests}
    shown = [name for name in part.results[0].scores if name in HEADINGS or name in tested]
    lines = []
    for name in shown:
        scores = [result.scores[name] for result in results]
        lines.append([_heading(name), *(f"{value(score)} {ends(score)}" for score in scores)])
    lines.append(["distinct reports", *(f"{result.variety.distinct_reports:.1%}" for result in results)])
    return Grid(title(results[0].protocol, results), ["", *(result.system for result in results)], lines)


def _tests(pair: PairComparison) -> Grid:
    lines = [
        [_heading(name), signed(test.difference), *map(_p, (test.bootstrap_p, test.randomization_p, test.corrected_p))]
        for name, test in pair.tests.items()
    ]
    header = ["metric", "difference", "p bootstrap", "p exchange", "p corrected"]
    return Grid(f"{pair.first} minus {pair.second}", header, lines)


def _heading(name: str) -> str:
    return HEADINGS.get(name, name)


def _p(p: float | None) -> str:
    return "-" if p is None else f"{p:.4f}"
