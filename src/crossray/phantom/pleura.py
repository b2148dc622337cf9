"""Pleural findings: fluid, air, thickening."""

import numpy as np

from crossray.phantom.canvas import Canvas
from crossray.phantom.frame import Map, Points, offset, smooth
from crossray.phantom.layout import extent
from crossray.phantom.places import dome_line, lung_outline
from crossray.phantom.scene import Finding


def _wall(canvas: Canvas, side: str) -> Points:
    """The border of the lung along the chest wall, from the costophrenic angle to the top, (N, 2)."""
    count = 26 if canvas.frontal else 22
    return lung_outline(canvas, side)[25 : 25 + count]


def _fluid(canvas: Canvas, side: str, height: float, density: float) -> Map:
    """Fluid over the diaphragm with a meniscus that rises along the chest wall."""
    line = dome_line(canvas, side)
    angle, far = line[-1], line[0]
    share = np.linspace(0, 1, 20)
    # The fluid is level in the middle and rises at the chest wall.
    rise = height * (0.62 + 0.75 * share**4 + 0.15 * (1 - share) ** 6)
    level = angle[1] - rise - 0.012
    x = far[0] + share * (angle[0] - far[0])
    surface = np.stack([x, level], 1)
    outward, floor = float(angle[0] + 0.1 * np.sign(angle[0] - far[0])), float(angle[1]) + 0.03
    below = np.asarray([(outward, level[-1]), (outward, floor), (far[0], floor)])
    shape = canvas.frame.polygon(np.concatenate([surface, below]), 0.004)
    cover: Map = shape * np.minimum(1, 1.6 * canvas.lungs[side])
    canvas.attenuation += density * cover
    canvas.markings = canvas.markings * (1 - 0.8 * cover)
    return cover


def pleural_effusion(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """Fluid that blunts the costophrenic angle and hides the diaphragm."""
    height = 0.035 + 0.055 * extent(finding) ** 1.4 + 0.006 * rng.standard_normal()
    return _fluid(canvas, side, height, (0.85 if canvas.frontal else 0.7) * canvas.contrast**0.5)


def costophrenic_blunting(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A filled costophrenic angle without fluid above the diaphragm."""
    size = extent(finding)
    line = dome_line(canvas, side)
    angle = line[-1]
    reach = (0.022 + 0.02 * size) * rng.uniform(0.9, 1.1)
    inward = np.sign(line[0, 0] - angle[0])
    knots = np.asarray([(-0.02, 0.03), (-0.02, -1.9 * reach), (0.0, -1.8 * reach), (0.35 * reach, -0.8 * reach),
                        (1.1 * reach, -0.45 * reach), (1.3 * reach, 0.03)])  # fmt: skip
    corner = smooth(angle + knots * (inward, 1.0), 4)
    cover = canvas.frame.polygon(corner, 0.002) * canvas.lungs[side]
    canvas.attenuation += 0.7 * canvas.contrast**0.5 * cover
    return cover


def pleural_thickening(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A band along the chest wall, the apex of the lung, or its base."""
    size = extent(finding)
    wall = _wall(canvas, side)
    count = len(wall)
    spans = {"base": (0, 0.3), "lateral": (0.25, 0.7), "apex": (0.8, 1.0), "": (0.2, 0.8)}
    first, last = (round(share * (count - 1)) for share in spans[finding.place])
    course = wall[first : last + 1]
    if finding.place == "apex":
        outline = lung_outline(canvas, side)
        course = outline[25 + first : 25 + count + 2]
    thick = (0.014 + 0.012 * size) * rng.uniform(0.85, 1.15)
    painter = canvas.frame.paint().line(course, 2 * thick, 1.0)
    cover = painter.map(0.0015) * canvas.lungs[side]
    canvas.attenuation += 0.40 * canvas.contrast * cover
    return cover


def pneumothorax(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """Air outside the lung: a thin pleural line, with no vessels beyond it."""
    size = extent(finding)
    wall = _wall(canvas, side)
    share = np.linspace(0, 1, len(wall))
    gap = 0.014 + 0.026 * size
    middle = np.asarray([0.5 * (wall[:, 0].max() + wall[:, 0].min()) * (0.6 if canvas.frontal else 0.3), 0.42])
    if finding.place == "base":
        depth = gap * np.clip((0.25 + 0.2 * size - share) / 0.25, 0, 1)
    else:
        depth = gap * np.clip((share - 0.6 + 0.28 * size) / 0.25, 0, 1)
    inward = middle - wall
    inward /= np.hypot(inward[:, 0], inward[:, 1])[:, None]
    # The border of the retracted lung undulates slightly; the chest wall does not.
    depth = depth * (1 + 0.08 * np.sin(share * 7 + rng.uniform(0, 6)))
    line = wall + inward * depth[:, None]
    kept = depth > 0.001
    outer, inner = wall[kept] - inward[kept] * 0.02, line[kept]
    painter = canvas.frame.paint()
    if finding.place != "base":
        top = lung_outline(canvas, side)[25 + len(wall) : 25 + len(wall) + 2]
        outer, inner = np.concatenate([outer, top - offset(0, 0.02)]), np.concatenate([inner, top + offset(0, gap)])
    zone = painter.polygon(np.concatenate([outer, inner[::-1]])).map(0.0008) * canvas.lungs[side]
    edge = canvas.frame.paint().line(inner, 0.0042).map(0.0006) * canvas.lungs[side]
    canvas.markings = canvas.markings * (1 - np.minimum(1.0, 1.1 * zone))
    canvas.attenuation += canvas.contrast * (0.26 * edge - 0.10 * zone)
    return np.maximum(zone, edge)
