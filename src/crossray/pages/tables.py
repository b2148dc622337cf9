"""Tables of results for the terminal, as Markdown, and as plain values. Each table has a single protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from crossray.evaluation.alarms import IGNORES_IMAGE
from crossray.evaluation.alarms import signed as signed  # re-exported, since it formats differences in tables
from crossray.evaluation.metrics.family import headings as metric_headings
from crossray.evaluation.metrics.nlg import METRICS
from crossray.evaluation.predictions.protocol import Protocol, require_same
from crossray.evaluation.results import ProtocolEvaluation, Result
from crossray.evaluation.statistics.significance import Interval

if TYPE_CHECKING:
    from rich.table import Table

#: Headings by metric name: REVTAF's ten metrics, CIDEr, and those of other packages.
HEADINGS = metric_headings()

# Maximum width of a heading: columns named after a folder would leave no room for the others.
_WIDEST_HEADING = 20


@dataclass(frozen=True)
class Grid:
    """A table for the terminal and Markdown.

    Attributes:
        title: line above the table.
        header: headings of the columns; the first column contains the names of the lines.
        lines: cells of each line, as many as headings.
    """

    title: str
    header: Sequence[str]
    lines: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The title and a Markdown table."""
        rule = ["---"] + ["---:"] * (len(self.header) - 1)
        cells = ([cell.replace("|", "\\|") for cell in line] for line in (self.header, rule, *self.lines))
        table = "\n".join("| " + " | ".join(line) + " |" for line in cells)
        return f"{self.title}\n\n{table}\n"

    def render(self) -> "Table":
        """A table for the terminal; headings are wrapped at spaces so as not to be wider than the cells."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        widths = []
        for number, name in enumerate(self.header):
            longest_word = max((len(word) for word in name.split()), default=1)
            cells = [len(line[number]) for line in self.lines]
            widths.append(max(min(longest_word, _WIDEST_HEADING), *cells))
        # A fixed width: a narrow terminal or a file may wrap lines but must not truncate digits.
        table = Table(
            title=Text(self.title), title_justify="left", width=sum(widths) + 2 * len(widths) - 1,
            box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0),
        )  # fmt: skip
        for number, (name, width) in enumerate(zip(self.header, widths, strict=True)):
            heading = "\n".join(wrap(name, width))
            table.add_column(Text(heading), justify="right" if number else "left", width=width, no_wrap=True)
        for line in self.lines:
            table.add_row(*map(Text, line))
        return table


def rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One flat mapping per result: system, studies, scores, ends of intervals (`cider_low`, `cider_high`), variety.

    Raises:
        UserError: the results have different protocols, or there is none.
    """
    require_same(result.protocol for result in results)
    return [
        {
            "system": result.system,
            "studies": result.studies,
            **{name: score.value for name, score in result.scores.items()},
            **{f"{name}_low": score.low for name, score in result.scores.items()},
            **{f"{name}_high": score.high for name, score in result.scores.items()},
            **vars(result.variety),
            "ignores_image": result.ignores_image,
        }
        for result in results
    ]


def title(protocol: Protocol, results: Sequence[Result]) -> str:
    """Title of a table; systems whose result is no better than with shuffled images are named first."""
    cut = "" if protocol.max_length is None else f", truncated to {protocol.max_length - 1} tokens"
    labeler = protocol.labeler and f", labeler {protocol.labeler}"
    chosen = f"chosen ({protocol.subset}) " if protocol.subset else ""
    return accused(
        results,
        f"protocol {protocol.name}: {protocol.section}, cleaner {protocol.cleaner}{cut}, "
        f"{protocol.group} of {protocol.studies} {chosen}studies{labeler}",
    )


def accused(results: Sequence[Result], described: str) -> str:
    """A title, preceded by the systems that ignore the image."""
    names = ", ".join(result.system for result in results if result.ignores_image)
    return f"{names} {IGNORES_IMAGE.upper()} - {described}" if names else described


def markdown(results: Sequence[Result]) -> str:
    """A Markdown table with intervals and one line per system.

    Raises:
        UserError: the results have different protocols, or there is none.
    """
    protocol = require_same(result.protocol for result in results)
    shown = _shown(results)
    lines = []
    for result in results:
        name = f"{result.system} ({IGNORES_IMAGE})" if result.ignores_image else result.system
        scores = [result.scores.get(metric) for metric in shown]
        cells = ["-" if score is None else f"{score.value:.3f} {ends(score)}" for score in scores]
        lines.append([name, str(result.studies), *cells, f"{result.variety.distinct_reports:.1%}"])
    header = ["system", "studies", *(HEADINGS[metric] for metric in shown), "distinct reports"]
    return Grid(title(protocol, results), header, lines).markdown()


def render(results: Sequence[Result]) -> "Table":
    """A table for the terminal with one column per system, and with intervals for the first one.

    Raises:
        UserError: the results have different protocols, or there is none.
    """
    protocol = require_same(result.protocol for result in results)
    lines = []
    for metric in _shown(results):
        ours, *others = (result.scores.get(metric) for result in results)
        cells = [value(ours), "" if ours is None else ends(ours), *map(value, others)]
        lines.append([HEADINGS[metric], *cells])
    return Grid(title(protocol, results), headings(results), lines).render()


def text_grid(part: ProtocolEvaluation) -> Grid:
    """Table of the variety of the reports of the system, its baselines and the true reports."""
    results = (part.result, *part.baselines)
    columns = [*(result.variety for result in results), part.true_reports]
    true_words = part.true_reports.words
    shown = [
        ("distinct reports", [f"{one.distinct_reports:.1%}" for one in columns]),
        *(
            (f"distinct-{order}", [f"{getattr(one, f'distinct{order}'):.4f}" for one in columns])
            for order in (1, 2, 3, 4)
        ),
        ("words per report", [f"{one.words:.1f}" for one in columns]),
        ("length ratio", [f"{one.words / true_words:.2f}" if true_words else "-" for one in columns]),
        ("without findings", ["-" if one.normal is None else f"{one.normal:.1%}" for one in columns]),
        ("with xxxx", [f"{one.deidentified:.1%}" for one in columns]),
        ("with <unk>", [f"{one.unknown:.1%}" for one in columns]),
    ]
    header = ["", *(result.system for result in results), "true reports"]
    described = accused(results, f"the text of the reports, protocol {part.result.protocol.name}")
    return Grid(described, header, [[name, *cells] for name, cells in shown])


def headings(results: Sequence[Result]) -> list[str]:
    """Headings of a table with the first system, its interval, and the other systems."""
    return ["", results[0].system, "interval", *(result.system for result in results[1:])]


def value(score: Interval | None) -> str:
    """A score, or a dash if a system lacks it."""
    return "-" if score is None else f"{score.value:.3f}"


def ends(score: Interval) -> str:
    """The interval of a score."""
    return f"[{score.low:.3f}, {score.high:.3f}]"


def _shown(results: Sequence[Result]) -> list[str]:
    """Names of the metrics that at least one result has."""
    return [name for name in HEADINGS if name in METRICS or any(name in result.scores for result in results)]
