"""Tables and page of `crossray analyze long-tail`."""

from pathlib import Path

from crossray.analysis.agreement import spoken
from crossray.analysis.long_tail import PARTS, LongTail
from crossray.errors import counted
from crossray.evaluation.metrics.clinical import POSITIVE
from crossray.files.write import write_whole
from crossray.pages import charts, page
from crossray.pages.tables import Grid, ends, value


def grids(found: LongTail) -> list[Grid]:
    """The means of the parts, and each observation."""
    described = f"{counted(found.studies, 'study')}, protocol {found.protocol}, labeler {found.labeler}"
    observations = [(name, part) for part, names in found.parts.items() for name in names]
    means = [[f"{part} ({len(found.parts[part])})", *_cells(found, part)] for part in PARTS]
    single = [
        [spoken(name), part, str(found.support[name]), *_cells(found, name)] for name, part in observations
    ]  # fmt: skip
    header = [
        cell
        for name in found.scores
        for cell in (
            name, "interval", *(["over runs"] if found.deviations[name] else []),
            *(["minus first"] if name in found.differences else []),
        )
    ]  # fmt: skip
    return [
        Grid(f"mean F1 of observations by frequency; {described}", ["", *header], means),
        Grid("F1 of each observation, positive only", ["", "part", "true", *header], single),
    ]


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


def _cells(found: LongTail, key: str) -> list[str]:
    cells = []
    for system, scores in found.scores.items():
        cells += [value(scores[key]), ends(scores[key])]
        if found.deviations[system]:
            cells.append(f"± {found.deviations[system][key]:.3f}")
        if system in found.differences:
            difference = found.differences[system][key]
            cells.append(f"{difference.value:+.3f} {ends(difference)}")
    return cells
