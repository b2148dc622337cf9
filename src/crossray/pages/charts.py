"""Line and bar charts as inline SVG, as wide as a phone screen, so that their text has the same size on all screens."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Any, Literal

from crossray.evaluation.statistics.significance import Interval
from crossray.pages.page import piece

if TYPE_CHECKING:
    from markupsafe import Markup

#: Number of series colors in page.css; further series reuse them.
COLOURS = 6

WIDTH = 352

_LEFT, _RIGHT, _TOP, _BOTTOM = 44, WIDTH - 12, 10, 176
_HEIGHT = _BOTTOM + 36
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0, 20.0, 50.0)

#: Shapes of the dots of lines, one per color, so lines can be distinguished without colors.
_DOTS = (
    "M-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0z",
    "M-3-3h6v6h-6z",
    "M0-4.4l4.4 4.4-4.4 4.4-4.4-4.4z",
    "M0-4l4.2 7h-8.4z",
    "M0 4l4.2-7h-8.4z",
    "M-1.4-4.2h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8v-2.8h2.8z",
)

#: The symbol of a series in a legend.
Shape = Literal["bar", "line", "thin"]


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: name of the series.
        points: (x, y) pairs, sorted by x.
        colour: index of its color.
        thin: whether it is drawn thin and dashed, without dots.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    colour: int
    thin: bool = False


@dataclass(frozen=True)
class Bars:
    """The bars under one label, one per series.

    Attributes:
        label: label of the group.
        note: note next to the label.
        values: per series, a value between 0 and 1 with its interval, or None.
    """

    label: str
    note: str
    values: tuple[Interval | None, ...]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` evenly spaced round numbers that cover the range from `low` to `high`."""
    largest = max(abs(low), abs(high))
    if high - low <= max(1e-5, 1e-9 * largest):  # smaller differences would only show rounding
        around = largest / 2 if largest > 1e-4 else 0.5
        low, high = low - around, high + around
    magnitude = 10.0 ** floor(log10((high - low) / (most - 1)))
    for step in (magnitude * factor for factor in _STEPS):
        first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
        if last - first < most:
            break
    return [round(number * step, 12) for number in range(first, last + 1)]


def line_chart(lines: Sequence[Line], caption: str, x_label: str) -> "Markup | str":
    """Render a figure with lines over a pair of axes; "" without any points.

    Args:
        lines: the lines; a line with a single point is drawn as a dot.
        caption: caption, which describes the y axis.
        x_label: label of the x axis.
    """
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    xs, ys = zip(*points, strict=True)
    x_ticks, y_ticks = ticks(min(0.0, *xs), max(xs), 5), ticks(min(ys), max(ys), 5)
    x_scale = _Scale(x_ticks[0], max(*xs, x_ticks[0] + 1e-9), _LEFT, _RIGHT)
    y_scale = _Scale(y_ticks[0], y_ticks[-1], _BOTTOM, _TOP)
    summary = "; ".join(
        f"{line.name} from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}" for line in lines if line.points
    )
    chart = {
        **_frame(caption, f"{caption} by {x_label}: {summary}", _HEIGHT),
        "left": _LEFT, "right": _RIGHT, "top": _TOP, "bottom": _BOTTOM, "x_label": x_label,
        "x_ticks": [_tick(x_scale, value) for value in x_ticks if value <= max(xs)],
        "y_ticks": [_tick(y_scale, value) for value in y_ticks],
        "lines": [_drawn(line, x_scale, y_scale, caption, x_label) for line in lines if line.points],
    }  # fmt: skip
    return piece("charts.html", "line_chart", chart=chart)


def bar_chart(groups: Sequence[Bars], series: Sequence[str], caption: str, note: str = "") -> "Markup":
    """Render a figure of horizontal bars from 0 to 1, in the order of `series`, with intervals as whiskers.

    Args:
        groups: bars by label.
        series: names of the series.
        caption: caption, which describes the length of a bar.
        note: a smaller line below the caption.
    """
    scale = _Scale(0.0, 1.0, 0.0, WIDTH - 34)
    drawn = []
    y = 0
    for group in groups:
        bars = [
            _bar(name, value, number, group.label, y + 17 + 12 * number, scale)
            for number, (name, value) in enumerate(zip(series, group.values, strict=True))
        ]
        drawn.append({"label": group.label, "note": group.note, "y": y + 12, "bars": bars})
        y += 17 + 12 * len(bars) + 8
    bottom = y - 4
    summary = f"{caption} of {', '.join(series)} for {len(groups)} observations; a table below contains the numbers"
    chart = {
        **_frame(caption, summary, bottom + 20, note),
        "groups": drawn,
        "bottom": bottom,
        "ticks": [_tick(scale, value) for value in (0.0, 0.25, 0.5, 0.75, 1.0)],
    }
    return piece("charts.html", "bar_chart", chart=chart)


def legend(names: Sequence[str], shape: Shape = "bar") -> "Markup":
    """Render a legend of the series, with a bar or a line in each color."""
    entries = [
        {"colour": _colour(number), "shape": shape, "text": name, "dot": _dot(number, 15, 6)}
        for number, name in enumerate(names)
    ]
    return piece("charts.html", "legend", entries=entries)


def line_styles(thin: str, thick: str) -> "Markup":
    """Render a legend of thin and thick lines, independent of their color."""
    styles: tuple[tuple[Shape, str], ...] = (("thin", thin), ("line", thick))
    entries = [{"colour": "plain", "shape": shape, "text": text, "dot": _dot(0, 15, 6)} for shape, text in styles]
    return piece("charts.html", "legend", entries=entries)


def swatch(number: int) -> "Markup":
    """Render a small square in the color of a series."""
    return piece("charts.html", "swatch", colour=_colour(number))


@dataclass(frozen=True)
class _Scale:
    """Maps values from `low` to `high` to pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


#: The template's values for a part of a chart.
_Part = dict[str, Any]


def _frame(caption: str, summary: str, height: int, note: str = "") -> _Part:
    return {"caption": caption, "note": note, "summary": summary, "width": WIDTH, "height": height}


def _tick(scale: _Scale, value: float) -> _Part:
    return {"at": scale(value), "text": f"{value:g}"}


def _drawn(line: Line, x_scale: _Scale, y_scale: _Scale, caption: str, x_label: str) -> _Part:
    places = [(x_scale(x), y_scale(y)) for x, y in line.points]
    dots = [
        _dot(line.colour, x, y, f"{line.name}: {caption} {value:.4g} at {x_label} {at:g}")
        for (x, y), (at, value) in zip(places, line.points, strict=True)
        if not line.thin
    ]
    return {"colour": _colour(line.colour), "thin": line.thin, "places": places, "dots": dots}


def _bar(name: str, value: Interval | None, number: int, label: str, y: int, scale: _Scale) -> _Part:
    if value is None:
        return {"value": None, "y": y}
    return {
        "value": value.value,
        "title": f"{name}, {label}: {value.value:.3f} [{value.low:.3f}, {value.high:.3f}]",
        "colour": _colour(number),
        "y": y,
        "width": scale(value.value),
        "low": scale(value.low),
        "high": scale(value.high),
        "end": max(scale(value.value), scale(value.high)) + 4,
    }


def _dot(number: int, x: float, y: float, title: str = "") -> _Part:
    return {"x": x, "y": y, "outline": _DOTS[number % COLOURS], "title": title}


def _colour(number: int) -> str:
    return f"series-{number % COLOURS}"
