"""Line and bar charts as inline SVG, as wide as a phone, so that their letters keep their size everywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import Literal

from crossray.evaluation.statistics.significance import Interval

#: Colours of page.css, and outlines of dots; a further series begins anew.
COLOURS = 6

WIDTH = 352

_LEFT, _RIGHT, _TOP, _BOTTOM = 44, WIDTH - 12, 10, 176
_HEIGHT = _BOTTOM + 36
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0, 20.0, 50.0)

#: Outlines of the dots of lines, one a colour: lines are told apart without colours too.
_DOTS = (
    "M-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0z",
    "M-3-3h6v6h-6z",
    "M0-4.4l4.4 4.4-4.4 4.4-4.4-4.4z",
    "M0-4l4.2 7h-8.4z",
    "M0 4l4.2-7h-8.4z",
    "M-1.4-4.2h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8v-2.8h2.8z",
)

#: What stands for a series in a legend.
Shape = Literal["bar", "line", "thin"]


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: whose values they are.
        points: (x, y), in the order of x.
        colour: number of its colour.
        thin: drawn thin and dashed, without dots.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    colour: int
    thin: bool = False


@dataclass(frozen=True)
class Bars:
    """The bars that stand under one label, one a series.

    Attributes:
        label: what they are of.
        note: a remark beside the label.
        values: a value between 0 and 1 with its interval a series; None where it has none.
    """

    label: str
    note: str
    values: tuple[Interval | None, ...]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most `most` round numbers, about evenly spread, whose first and last enclose `low` to `high`."""
    largest = max(abs(low), abs(high))
    if high - low <= max(1e-5, 1e-9 * largest):  # closer values would only show how numbers are rounded
        around = largest / 2 if largest > 1e-4 else 0.5
        low, high = low - around, high + around
    magnitude = 10.0 ** floor(log10((high - low) / (most - 1)))
    for step in (magnitude * factor for factor in _STEPS):
        first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
        if last - first < most:
            break
    return [round(number * step, 12) for number in range(first, last + 1)]


def line_chart(lines: Sequence[Line], caption: str, x_label: str) -> str:
    """A figure with lines over one pair of axes; "" when there is no point.

    Args:
        lines: what to draw; a line of one point is a dot.
        caption: what the y axis shows.
        x_label: what the x axis shows.
    """
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    xs, ys = zip(*points, strict=True)
    x_ticks, y_ticks = ticks(min(0.0, *xs), max(xs), 5), ticks(min(ys), max(ys), 5)
    x_scale = _Scale(x_ticks[0], max(*xs, x_ticks[0] + 1e-9), _LEFT, _RIGHT)
    y_scale = _Scale(y_ticks[0], y_ticks[-1], _BOTTOM, _TOP)
    pieces = []
    for value in y_ticks:
        y = y_scale(value)
        pieces.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        pieces.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in (value for value in x_ticks if value <= max(xs)):
        x = x_scale(value)
        pieces.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{_BOTTOM}" y2="{_BOTTOM + 4}"/>')
        pieces.append(f'<text x="{x:.1f}" y="{_BOTTOM + 16}" text-anchor="middle">{value:g}</text>')
    pieces.append(f'<path class="axis" fill="none" d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}"/>')
    middle = (_LEFT + _RIGHT) / 2
    pieces.append(f'<text x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>')
    pieces += [_drawn(line, x_scale, y_scale, caption, x_label) for line in lines if line.points]
    summary = "; ".join(
        f"{line.name} from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}" for line in lines if line.points
    )
    return _figure(caption, f"{caption} by {x_label}: {summary}", _HEIGHT, pieces)


