"""Charts put values where their axes say they are."""

import itertools
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.pages.html_reader import Reader

from crossray.evaluation.statistics.significance import Interval
from crossray.pages import charts


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
@example(0.0, 5e-324)
@example(0.0, 1.1e-12)
@example(1.0, 1.0 + 1e-7)
def test_ticks_enclose_the_values_evenly(first: float, second: float) -> None:
    low, high = sorted((first, second))
    marks = charts.ticks(low, high)
    slack = 1e-6 * max(1e-6, high - low)
    assert marks[0] <= low + slack
    assert marks[-1] >= high - slack
    assert 2 <= len(marks) <= 5
    gaps = [right - left for left, right in itertools.pairwise(marks)]
    assert max(gaps) - min(gaps) <= 1e-6 * max(gaps)


def test_ticks_are_round() -> None:
    assert charts.ticks(0, 400) == [0, 100, 200, 300, 400]
    assert charts.ticks(0.303, 0.357) == [0.3, 0.32, 0.34, 0.36]


def test_a_line_agrees_with_its_axes() -> None:
    """Values are read back from the drawing through the places of the labels of the ticks."""
    points = ((0.0, 1.0), (50.0, 3.5), (100.0, 2.0))
    svg = charts.line_chart([charts.Line("a", points, 0)], "loss", "step")
    dots = [tuple(map(float, dot)) for dot in re.findall(r"translate\(([\d.]+) ([\d.]+)\)", svg)]
    labels = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(end|middle)">([\d.]+)</text>', svg)
    ys = {float(text): float(y) - 4 for _, y, anchor, text in labels if anchor == "end"}
    xs = {float(text): float(x) for x, _, anchor, text in labels if anchor == "middle"}
    for (x, y), (dot_x, dot_y) in zip(points, dots, strict=True):
        assert xs[0] + (xs[100] - xs[0]) * x / 100 == pytest.approx(dot_x, abs=0.2)
        assert ys[1] + (ys[3] - ys[1]) * (y - 1) / 2 == pytest.approx(dot_y, abs=0.2)


def test_a_flat_line_and_a_single_point_are_drawn() -> None:
    assert 'class="dot"' in charts.line_chart([charts.Line("a", ((5.0, 2.0),), 0)], "loss", "step")
    assert "nan" not in charts.line_chart([charts.Line("a", ((0.0, 2.0), (1.0, 2.0)), 0)], "loss", "step")
    assert charts.line_chart([charts.Line("a", (), 0)], "loss", "step") == ""


def test_bars_are_as_long_as_their_values() -> None:
    group = charts.Bars("edema", "in 3", (Interval(0.5, 0.25, 0.75), Interval(1.0, 1.0, 1.0), None))
    svg = charts.bar_chart([group], ["a", "b", "c"], "F1")
    half, whole = (float(width) for width in re.findall(r'class="bar" x="0" y="\d+" width="([\d.]+)"', svg))
    assert half == pytest.approx(whole / 2)
    start, end = (float(place) for place in re.findall(r'class="whisker" d="M([\d.]+) \d+H([\d.]+)"', svg)[0])
    assert (start, end) == pytest.approx((whole / 4, whole * 3 / 4), abs=0.1)
    assert "no value" in svg


def test_names_are_escaped_and_the_chart_is_described() -> None:
    hostile = '<b>"&'
    line = charts.Line(hostile, ((0.0, 1.0), (1.0, 2.0)), 7)
    bars = charts.Bars(hostile, hostile, (Interval(0.5, 0.4, 0.6),))
    html = charts.line_chart([line], hostile, hostile) + charts.bar_chart([bars], [hostile], hostile, hostile)
    reader = Reader(html + charts.legend([hostile]) + charts.line_styles(hostile, hostile))
    assert not reader.named("b")
    described = [tag["aria-label"] for tag in reader.named("svg") if tag.get("role") == "img"]
    assert len(described) == 2
    assert all(label and hostile in label for label in described)
