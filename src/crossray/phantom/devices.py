"""Tubes, wires and surgical material."""

import numpy as np

from crossray.phantom import frontal, lateral
from crossray.phantom.canvas import Canvas
from crossray.phantom.frame import Map, Painter, Points, ellipse, offset, smooth
from crossray.phantom.layout import SIGNS
from crossray.phantom.places import dome_line, locate
from crossray.phantom.scene import Finding

_METAL = 1.6
_PLASTIC = 0.30


def _course(points: list[tuple[float, float]] | Points, rng: np.random.Generator, loose: float = 0.004) -> Points:
    knots = np.asarray(points, dtype=np.float64)
    knots[1:-1] += loose * rng.standard_normal(knots[1:-1].shape)
    return smooth(knots, 8, closed=False)


def _tube(canvas: Canvas, course: Points, bore: float) -> Map:
    """A plastic tube with a radiopaque stripe along one wall."""
    plastic = canvas.frame.paint().line(course, bore).map()
    stripe = canvas.frame.paint().line(course + offset(0.3 * bore, 0.0), 0.0035).map(0.0005)
    canvas.attenuation += canvas.contrast * (_PLASTIC * plastic + 0.75 * stripe)
    return np.maximum(plastic, stripe)


def _metal(canvas: Canvas, painter: Painter, density: float = _METAL) -> Map:
    cover = painter.map(0.0004)
    canvas.attenuation += density * cover
    return cover


