"""Findings of spine and ribs."""

import numpy as np

from crossray.phantom.bones import (
    VERTEBRA,
    from_front,
    rib,
    spine_from_side,
    vertebra,
    vertebra_rows,
)
from crossray.phantom.canvas import Canvas
from crossray.phantom.frame import Map, ellipse, offset, ribbon
from crossray.phantom.layout import extent
from crossray.phantom.scene import Finding

#: Range of ribs by place.
_RIBS = {"upper_ribs": (3, 4), "middle_ribs": (5, 7), "lower_ribs": (8, 9), "": (4, 8)}


def spine_degeneration(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """Bony beaks and dense endplates at the discs of the lower thoracic spine."""
    size = extent(finding)
    rows = vertebra_rows(1.7)
    rows = rows[(rows > canvas.layout.row(0.3)) & (rows < 0.80)] + VERTEBRA / 2
    chosen = rng.permutation(rows)[: int(2 + 3 * size)]
    beaks, seen = canvas.frame.paint(), canvas.frame.paint()
    reach = 0.012 + 0.007 * size
    for y in chosen.tolist():
        if canvas.frontal:
            middle = float(canvas.layout.spine(y)) - 0.12 * canvas.layout.turn
            wide = 0.03 + 0.009 * y
            edges = [(middle + sign * wide, sign) for sign in (-1.0, 1.0)]
        else:
            middle = spine_from_side(canvas.layout, y)
            wide = 0.027 + 0.008 * y
            edges = [(middle - wide, -1.0)]
        for x, sign in edges:
            for up in (-1.0, 1.0):
                beak = [
                    (x - sign * 0.006, y + up * 0.012),
                    (x + sign * reach, y + up * 0.002),
                    (x - sign * 0.004, y + up * 0.003),
                ]
                beaks.polygon(np.asarray(beak))
        for up in (-1.0, 1.0):
            beaks.line(np.asarray([(middle - wide, y + up * 0.007), (middle + wide, y + up * 0.007)]), 0.0055, 0.8)
        seen.polygon(ellipse((middle, y), (wide + 0.8 * reach, 0.019)))
    canvas.attenuation += 0.55 * canvas.contrast * beaks.map(0.0008)
    return seen.map()


def scoliosis(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A laterally curved spine; its extent is the spine."""
    return _spine(canvas, 0.0, 1.2)


def kyphosis(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A backward curve of the upper spine; its extent is the upper spine."""
    return _spine(canvas, 0.0, 0.62)


def _spine(canvas: Canvas, first: float, last: float) -> Map:
    rows = np.linspace(first, last, 24)
    layout = canvas.layout
    if canvas.frontal:
        course = np.stack([layout.spine(rows) - 0.12 * layout.turn, rows], 1)
        return canvas.frame.polygon(ribbon(course, 0.062 + 0.6 * abs(layout.bend)))
    course = np.stack([[spine_from_side(layout, row) + 0.015 for row in rows], rows], 1)
    return canvas.frame.polygon(ribbon(course, 0.075 + 0.6 * layout.hunch))


def vertebral_fracture(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A vertebra with reduced anterior height and a dense upper endplate."""
    row, lost = canvas.layout.wedge
    rows = vertebra_rows(1.7)
    y = float(rows[np.abs(rows - row).argmin()])
    outline = vertebra(canvas.layout, y, wedge=lost)
    plate = canvas.frame.paint().line(outline[:7], 0.007).map(0.0008)
    canvas.attenuation += (0.2 + 0.25 * extent(finding)) * canvas.contrast * plate
    return canvas.frame.polygon(ellipse((spine_from_side(canvas.layout, y), y), (0.055, 0.04)))


def rib_fracture(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A rib with displaced ends, a dark gap and callus."""
    first, last = _RIBS[finding.place]
    number = int(rng.integers(first, last + 1))
    middle = rng.uniform(1.05, 1.45)
    course = from_front(rib(canvas.layout, number, side, middle - 0.2, middle + 0.2), canvas.layout)
    centre = course[8]
    across = np.asarray([-(course[9] - course[7])[1], (course[9] - course[7])[0]])
    across /= np.hypot(*across)
    size = extent(finding)
    gap = canvas.frame.paint().line(np.stack([centre - 0.019 * across, centre + 0.019 * across]), 0.0055).map(0.0006)
    step = 0.007 * size * across
    ends = canvas.frame.paint()
    ends.tube(course[:8] - step, 0.012, 0.3, 1.0).tube(course[9:] + step, 0.012, 0.3, 1.0)
    ends.polygon(ellipse(centre + offset(0.012, 0.0), (0.009, 0.013)), 0.5)
    canvas.attenuation += canvas.contrast * (0.3 * ends.map(0.0008) - 0.4 * gap)
    return canvas.frame.polygon(ribbon(course, 0.03))
