"""The skeleton in three dimensions, projected to the frontal and lateral views."""

import numpy as np

from crossray.phantom.frame import Frame, Map, Points, ellipse, smooth
from crossray.phantom.layout import SIDES, SIGNS, Layout, generator

RIBS = range(1, 12)
_HALF_WIDTH = (0.15, 0.21, 0.25, 0.278, 0.298, 0.315, 0.328, 0.337, 0.342, 0.343, 0.335)
#: Distance between the centers of two vertebrae, in picture widths.
VERTEBRA = 0.056


def rib(layout: Layout, number: int, side: str, start: float, end: float) -> Points:
    """The course of a rib in space, (N, 3): x to the patient's left, y down, z to the front.

    Args:
        layout: the patient.
        number: number of the rib, 1 to 11 from the top.
        side: patient's side.
        start: first angle around the long axis in radians: 0 is the spine, pi the breastbone.
        end: last angle.
    """
    angle = np.linspace(start, end, 16)
    uneven = layout.unevenness[number - 1, SIDES.index(side)]
    half_width = _HALF_WIDTH[number - 1] * layout.breadth
    drop = min(0.05 + 0.032 * number, 0.235) * layout.length
    x = SIGNS[side] * (0.012 + half_width * np.sin(angle) ** 0.8)
    y = 0.125 + 0.0535 * (number - 1) * layout.length + uneven[0]
    y = y + (drop + uneven[1]) * (angle / np.pi) ** 1.35 - 0.016 * np.sin(angle) * (1.2 - angle / np.pi)
    depth = (0.16 + 0.011 * min(number, 8)) * layout.depth
    return np.stack([x, y, -depth * np.cos(angle)], 1)


def from_front(points: Points, layout: Layout) -> Points:
    """Project points in space (N, 3) to a frontal view, (N, 2)."""
    return np.stack([points[:, 0] + layout.turn * points[:, 2], points[:, 1]], 1)


def from_side(points: Points, layout: Layout) -> Points:
    """Project points in space (N, 3) to a lateral view, (N, 2), with the front at the left."""
    hunch = layout.hunch * np.exp(-(((points[:, 1] - 0.3) / 0.2) ** 2))
    return np.stack([0.02 + hunch - points[:, 2] + 0.04 * points[:, 0], points[:, 1] + 0.05 * points[:, 0]], 1)


def ribs_from_front(frame: Frame, layout: Layout) -> Map:
    """Attenuation of the ribs in a frontal view: posterior arcs and fainter anterior arcs."""
    back, front = frame.paint(), frame.paint()
    for number in RIBS:
        radius = 0.0105 + 0.0012 * min(number, 6)
        for side in SIDES:
            course = from_front(rib(layout, number, side, 0.1, 1.62), layout)
            back.tube(course, radius, 0.55, 0.95)
            if number <= 9:
                course = from_front(rib(layout, number, side, 1.5, 2.5), layout)
                fade = np.linspace(1.0, 1.35, len(course))
                front.tube(course, radius * fade, 0.5, 0.75)
    return layout.bone * (0.27 * back.map(0.0015) + 0.22 * front.map(0.002))


def ribs_from_side(frame: Frame, layout: Layout) -> Map:
    """Attenuation of all ribs in a lateral view."""
    near, far = frame.paint(), frame.paint()
    for number in RIBS:
        radius = 0.009 + 0.001 * min(number, 6)
        near.tube(from_side(rib(layout, number, "left", 0.15, 2.3), layout), radius, 0.35, 0.9)
        far.tube(from_side(rib(layout, number, "right", 0.15, 2.3), layout), radius * 1.15, 0.3, 0.7)
    return layout.bone * (0.17 * near.map(0.0015) + 0.12 * far.map(0.003))


def vertebra_rows(height: float) -> Points:
    """Center y of each vertebra, for a picture that shows y up to `height`."""
    return np.arange(-0.1, height, VERTEBRA)


def spine_from_front(frame: Frame, layout: Layout) -> Map:
    """Attenuation of the spine in a frontal view: bodies with endplates, pedicles, spinous processes."""
    bodies, details = frame.paint(), frame.paint()
    for y in vertebra_rows(1.3):
        x = float(layout.spine(y)) - 0.12 * layout.turn
        wide = 0.03 + 0.009 * np.clip(y, 0, 1)
        body = smooth(
            [
                (x - wide, y - 0.022),
                (x + wide, y - 0.022),
                (x + wide * 0.9, y),
                (x + wide, y + 0.022),
                (x - wide, y + 0.022),
                (x - wide * 0.9, y),
            ],
            3,
        )
        bodies.polygon(body, 0.7).line(body, 0.004, 1.0, closed=True)
        for sign in (-1, 1):
            details.polygon(ellipse((x + sign * wide * 0.62, y - 0.006), (0.0055, 0.009)), 0.6)
            details.line(np.asarray([(x + sign * wide, y - 0.008), (x + sign * (wide + 0.022), y - 0.014)]), 0.012, 0.5)
        details.line(np.asarray([(x, y + 0.004), (x, y + 0.028)]), 0.008, 0.8)
    return layout.bone * (0.42 * bodies.map(0.002) + 0.25 * details.map(0.002))


