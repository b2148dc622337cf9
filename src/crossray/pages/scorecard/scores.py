"""The tables of a scorecard: language metrics and clinical efficacy, with baselines."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crossray.evaluation.alarms import IGNORES_IMAGE
from crossray.evaluation.metrics.clinical import (
    AVERAGES,
    CONVENTIONS,
    MEASURES,
    OBSERVATION_SETS,
    Convention,
    metric_name,
)
from crossray.evaluation.results import Result
from crossray.evaluation.statistics.significance import Interval
from crossray.evaluation.trivial import TAG_ORACLE, TRIVIAL
from crossray.pages import page
from crossray.pages.scorecard.provenance import protocol_words
from crossray.pages.scorecard.runs import System
from crossray.pages.tables import HEADINGS

if TYPE_CHECKING:
    from markupsafe import Markup

NO_VALUE = "-"

#: Notes below the names of the baselines.
_BASELINES = {**dict.fromkeys(TRIVIAL, "trivial baseline"), TAG_ORACLE: "knows the true findings"}

#: The name of a line of a table, and its result.
Line = tuple[page.Cell, Result]


#: Summary of the collapsed tables.
_GROUPS = "Normal and abnormal studies separately"


def tables(systems: Sequence[System], name: str) -> dict[str, Any]:
    """All tables under one protocol."""
    lines = _lines(systems, name)
    shown = [_language(systems, name, lines)]
    if any(result.classes for _, result in lines):
        shown += [_clinical(lines, convention, own=range(len(systems))) for convention in CONVENTIONS]
    groups: list[Line] = [
        ((system.name, f"{group.studies} {group.protocol.group} studies"), group)
        for system in systems
        for group in system.evaluation.protocols[name].groups
    ]
    return {
        "name": name,
        "words": protocol_words(lines[0][1].protocol),
        "tables": shown,
        "summary": _GROUPS,
        "groups": _scores(groups, f"Protocol {name}: {_GROUPS.lower()}") if groups else "",
    }


def value(score: Interval | None) -> page.Cell:
    """A score with its interval below."""
    return NO_VALUE if score is None else (f"{score.value:.3f}", _ends(score))


def present(convention: Convention) -> str:
    """Describe a convention."""
    return f"{convention.name} counts as present"


def _lines(systems: Sequence[System], name: str) -> list[Line]:
    """The systems by their names on the page, followed by the baselines, which are the same for all systems."""
    parts = [system.evaluation.protocols[name] for system in systems]
    baselines = {baseline.system: baseline for part in reversed(parts) for baseline in part.baselines}
    return [
        *(
            ((system.name, IGNORES_IMAGE) if part.result.ignores_image else system.name, part.result)
            for system, part in zip(systems, parts, strict=True)
        ),
        *(((baseline, _BASELINES[baseline]), result) for baseline, result in baselines.items()),
    ]


def _language(systems: Sequence[System], name: str, lines: Sequence[Line]) -> "Markup":
    """The main table, which also contains each system's scores with shuffled images."""
    shuffled = []
    for system in systems:
        check = system.evaluation.protocols[name].shuffle
        if check is not None:
            shuffled.append((system.name, check.scores))
    level = next(f"{score.level:.0%}" for score in lines[0][1].scores.values())
    return _scores(lines, f"Protocol {name}: scores with their {level} bootstrap intervals", len(systems), shuffled)


def _scores(
    lines: Sequence[Line], caption: str, systems: int = 0, shuffled: Sequence[tuple[str, Mapping[str, float]]] = ()
) -> "Markup":
    """A table with one line per result: the systems in bold, their scores with shuffled images, and the others."""
    metrics = [metric for metric in HEADINGS if any(metric in result.scores for _, result in lines)]
    rows: list[list[page.Cell]] = [
        [
            label,
            *(value(result.scores.get(metric)) for metric in metrics),
            f"{result.variety.distinct_reports:.1%}",
        ]
        for label, result in lines
    ]
    rows[systems:systems] = [
        [
            (label, "images shuffled"),
            *(f"{scores[metric]:.3f}" if metric in scores else NO_VALUE for metric in metrics),
            "",
        ]
        for label, scores in shuffled
    ]
    headings = ["system", *(HEADINGS[metric] for metric in metrics), "different reports"]
    return page.table(headings, rows, own=range(systems), caption=caption)


def _clinical(lines: Sequence[Line], convention: Convention, own: Sequence[int]) -> "Markup":
    """Example-based, micro and macro scores over 14 and 5 observations."""
    columns = [(key, average) for key in OBSERVATION_SETS for average in AVERAGES]
    rows: list[list[page.Cell]] = []
    for label, result in lines:
        scores = [
            [result.scores.get(metric_name(measure, average, key, convention.suffix)) for measure in MEASURES]
            for key, average in columns
        ]
        rows.append([label, *(_three(*three) for three in scores)])
    headings = ["system", *(f"{average}, {len(OBSERVATION_SETS[key])}" for key, average in columns)]
    caption = (
        f"Clinical efficacy, {present(convention)}: F1, its interval, and precision / recall, averaged in three ways "
        "over 14 and 5 observations"
    )
    return page.table(headings, rows, own=own, caption=caption)


def _three(precision: Interval | None, recall: Interval | None, f1: Interval | None) -> page.Cell:
    if precision is None or recall is None or f1 is None:
        return NO_VALUE
    return f"{f1.value:.3f}", _ends(f1), f"{precision.value:.3f} / {recall.value:.3f}"


def _ends(score: Interval) -> str:
    return f"[{score.low:.3f}, {score.high:.3f}]"
