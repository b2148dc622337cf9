"""The output of `crossray evaluate`."""

from typing import TYPE_CHECKING

from crossray.errors import counted
from crossray.evaluation.alarms import IGNORES_IMAGE
from crossray.evaluation.metrics.degeneracy import CLINICAL_METRIC, DECIDING_METRIC, not_above
from crossray.evaluation.results import Evaluation, ProtocolEvaluation
from crossray.evaluation.statistics.significance import CIDER_NOTE
from crossray.pages.clinical_tables import class_grid, clinical_grid
from crossray.pages.tables import HEADINGS, Grid, markdown, render, signed, text_grid

if TYPE_CHECKING:
    from rich.console import Console

#: Metrics printed for normal and abnormal studies; the scores file contains all metrics.
GROUP_METRICS = ("bleu4", "rouge_l", DECIDING_METRIC, CLINICAL_METRIC)

_SHORT = {DECIDING_METRIC: HEADINGS[DECIDING_METRIC], CLINICAL_METRIC: HEADINGS[CLINICAL_METRIC]}


def print_evaluation(evaluation: Evaluation, console: "Console") -> None:
    """Print alarms, scores, comparisons, clinical efficacy and variety under each protocol, and notes."""
    for part in evaluation.protocols.values():
        for alarm in part.alarms:
            line = f"ALARM {part.result.system}: {alarm.sentence}"
            console.print(line, highlight=False, style="bold red")
        console.print()
        console.print(render([part.result, *part.baselines]), crop=False)
        for line in findings(part):
            console.print(line, highlight=False)
        for grid in _grids(part):
            console.print()
            console.print(grid.render(), crop=False)
        console.print()
    for note in _notes(evaluation):
        console.print(f"note: {note}", highlight=False)


def markdown_page(evaluation: Evaluation) -> str:
    """The output of `print_evaluation` as Markdown."""
    blocks = []
    for name, part in evaluation.protocols.items():
        results = [part.result, *part.baselines]
        blocks.append(f"## {part.result.system}, protocol {name}\n")
        blocks += [f"**ALARM** {alarm.sentence}\n" for alarm in part.alarms]
        blocks.append(markdown(results))
        blocks.append("".join(f"- {line}\n" for line in findings(part)))
        blocks += [grid.markdown() for grid in _grids(part)]
    blocks.append("".join(f"- note: {note}\n" for note in _notes(evaluation)))
    return "\n".join(blocks)


def _notes(evaluation: Evaluation) -> list[str]:
    """Notes on scores that were not computed, on the time stored in the predictions, and on the intervals."""
    seconds = evaluation.seconds
    time = [] if seconds is None else [f"{seconds:.2f} seconds per report, according to the predictions file"]
    return [*time, *evaluation.notes, CIDER_NOTE]


def _grids(part: ProtocolEvaluation) -> list[Grid]:
    """The tables after the first one."""
    clinical = [clinical_grid([part.result, *part.baselines]), class_grid(part.result)] if part.result.classes else []
    return [*clinical, text_grid(part)]


def findings(part: ProtocolEvaluation) -> list[str]:
    """Sentences on the differences from baselines and shuffled images, and on groups of studies."""
    lines = []
    for baseline, differences in part.differences.items():
        shown = ", ".join(
            f"{heading} {signed(differences[metric])}" for metric, heading in _SHORT.items() if metric in differences
        )
        lines.append(f"minus {baseline}: {shown} (paired bootstrap, {differences[DECIDING_METRIC].level:.0%})")
    if part.shuffle is not None:
        for metric, heading in _SHORT.items():
            if metric in part.shuffle.differences:
                difference = part.shuffle.differences[metric]
                verdict = IGNORES_IMAGE if not_above(difference) else "depends on the image"
                lines.append(
                    f"{heading} with images shuffled between studies: {part.shuffle.scores[metric]:.3f}, "
                    f"true minus shuffled {signed(difference)}: {verdict}"
                )
    for group in part.groups:
        scores = [f"{HEADINGS[name]} {group.scores[name].value:.3f}" for name in GROUP_METRICS if name in group.scores]
        lines.append(f"{counted(group.studies, 'study')}, {group.protocol.group}: {', '.join(scores)}")
    return lines
