"""Tables and page of `crossray analyze long-tail`."""

from pathlib import Path

from crossray.analysis.agreement import spoken
from crossray.analysis.long_tail import PARTS, LongTail
from crossray.errors import counted
from crossray.evaluation.metrics.clinical import POSITIVE
from crossray.files.write import write_whole
from crossray.pages import charts, page
from crossray.pages.tables import Grid, ends, signed, value


def grids(found: LongTail) -> list[Grid]:
    """The means of the parts, F1 and interval of each observation, and for several systems the differences.

    Scores of systems with several runs have the standard deviation over the runs behind them.
    """
    described = f"{counted(found.studies, 'study')}, protocol {found.protocol}, labeler {found.labeler}"
    systems, first = list(found.scores), next(iter(found.scores))
    observations = [(name, part) for part, names in found.parts.items() for name in names]
    means = [[system, *(f"{_score(found, system, part)} {ends(scores[part])}" for part in PARTS)]
             for system, scores in found.scores.items()]  # fmt: skip
    means += [[f"{system} minus {first}", *(signed(difference[part]) for part in PARTS)]
              for system, difference in found.differences.items()]  # fmt: skip
    single = [[spoken(name), part, str(found.support[name]), *(_score(found, system, name) for system in systems)]
              for name, part in observations]  # fmt: skip
    bounds = ((name, [found.scores[system][name] for system in systems]) for name, _ in observations)
    intervals = [[spoken(name), *(f"{score.low:.3f}-{score.high:.3f}" for score in scores)] for name, scores in bounds]
    shown = [
        Grid(f"mean F1 of observations by frequency; {described}",
             ["", *(f"{part} ({len(found.parts[part])})" for part in PARTS)], means),
        Grid("F1 of each observation, positive only", ["", "part", "true", *systems], single),
        Grid("bootstrap intervals of the F1", ["", *systems], intervals),
    ]  # fmt: skip
    if found.differences:
        lines = [[spoken(name), *(signed(one[name]) for one in found.differences.values())] for name, _ in observations]
        shown.append(Grid(f"F1 of each observation minus that of {first}", ["", *found.differences], lines))
    return shown


def write_page(found: LongTail, path: Path) -> None:
    """Write a page with chart and tables, atomically.

    Raises:
        UserError: the file cannot be written.
    """
    systems = list(found.scores)
    bars = [
        charts.Bars(
            label=label,
            note=note,
            values=tuple(found.scores[system][key] for system in systems),
        )
        for key, label, note in _rows(found)
    ]
    html = page.document(
        "long_tail.html",
        "Long tail",
        legend=charts.legend(systems),
        chart=charts.bar_chart(bars, systems, "F1", POSITIVE.name),
        tables=[page.table(grid.header, grid.lines, caption=grid.title) for grid in grids(found)],
    )
    write_whole(path, html)


def _rows(found: LongTail) -> list[tuple[str, str, str]]:
    """Key, label and note of each group of bars: the mean of each part, followed by its observations."""
    rows = []
    for part, names in found.parts.items():
        rows.append((part, part.capitalize(), f"mean of {len(names)}"))
        rows += [(name, spoken(name), f"in {found.support[name]} of {found.studies}") for name in names]
    return rows


def _score(found: LongTail, system: str, key: str) -> str:
    deviations = found.deviations[system]
    return value(found.scores[system][key]) + (f" ± {deviations[key]:.3f}" if deviations else "")