def sternotomy_wires(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A column of wire loops along the breastbone."""
    painter = canvas.frame.paint()
    count = int(rng.integers(5, 8))
    for share in np.linspace(0.15, 0.98, count):
        y = canvas.layout.row(share)
        if canvas.frontal:
            x = 0.17 * canvas.layout.turn + 0.004 * rng.standard_normal()
            loop = ellipse(
                (x, y), (0.017 * rng.uniform(0.8, 1.1), 0.006 * rng.uniform(0.7, 1.6)), rng.normal(0, 0.3), 16
            )
        else:
            x = float(lateral.front(canvas.layout, y)) - 0.012
            loop = ellipse((x, y), (0.013, 0.006 * rng.uniform(0.8, 1.3)), 0.4, 16)
        painter.line(loop, 0.0042, 1.0, closed=True)
        painter.line(np.asarray([loop[0], loop[0] + (0.006, 0.005)]), 0.0045)
    return _metal(canvas, painter, 0.9)


def pacemaker(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A generator below the clavicle with leads into the right heart."""
    painter = canvas.frame.paint()
    layout = canvas.layout
    if canvas.frontal:
        sign = SIGNS[side or "left"]
        x, y = sign * 0.255 * layout.breadth, layout.row(0.2) + 0.01 * rng.standard_normal()
        vein = (-0.035, layout.row(0.25))
        start = [(x - sign * 0.02, y - 0.03), (x - sign * 0.07, y - 0.065), (sign * 0.08, layout.row(0.08)), vein]
        tips = [(-0.055, layout.floor - 0.13), (0.11 * layout.heart, layout.floor - 0.03)]
        middle = [(-0.05, layout.floor - 0.18), (-0.045, layout.floor - 0.10)]
    else:
        y = layout.row(0.22)
        x = float(lateral.front(layout, y)) - 0.03
        vein = (-0.01, layout.row(0.3))
        start = [(x + 0.01, y - 0.02), (x + 0.05, y - 0.07), (-0.06, layout.row(0.1)), vein]
        tips = [(-0.05, layout.floor - 0.14), (-0.17, layout.floor - 0.04)]
        middle = [(0.0, layout.floor - 0.2), (-0.02, layout.floor - 0.09)]
    for between, tip in zip(middle, tips, strict=True):
        painter.line(_course([*start, between, tip], rng), 0.005, 0.8)
        painter.polygon(ellipse(tip, (0.005, 0.005)))
    box = ellipse((x, y), (0.036 if canvas.frontal else 0.012, 0.032), 0.2, 24)
    painter.polygon(box, 0.85).polygon(np.asarray((x, y)) + 0.55 * (box - (x, y)), 1.0)
    return _metal(canvas, painter, 1.3)


def central_line(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A thin catheter from the neck, clavicle or arm into the superior vena cava."""
    layout = canvas.layout
    tip = (-0.042, layout.row(rng.uniform(0.42, 0.56)))
    if canvas.frontal:
        sign = SIGNS[side or "right"]
        entry = {
            "jugular": [(sign * 0.085, -0.02), (sign * 0.062, 0.09)],
            "subclavian": [(sign * 0.30, 0.24), (sign * 0.24, 0.165), (sign * 0.13, 0.15)],
            "arm": [(sign * 0.52, 0.48), (sign * 0.44, 0.26), (sign * 0.30, 0.17), (sign * 0.13, 0.15)],
        }[finding.place or "jugular"]
        course = [*entry, (sign * 0.035 if sign > 0 else -0.045, layout.row(0.1)), (-0.038, layout.row(0.26)), tip]
    else:
        entry = {
            "jugular": [(-0.02, -0.03), (-0.025, 0.08)],
            "subclavian": [(-0.16, 0.2), (-0.1, 0.14)],
            "arm": [(-0.3, 0.05), (-0.12, 0.1)],
        }[finding.place or "jugular"]
        course = [*entry, (-0.03, layout.row(0.12)), (0.0, layout.row(0.3)), (0.005, layout.row(0.5))]
    return _metal(canvas, canvas.frame.paint().line(_course(course, rng), 0.0058), 0.75)


def endotracheal_tube(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A tube in the trachea, with its tip above the carina."""
    tip = canvas.layout.row(rng.uniform(0.2, 0.32))
    lean = 0.0 if canvas.frontal else 0.03
    x = 0.02 * canvas.layout.turn if canvas.frontal else 0.005
    return _tube(canvas, _course([(x, -0.1), (x + 0.3 * lean, 0.03), (x + lean, tip)], rng, 0.002), 0.016)


def enteric_tube(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A tube through the esophagus into the stomach."""
    layout = canvas.layout
    low = layout.domes["left"]
    if canvas.frontal:
        points = [(0.006, -0.1), (0.01, 0.2), (0.012, layout.row(0.6)), (0.02, low), (0.07, low + 0.05),
                  (0.15, low + 0.1), (0.12, low + 0.2)]  # fmt: skip
    else:
        points = [
            (0.03, -0.1),
            (0.06, 0.2),
            (0.09, layout.row(0.6)),
            (0.08, low),
            (0.02, low + 0.08),
            (-0.06, low + 0.14),
        ]
    return _tube(canvas, _course(points, rng), 0.011)


def chest_tube(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A wide tube through the chest wall; its stripe is interrupted at the side hole."""
    target = locate(canvas, side, finding.place or "apex", rng)
    layout = canvas.layout
    entry = layout.row(0.72)
    if canvas.frontal:
        wall = SIGNS[side] * float(frontal.cavity_half_width(layout, entry))
        points = [
            (1.3 * wall, entry + 0.06),
            (1.02 * wall, entry),
            (0.85 * wall, entry - 0.05 + 0.1 * (finding.place == "base")),
        ]
    else:
        points = [(0.02, entry + 0.12), (0.04, entry), (0.07, entry - 0.05)]
    return _tube(canvas, _course([*points, (float(target[0]), float(target[1]))], rng, 0.006), 0.015)


def surgical_clips(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A few short metal clips."""
    half = side or "right"
    layout = canvas.layout
    if finding.place == "upper_abdomen":
        line = dome_line(canvas, half)
        centre = line[len(line) // 3] + (0.0, 0.12)
    elif finding.place == "axilla":
        centre = np.asarray([SIGNS[half] * 0.385 * layout.breadth, 0.27] if canvas.frontal else [-0.12, 0.27])
    else:
        centre = locate(canvas, half, finding.place or "hilum", rng)
    painter = canvas.frame.paint()
    for _ in range(int(rng.integers(3, 7))):
        spot, angle = centre + 0.02 * rng.standard_normal(2), rng.uniform(0, np.pi)
        step = 0.007 * np.asarray([np.cos(angle), np.sin(angle)])
        painter.line(np.stack([spot - step, spot + step]), 0.0055)
    return _metal(canvas, painter)
