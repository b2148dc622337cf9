"""Positions of the catalog's places in a view."""

from collections.abc import Mapping

import numpy as np

from crossray.phantom import frontal, lateral
from crossray.phantom.canvas import Canvas
from crossray.phantom.frame import Points
from crossray.phantom.layout import SIGNS

Range = tuple[float, float]

#: By place: range of the share of the distance from midline to chest wall, and from top of the lung to diaphragm.
_FRONTAL: Mapping[str, tuple[Range, Range]] = {
    "apex": ((0.45, 0.62), (0.12, 0.2)),
    "upper_lobe": ((0.45, 0.8), (0.25, 0.45)),
    "middle_lobe": ((0.42, 0.68), (0.68, 0.84)),
    "lingula": ((0.6, 0.8), (0.64, 0.84)),
    "lower_lobe": ((0.5, 0.84), (0.68, 0.88)),
    "base": ((0.5, 0.78), (0.86, 0.92)),
    "hilum": ((0.26, 0.32), (0.50, 0.60)),
    "retrocardiac": ((0.18, 0.34), (0.78, 0.88)),
    "mediastinum": ((-0.1, 0.1), (0.34, 0.5)),
    "": ((0.4, 0.8), (0.2, 0.85)),
}
#: By place: range of the share of the distance from breastbone to spine, and from top of the lung to diaphragm.
_LATERAL: Mapping[str, tuple[Range, Range]] = {
    "apex": ((0.56, 0.72), (0.14, 0.22)),
    "upper_lobe": ((0.32, 0.6), (0.28, 0.45)),
    "middle_lobe": ((0.14, 0.36), (0.70, 0.86)),
    "lingula": ((0.14, 0.36), (0.70, 0.86)),
    "lower_lobe": ((0.6, 0.8), (0.62, 0.82)),
    "base": ((0.55, 0.75), (0.84, 0.92)),
    "hilum": ((0.5, 0.58), (0.50, 0.60)),
    "retrocardiac": ((0.6, 0.74), (0.74, 0.84)),
    "mediastinum": ((0.45, 0.6), (0.34, 0.5)),
    "": ((0.3, 0.75), (0.25, 0.85)),
}


def locate(canvas: Canvas, side: str, place: str, rng: np.random.Generator) -> Points:
    """Choose a point (2,) at a place, in anatomy coordinates.

    Args:
        canvas: the view.
        side: "left" or "right"; "" for the midline.
        place: a place in the lungs from the catalog, or "" for anywhere.
        rng: random generator; two numbers are drawn.
    """
    layout = canvas.layout
    across, down = rng.random(2)
    horizontal, vertical = (_FRONTAL if canvas.frontal else _LATERAL)[place]
    u = horizontal[0] + across * (horizontal[1] - horizontal[0])
    v = vertical[0] + down * (vertical[1] - vertical[0])
    half = side or "right"
    if canvas.frontal:
        floor = float(frontal.dome(layout, half, abs(u)))
        y = layout.apex + v * (floor - layout.apex)
        x = SIGNS[half] * u * float(frontal.cavity_half_width(layout, y)) + 0.04 * layout.turn
        return np.asarray([x, y])
    floor = float(np.interp(u, np.linspace(0, 1, 25), lateral.dome_line(layout, half)[:, 1]))
    y = layout.apex + v * (floor - layout.apex)
    first, last = float(lateral.front(layout, y)), float(lateral.back(layout, y))
    return np.asarray([first + u * (last - first), y])


def lung_outline(canvas: Canvas, side: str) -> Points:
    """The outline of a lung in the canvas's view, (N, 2)."""
    outline = frontal.lung_outline if canvas.frontal else lateral.lung_outline
    return outline(canvas.layout, side)


def dome_line(canvas: Canvas, side: str) -> Points:
    """A hemidiaphragm in the canvas's view, (25, 2), ending at the (posterior) costophrenic angle."""
    line = frontal.dome_line if canvas.frontal else lateral.dome_line
    return line(canvas.layout, side)