def bar_chart(groups: Sequence[Bars], series: Sequence[str], caption: str, note: str = "") -> str:
    """A figure of horizontal bars from 0 to 1 with their intervals as whiskers, in the order of `series`.

    Args:
        groups: bars by label.
        series: names of the series.
        caption: what a bar's length shows.
        note: a smaller line beneath the caption.
    """
    scale = _Scale(0.0, 1.0, 0.0, WIDTH - 34)
    pieces: list[str] = []
    y = 0
    for group in groups:
        pieces.append(f'<text class="label" x="0" y="{y + 12}">{escape(group.label)}</text>')
        pieces.append(f'<text x="{WIDTH}" y="{y + 12}" text-anchor="end">{escape(group.note)}</text>')
        y += 17
        for number, (name, value) in enumerate(zip(series, group.values, strict=True)):
            pieces.append(_bar(name, value, number, group.label, y, scale))
            y += 12
        y += 8
    bottom = y - 4
    pieces.append(f'<line class="axis" x1="0" x2="{scale(1):.1f}" y1="{bottom}" y2="{bottom}"/>')
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = scale(tick)
        anchor = "start" if tick == 0 else "middle"
        pieces.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
        pieces.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="{anchor}">{tick:g}</text>')
    summary = f"{caption} of {', '.join(series)} for {len(groups)} observations; the numbers stand in a table below"
    return _figure(caption, summary, bottom + 20, pieces, note)


def legend(names: Sequence[str], shape: Shape = "bar") -> str:
    """The colours of series, with a bar or a line of each."""
    items = (
        f'<li class="{_colour(number)}">{_sample(shape, number)}{escape(name)}</li>'
        for number, name in enumerate(names)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def line_styles(thin: str, thick: str) -> str:
    """A legend of what thin and thick lines mean, whatever their colour."""
    styles: tuple[tuple[Shape, str], ...] = (("thin", thin), ("line", thick))
    items = (f'<li class="plain">{_sample(shape)}{escape(text)}</li>' for shape, text in styles)
    return f'<ul class="legend">{"".join(items)}</ul>'


def swatch(number: int) -> str:
    """A small square in the colour of a series."""
    return (
        f'<svg class="{_colour(number)}" viewBox="0 0 12 12" aria-hidden="true">'
        '<rect class="bar" x="1" y="1" width="10" height="10" rx="2"/></svg>'
    )


@dataclass(frozen=True)
class _Scale:
    """Values from `low` to `high` onto pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _drawn(line: Line, x_scale: _Scale, y_scale: _Scale, caption: str, x_label: str) -> str:
    places = [(x_scale(x), y_scale(y)) for x, y in line.points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    kind = "line thin" if line.thin else "line"
    dots = [
        _dot(line.colour, x, y, f"{line.name}: {caption} {value:.4g} at {x_label} {at:g}")
        for (x, y), (at, value) in zip(places, line.points, strict=True)
        if not line.thin
    ]
    return f'<g class="{_colour(line.colour)}"><path class="{kind}" d="{path}"/>{"".join(dots)}</g>'


def _bar(name: str, value: Interval | None, number: int, label: str, y: int, scale: _Scale) -> str:
    if value is None:
        return f'<text x="0" y="{y + 9}">no value</text>'
    middle = y + 5
    end = max(scale(value.value), scale(value.high)) + 4
    explained = f"{name}, {label}: {value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
    return (
        f'<g class="{_colour(number)}"><title>{escape(explained)}</title>'
        f'<rect class="bar" x="0" y="{y}" width="{scale(value.value):.1f}" height="10"/>'
        f'<path class="whisker" d="M{scale(value.low):.1f} {middle}H{scale(value.high):.1f}"/>'
        f'<text x="{end:.1f}" y="{y + 9}">{value.value:.2f}</text></g>'
    )


def _figure(caption: str, summary: str, height: int, pieces: Sequence[str], note: str = "") -> str:
    beneath = f"<small>{escape(note)}</small>" if note else ""
    drawing = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(summary)}">{"".join(pieces)}</svg>'
    return f"<figure><figcaption>{escape(caption)}{beneath}</figcaption>{drawing}</figure>"


def _sample(shape: Shape, number: int = 0) -> str:
    if shape == "bar":
        drawing = '<rect class="bar" x="0" y="1" width="30" height="10"/>'
    elif shape == "thin":
        drawing = '<path class="line thin" d="M0 6H30"/>'
    else:
        drawing = f'<path class="line" d="M0 6H30"/>{_dot(number, 15, 6)}'
    return f'<svg viewBox="0 0 30 12" aria-hidden="true">{drawing}</svg>'


def _dot(number: int, x: float, y: float, explained: str = "") -> str:
    title = f"<title>{escape(explained)}</title>" if explained else ""
    return f'<path class="dot" transform="translate({x:.1f} {y:.1f})" d="{_DOTS[number % COLOURS]}">{title}</path>'


def _colour(number: int) -> str:
    return f"series-{number % COLOURS}"