def vertebra(layout: Layout, y: float, height: float = 0.045, wedge: float = 0.0) -> Points:
    """The outline of a vertebral body in a lateral view; `wedge` is the share of height lost anteriorly."""
    x = spine_from_side(layout, y)
    half, deep = height / 2, 0.027 + 0.008 * np.clip(y, 0, 1)
    slope = 0.12 * (y - 0.45)
    corners = [(-1, -1 + 2 * wedge), (0, -0.85 + wedge), (1, -1), (0.85, 0), (1, 1), (0, 0.85), (-1, 1), (-0.85, wedge)]
    return smooth([(x + deep * u, y + half * v + slope * deep * u) for u, v in corners], 3)


def spine_from_side(layout: Layout, y: float) -> float:
    """Center x of the vertebral bodies in a lateral view at row y."""
    curve = 0.215 - 0.5 * (y - 0.52) ** 2
    curve -= 0.45 * abs(layout.bend) * np.exp(-(((y - 0.48) / 0.2) ** 2))
    curve += layout.hunch * np.exp(-(((y - 0.3) / 0.2) ** 2))
    return float(curve * (0.6 + 0.4 * layout.depth))


def vertebrae_from_side(frame: Frame, layout: Layout) -> Map:
    """Attenuation of the spine in a lateral view: bodies, arches and spinous processes."""
    bodies, arches = frame.paint(), frame.paint()
    for y in vertebra_rows(1.3):
        row, lost = layout.wedge
        outline = vertebra(layout, float(y), wedge=lost if abs(y - row) <= VERTEBRA / 2 else 0.0)
        bodies.polygon(outline, 0.55).line(outline, 0.005, 1.0, closed=True)
        x = spine_from_side(layout, y) + 0.04
        arches.line(np.asarray([(x, y - 0.005), (x + 0.03, y + 0.01), (x + 0.055, y + 0.04)]), 0.014, 0.7)
    return layout.bone * (0.55 * bodies.map(0.0015) + 0.25 * arches.map(0.003))


def shoulders(frame: Frame, layout: Layout) -> Map:
    """Attenuation of clavicles, scapulae and upper arms in a frontal view."""
    flat, tubes = frame.paint(), frame.paint()
    rng = generator(layout.scene, "shoulders")
    for side in SIDES:
        sign, lift = SIGNS[side], 0.012 * rng.standard_normal()
        lift += 0.03 * layout.supine
        w, ahead = layout.breadth, 0.15 * layout.turn

        def at(x: float, y: float, sign: float = sign, w: float = w) -> tuple[float, float]:
            return sign * x * w, y

        blade = smooth(
            [
                at(0.36, 0.14),
                at(0.41, 0.2),
                at(0.38, 0.27),
                at(0.345, 0.42),
                at(0.315, 0.43),
                at(0.29, 0.30),
                at(0.28, 0.19),
                at(0.31, 0.14),
            ],
            4,
        )
        flat.polygon(blade, 0.35).line(blade, 0.009, 0.8, closed=True)
        flat.line(smooth([at(0.27, 0.2), at(0.35, 0.16), at(0.42, 0.11)], 5, closed=False), 0.016, 0.8)
        collar = smooth(
            [
                (sign * 0.035 + ahead, 0.17 + lift),
                (sign * 0.11 * w + ahead * 0.8, 0.155 + lift),
                (sign * 0.2 * w + ahead * 0.5, 0.12 + lift),
                (sign * 0.3 * w, 0.105 + lift),
                (sign * 0.4 * w, 0.105),
            ],
            6,
            closed=False,
        )
        tubes.tube(collar, np.interp(np.arange(len(collar)), [0, 3, 12, 24], [0.02, 0.0135, 0.0115, 0.015]), 0.6, 1.0)
        tubes.polygon(ellipse(at(0.455, 0.165), (0.045, 0.045)), 0.75)
        arm = smooth([at(0.465, 0.17), at(0.50, 0.32), at(0.535, 0.6)], 6, closed=False)
        tubes.tube(arm, np.interp(np.arange(len(arm)), [0, 4, 12], [0.036, 0.022, 0.02]), 0.6, 1.0)
    return layout.bone * (0.3 * flat.map(0.003) + 0.45 * tubes.map(0.002))
