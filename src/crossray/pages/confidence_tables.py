"""Tables of `crossray calibrate`: the quality of a model's confidence, and the results of its input check."""

from typing import Any

from crossray.confidence.calibration import UNITS, Calibration
from crossray.confidence.check import InputChecker
from crossray.confidence.fitting import LEAST_AREA
from crossray.errors import counted
from crossray.pages.tables import Grid

#: Note below the tables of confidence.
CONFIDENCE_NOTE = (
    "A statement is right if each observation that it claims to be present or absent is so in the true report, "
    "according to the rules. All rows except the first are cross-fitted: each patient is evaluated with a calibration "
    "fitted on others. Risk is the share of wrong statements; the area under it is the mean risk over all coverages. "
    "Lower is better, and only a better order of the statements lowers it."
)

#: Note below the tables of the input check.
CHECK_NOTE = (
    "AUROC: probability that the score of the correct flag is higher for an altered image than for an original. "
    "Correct flag: share of images with this flag; any flag: share of images with at least one flag. "
    f"A flag whose AUROC is below {LEAST_AREA} is not used."
)

#: Headings by the names in `measured`, where they differ.
_HEADINGS = {
    "as the model gives it": "model probability",
    "with base rates": "Platt, with base rate",
    "with drawn reports": "Platt, with base rate and agreement",
    "something is there": "present",
    "nothing is there": "absent",
}


def heading(name: str) -> str:
    """The heading of a row of `measured` in tables and charts."""
    return _HEADINGS.get(name, name)


def confidence_grids(calibration: Calibration) -> list[Grid]:
    """Two tables for sentences and two for observations."""
    return [
        grid
        for unit in UNITS
        for grid in (
            _ways(unit, calibration.measured[unit], calibration.about),
            _parts(unit, calibration.measured[unit]),
        )
    ]


def check_grids(checker: InputChecker) -> list[Grid]:
    """Two tables: limits with their false alarms, and detection rates by kind of alteration."""
    about, measured = checker.about, checker.measured
    alarms = [
        [name.replace("_", " "), f"{checker.limits[name]:.3f}", f"{share:.1%}"]
        for name, share in measured["false_alarms"].items()
    ]
    alarms.append(["any flag, of studies", "", f"{measured['studies_flagged']:.1%}"])
    mistakes = [
        [name, str(one["images"]), f"{one['auroc']:.3f}", f"{one['named']:.1%}", f"{one['flagged']:.1%}"]
        for name, one in measured["mistakes"].items()
    ]
    where = f"{counted(about['images'], 'image')} of split {about['split']}"
    return [
        Grid(f"input check: limits and false alarms on {where}", ["flag", "limit", "false alarms"], alarms),
        Grid(
            f"input check: altered {where}",
            ["alteration", "images", "AUROC", "correct flag", "any flag"],
            mistakes,
        ),
    ]


def _parts(unit: str, measured: Any) -> Grid:
    """Mean confidence and accuracy by kind of claim, one of which is rare."""
    ways = list(measured["ways"])
    lines = []
    for name, part in measured.get("parts", {}).items():
        if part["statements"]:
            means = [f"{part['confidence'][way]:.3f}" for way in ways]
            lines.append([heading(name), str(part["statements"]), f"{part['right']:.3f}", *means])
    return Grid(f"mean confidence of {unit} by claim", ["", unit, "right", *map(heading, ways)], lines)


def _ways(unit: str, measured: Any, about: Any) -> Grid:
    title = (
        f"confidence of {unit}: {measured['statements']} in the reports of {counted(about['studies'], 'study')} of "
        f"split {about['split']}, labeler {about['labeler']}"
    )
    if measured["silent"]:
        title += f"; {measured['silent']} {unit} without an observation are left out"
    header = ["confidence", "ECE", "Brier", "area under risk", "risk at 50%", "risk at 80%", "risk at 100%"]
    lines = []
    for name, one in measured["ways"].items():
        risks = dict(zip(measured["coverages"], one["risks"], strict=True))
        cells = [one["ece"], one["brier"], one["area"], risks[0.5], risks[0.8], risks[1.0]]
        lines.append([heading(name), *(f"{value:.3f}" for value in cells)])
    if lines:
        lines.append(["oracle order", "", "", f"{measured['area_oracle']:.3f}", "", "", ""])
        lines.append(["random order", "", "", f"{measured['area_random']:.3f}", "", "", ""])
    return Grid(title, header, lines)
