"""Findings of heart, aorta, hila and diaphragm.

Findings that move a border are already part of the layout; the functions here only return their extent.
"""

import dataclasses

import numpy as np

from crossray.phantom import frontal, lateral
from crossray.phantom.canvas import Canvas
from crossray.phantom.frame import Map, Points, blob, ellipse, offset, ribbon, smooth
from crossray.phantom.layout import SIDES, Layout, extent, lay_out
from crossray.phantom.places import dome_line, lung_outline
from crossray.phantom.scene import Finding


def _without(canvas: Canvas, finding: Finding) -> Layout:
    """The layout of the same patient without the finding."""
    scene = canvas.layout.scene
    return lay_out(dataclasses.replace(scene, findings=tuple(other for other in scene.findings if other != finding)))


def cardiomegaly(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A wide heart; its extent is the whole heart."""
    outline = frontal.heart_outline if canvas.frontal else lateral.heart_outline
    return canvas.frame.polygon(outline(canvas.layout), 0.004)


def tortuous_aorta(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """An unfolded aorta; its extent is the arch and the descending aorta."""
    painter = canvas.frame.paint()
    for layout in (canvas.layout, _without(canvas, finding)):
        if canvas.frontal:
            painter.polygon(frontal.aorta_outline(layout)).polygon(ellipse(*frontal.knob(layout)))
        else:
            painter.polygon(ribbon(lateral.aorta_outline(layout), 0.026))
    return painter.map(0.003)


def aortic_calcification(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A thin bright shell on the arch."""
    size = extent(finding)
    if canvas.frontal:
        centre, radii = frontal.knob(canvas.layout)
        turn = np.linspace(-1.3, -1.3 + 1.1 + 0.9 * size, 14)
        course: Points = np.asarray(centre) + 0.9 * np.stack([radii[0] * np.cos(turn), radii[1] * np.sin(turn)], 1)
    else:
        line = lateral.aorta_outline(canvas.layout)
        course = ribbon(line, 0.02)[4 : 9 + int(5 * size)]
    painter = canvas.frame.paint()
    for start in range(0, len(course) - 2, 3):
        painter.line(course[start : start + 4], (0.0035 + 0.0018 * size) * rng.uniform(0.8, 1.3), rng.uniform(0.7, 1))
    cover = painter.map(0.0008)
    canvas.attenuation += 0.6 * canvas.contrast * cover
    return cover


def mediastinal_widening(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """Soft tissue on both sides of the upper mediastinum."""
    size = extent(finding)
    row = canvas.layout.row
    if canvas.frontal:
        wide = 0.062 + 0.022 * size
        ahead = 0.06 * canvas.layout.turn
        knots = [
            (wide * 0.8, row(0.02)),
            (wide, row(0.2)),
            (wide * 1.12, row(0.36)),
            (wide, row(0.5)),
            (0.05, row(0.56)),
        ]
        outline = smooth([(x + ahead, y) for x, y in knots] + [(ahead - x, y) for x, y in reversed(knots)], 4)
    else:
        centre = (0.45 * float(lateral.front(canvas.layout, row(0.3))), row(0.3))
        outline = blob(rng, centre, (0.05 + 0.022 * size, 0.06 + 0.03 * size), 0.08)
    cover = canvas.frame.polygon(outline, 0.003) * np.maximum(canvas.lungs["right"], canvas.lungs["left"])
    canvas.attenuation += (0.8 if canvas.frontal else 0.35) * canvas.contrast**0.5 * cover
    return cover


def hilar_enlargement(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A dense, lobulated lung root."""
    size = extent(finding)
    root = frontal.hilum(canvas.layout, side or "right") if canvas.frontal else lateral.hilum(canvas.layout)
    root = root + np.asarray([0.028 * np.sign(root[0]) if canvas.frontal else -0.01, 0.012])
    painter = canvas.frame.paint()
    for _ in range(4):
        spot = root + rng.standard_normal(2) * 0.012
        painter.polygon(blob(rng, spot, (0.011 + 0.010 * size, 0.014 + 0.012 * size), 0.12))
    cover = painter.map(0.003) * np.maximum(canvas.lungs["right"], canvas.lungs["left"])
    canvas.attenuation += (0.34 + 0.06 * size) * canvas.contrast * cover
    return cover


def hiatal_hernia(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """Stomach behind the heart: a round opacity with gas and often a fluid level."""
    size = extent(finding)
    radius = 0.026 + 0.018 * size
    x = 0.02 + rng.uniform(-0.01, 0.015) if canvas.frontal else 0.09
    centre = np.asarray([x, canvas.layout.floor - 0.035 - 0.5 * radius])
    wall = blob(rng, centre, (1.1 * radius, radius), 0.07)
    gas = centre + 0.82 * (wall - centre)
    gas[:, 1] = np.minimum(gas[:, 1], centre[1] + 0.35 * radius)
    cover = canvas.frame.polygon(wall, 0.0015)
    canvas.attenuation += canvas.contrast * (0.45 * cover - 0.85 * canvas.frame.polygon(gas, 0.0015))
    return cover


def elevated_diaphragm(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A raised hemidiaphragm; its extent is the area between the dome and its normal position."""
    high, without = dome_line(canvas, side), _without(canvas, finding)
    low = (frontal.dome_line if canvas.frontal else lateral.dome_line)(without, side)
    outline = np.concatenate([high - (0, 0.02), low[::-1] + offset(0, 0.07)])
    return canvas.frame.polygon(outline)


def _volumes(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    without = _without(canvas, finding)
    outline = frontal.lung_outline if canvas.frontal else lateral.lung_outline
    painter = canvas.frame.paint()
    for half in SIDES:
        painter.polygon(lung_outline(canvas, half)).polygon(outline(without, half))
    return painter.map()


def hyperinflation(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """Large lungs above a low, flat diaphragm; the extent is both lungs."""
    return _volumes(canvas, finding, side, rng)


def low_lung_volumes(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """Small lungs with crowded vessels above a high diaphragm; the extent is both lungs."""
    size = extent(finding)
    canvas.markings = canvas.markings * (1 + 0.25 * size)
    return _volumes(canvas, finding, side, rng)
