"""Tables of results for the terminal, for Markdown, and as plain values. One table has one protocol."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crossray.evaluation.degeneracy import DECIDING_METRIC
from crossray.evaluation.meteor import METRIC
from crossray.evaluation.nlg import METRICS
from crossray.evaluation.protocol import Protocol, require_same
from crossray.evaluation.results import Evaluation, ProtocolEvaluation, Result

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Metric name to the heading of its column.
HEADINGS = {
    "bleu1": "BLEU-1",
    "bleu2": "BLEU-2",
    "bleu3": "BLEU-3",
    "bleu4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    METRIC: "METEOR 1.5 (jar)",
    "cider": "CIDEr-D",
}

IGNORES_IMAGE = "ignores the image"

#: What the terminal shows of the normal and of the abnormal studies; the file of scores has every metric.
GROUP_METRICS = ("bleu4", "rouge_l", "cider")


def rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One flat mapping a result: system, studies, scores, ends of their intervals (`cider_low`, `cider_high`), variety.

    Raises:
        UserError: the results have different protocols, or there is none.
    """
    require_same(result.protocol for result in results)
    return [
        {
            "system": result.system,
            "studies": result.studies,
            **{name: result.scores[name].value for name in HEADINGS if name in result.scores},
            **{f"{name}_low": result.scores[name].low for name in HEADINGS if name in result.scores},
            **{f"{name}_high": result.scores[name].high for name in HEADINGS if name in result.scores},
            "distinct_reports": result.variety.distinct_reports,
            "distinct1": result.variety.distinct1,
            "distinct2": result.variety.distinct2,
            "ignores_image": result.ignores_image,
        }
        for result in results
    ]


def title(protocol: Protocol, results: Sequence[Result]) -> str:
    """What the table shows; it begins with the systems whose result is no better than with shuffled images."""
    accused = ", ".join(result.system for result in results if result.ignores_image)
    cut = "" if protocol.max_length is None else f", cut at {protocol.max_length - 1} tokens"
    described = (
        f"protocol {protocol.name}: {protocol.section}, cleaner {protocol.cleaner}{cut}, "
        f"{protocol.group} of {protocol.studies} studies"
    )
    return f"{accused} {IGNORES_IMAGE.upper()} - {described}" if accused else described


def markdown(results: Sequence[Result]) -> str:
    """A Markdown table with intervals.

    Raises:
        UserError: the results have different protocols, or there is none.
    """
    protocol = require_same(result.protocol for result in results)
    header, *body = _cells(results, line_break=" ")
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *body]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"{title(protocol, results)}\n\n{table}\n"


def render(results: Sequence[Result]) -> "Table":
    """A table for the terminal, a column a system: the first with its intervals, the others beside it.

    Raises:
        UserError: the results have different protocols, or there is none.
    """
    from rich.table import Table

    protocol = require_same(result.protocol for result in results)
    table = Table(title=title(protocol, results), title_justify="left")
    header, *lines = _cells(results, line_break=" ")
    table.add_column("")
    table.add_column(lines[0][0], justify="right")
    table.add_column("interval", no_wrap=True)
    for line in lines[1:]:
        table.add_column(line[0], justify="right")
    for row in range(2, len(header)):
        (value, *interval), *others = (line[row].split(" ") for line in lines)
        table.add_row(header[row], value, " ".join(interval), *(cell[0] for cell in others))
    return table


def print_evaluation(evaluation: Evaluation, console: "Console") -> None:
    """Print both protocols, the comparison with baselines and shuffled images, and what was not computed."""
    for part in evaluation.protocols.values():
        console.print(render([part.result, *part.baselines]))
        for line in findings(part):
            console.print(line, markup=False, highlight=False)
        for group in part.groups:
            scores = ", ".join(f"{HEADINGS[name]} {group.scores[name].value:.3f}" for name in GROUP_METRICS)
            console.print(f"{group.studies} {group.protocol.group} studies: {scores}", markup=False, highlight=False)
    for note in evaluation.notes:
        console.print(f"note: {note}", markup=False, highlight=False)


def findings(part: ProtocolEvaluation) -> list[str]:
    """Sentences on how the system stands against its baselines and against shuffled images, in CIDEr-D."""
    lines = []
    for baseline, differences in (part.differences or {}).items():
        difference = differences[DECIDING_METRIC]
        lines.append(
            f"CIDEr-D minus that of {baseline}: {difference.value:+.3f} "
            f"[{difference.low:+.3f}, {difference.high:+.3f}] (paired bootstrap, {difference.level:.0%})"
        )
    if part.shuffle is not None:
        shuffled, difference = part.shuffle.scores[DECIDING_METRIC], part.shuffle.differences[DECIDING_METRIC]
        verdict = IGNORES_IMAGE if part.shuffle.ignores_image else "depends on the image"
        lines.append(
            f"CIDEr-D with images shuffled between studies: {shuffled:.3f}, true minus shuffled "
            f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]: {verdict}"
        )
    return lines


def _cells(results: Sequence[Result], line_break: str) -> list[list[str]]:
    """Header and lines. A metric that no result has is left out; one that a result lacks is a dash."""
    shown = [name for name in HEADINGS if name in METRICS or any(name in result.scores for result in results)]
    lines = [["system", "studies", *(HEADINGS[name] for name in shown), "distinct reports"]]
    for result in results:
        cells = []
        for name in shown:
            score = result.scores.get(name)
            cells.append("-" if score is None else f"{score.value:.3f}{line_break}[{score.low:.3f}, {score.high:.3f}]")
        name = f"{result.system}{line_break}({IGNORES_IMAGE})" if result.ignores_image else result.system
        lines.append([name, str(result.studies), *cells, f"{result.variety.distinct_reports:.1%}"])
    return lines
