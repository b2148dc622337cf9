"""The page of `crossray calibrate`: reliability diagrams, risk by coverage, and the input check."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossray.confidence.calibration import UNITS, Calibration
from crossray.confidence.check import InputChecker
from crossray.files.write import write_whole
from crossray.pages import page
from crossray.pages.charts import Line, legend, line_chart
from crossray.pages.confidence_tables import CHECK_NOTE, CONFIDENCE_NOTE, check_grids, confidence_grids, heading
from crossray.pages.tables import Grid

if TYPE_CHECKING:
    from markupsafe import Markup

_NOTICE = "Research software. It is not a medical device; a calibrated confidence does not justify acting on a report."

#: Rows shown in the diagrams; the tables contain all rows.
_SHOWN = ("as the model gives it", "Platt", "with drawn reports")


def confidence_page(name: str, calibration: Calibration, checker: InputChecker) -> str:
    """Build the page as self-contained HTML.

    Args:
        name: name of the model.
        calibration: calibration of the model.
        checker: input checker of the model.
    """
    grids = confidence_grids(calibration)
    units = [
        {"name": unit, "charts": _charts(calibration.measured[unit]), "tables": [_table(grid) for grid in tables]}
        for unit, tables in zip(UNITS, (grids[:2], grids[2:]), strict=True)
    ]
    return page.document(
        "confidence.html",
        f"{name}: confidence and input checks",
        notice=_NOTICE,
        units=units,
        note=CONFIDENCE_NOTE,
        checks=[_table(grid) for grid in check_grids(checker)],
        check_note=CHECK_NOTE,
    )


def write_confidence(name: str, calibration: Calibration, checker: InputChecker, path: Path) -> None:
    """Write the tables as Markdown if the name ends in .md, and the page otherwise.

    Raises:
        UserError: the file cannot be written.
    """
    if path.suffix.lower() != ".md":
        write_whole(path, confidence_page(name, calibration, checker))
        return
    parts = [f"# {name}: confidence and input checks\n", f"{_NOTICE}\n"]
    parts += [grid.markdown() for grid in confidence_grids(calibration)]
    parts += [CONFIDENCE_NOTE + "\n", *(grid.markdown() for grid in check_grids(checker)), CHECK_NOTE + "\n"]
    write_whole(path, "\n".join(parts))


def _charts(measured: Any) -> list["Markup | str"]:
    ways = {name: measured["ways"][name] for name in _SHOWN if name in measured["ways"]}
    if not ways:
        return []
    reliability = [Line("perfect calibration", ((0.0, 0.0), (1.0, 1.0)), 5, thin=True)]
    risks = []
    for colour, (name, one) in enumerate(ways.items()):
        points = tuple((bin_["confidence"], bin_["accuracy"]) for bin_ in one["bins"] if bin_["count"])
        reliability.append(Line(heading(name), points, colour))
        risks.append(Line(heading(name), tuple(zip(measured["coverages"], one["risks"], strict=True)), colour))
    return [
        legend([heading(name) for name in ways], "line"),
        line_chart(reliability, "accuracy in ten bins of confidence", "confidence"),
        line_chart(risks, "risk among the most confident", "coverage"),
    ]


def _table(grid: Grid) -> "Markup":
    return page.table(grid.header, grid.lines, caption=grid.title)
