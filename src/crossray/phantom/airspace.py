"""Findings in the lungs: patches, lines, nodules, edema, destruction."""

import numpy as np

from crossray.phantom.canvas import Canvas
from crossray.phantom.frame import Frame, Map, Points, blob, ellipse, offset, ribbon, smooth
from crossray.phantom.layout import SIDES, SIGNS, extent
from crossray.phantom.places import dome_line, locate
from crossray.phantom.scene import Finding
from crossray.phantom.vessels import draw_vessels, vessel_tree


def _lung(canvas: Canvas, side: str) -> Map:
    return canvas.lungs[side] if side else np.maximum(canvas.lungs["right"], canvas.lungs["left"])


def _patch(canvas: Canvas, outline: Points, side: str, blur: float, rng: np.random.Generator, grain: float) -> Map:
    cover = canvas.frame.polygon(outline, blur) * _lung(canvas, side)
    textured: Map = cover * np.clip(1 + grain * canvas.frame.field(rng, 34), 0.1, 2.0)
    return textured


def _bronchograms(frame: Frame, centre: Points, reach: float, rng: np.random.Generator) -> Map:
    angle = rng.uniform(0, 2 * np.pi)
    tree = vessel_tree(rng, centre, angle + np.asarray([-0.5, 0.1, 0.6]), 1.6 * reach, 0.0042)
    return draw_vessels(frame, [tree], 0.0015)


def opacity(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A patchy, ill-defined opacity made of small fluffy patches."""
    size = extent(finding)
    centre = locate(canvas, side, finding.place, rng)
    reach = 0.036 + 0.02 * size
    painter = canvas.frame.paint()
    for _ in range(int(5 + 4 * size)):
        spot = centre + rng.standard_normal(2) * reach * 0.55
        painter.polygon(blob(rng, spot, reach * rng.uniform(0.2, 0.5, 2), 0.3), rng.uniform(0.6, 1.0))
    cover = painter.map(0.008) * _lung(canvas, side)
    grain = np.clip(1 + 0.5 * canvas.frame.field(rng, 40), 0.1, 2)
    canvas.attenuation += (0.24 + 0.08 * size) * canvas.contrast * cover * grain
    return cover


def consolidation(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """Airless lung with a sharp border and air-filled bronchi."""
    size = extent(finding)
    centre = locate(canvas, side, finding.place, rng)
    reach = 0.04 + 0.024 * size
    cover = _patch(canvas, blob(rng, centre, (1.25 * reach, reach), 0.18), side, 0.004, rng, 0.12)
    bronchi = _bronchograms(canvas.frame, centre, reach, rng)
    canvas.attenuation += (0.42 + 0.08 * size) * canvas.contrast * cover * (1 - 0.65 * bronchi)
    return cover


def pneumonia(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """Consolidation with fluffy borders and air bronchograms."""
    size = extent(finding)
    centre = locate(canvas, side, finding.place, rng)
    reach = 0.04 + 0.022 * size
    painter = canvas.frame.paint().polygon(blob(rng, centre, (reach, reach * 0.85), 0.25))
    for _ in range(9):
        spot = centre + rng.standard_normal(2) * reach * 0.8
        painter.polygon(blob(rng, spot, reach * rng.uniform(0.15, 0.4, 2), 0.3), rng.uniform(0.5, 0.9))
    cover = painter.map(0.004) * _lung(canvas, side)
    grain = np.clip(1 + 0.3 * canvas.frame.field(rng, 40), 0.1, 2)
    bronchi = _bronchograms(canvas.frame, centre, reach, rng)
    canvas.attenuation += (0.34 + 0.08 * size) * canvas.contrast * cover * grain * (1 - 0.6 * bronchi)
    return cover


def atelectasis(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """Bands of collapsed lung; if severe, a dense wedge with its tip at the hilum."""
    size = extent(finding)
    centre = locate(canvas, side, finding.place, rng)
    painter = canvas.frame.paint()
    tilt = rng.uniform(-0.45, 0.45)
    for band in range(1 + (size > 0.7) + (size > 1.2)):
        length = 0.05 + 0.028 * size * rng.uniform(0.8, 1.2)
        step = np.asarray([np.cos(tilt), np.sin(tilt)]) * length
        middle = centre + offset(rng.uniform(-0.02, 0.02), 0.019 * band)
        course = smooth([middle - step, middle + offset(0, -0.006), middle + step], 6, closed=False)
        thick = (0.0032 + 0.0016 * size) * np.sin(np.linspace(0.35, np.pi - 0.35, len(course)))
        painter.polygon(ribbon(course, thick))
        tilt += rng.uniform(-0.25, 0.25)
    if size > 1.5:
        out = centre + rng.uniform((-0.02, 0.05), (0.02, 0.07))
        wedge = [centre - offset(0.06, 0), centre + offset(0.05, -0.02), out + offset(0.06, 0), out - offset(0.05, 0)]
        painter.polygon(smooth(wedge, 5))
    cover = painter.map(0.0016) * _lung(canvas, side)
    canvas.attenuation += 0.42 * canvas.contrast * min(size, 1.3) ** 0.5 * cover
    return cover


def scarring(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """Thin, irregular, converging strands."""
    size = extent(finding)
    centre = locate(canvas, side, finding.place, rng)
    count = int(4 + 3 * size)
    angle = rng.uniform(0, 2 * np.pi, count)
    reach = rng.uniform(0.02, 0.04 + 0.015 * size, count)[:, None]
    start = centre + 0.008 * rng.standard_normal((count, 2))
    ends = start + reach * np.stack([np.cos(angle), np.sin(angle)], 1)
    painter = canvas.frame.paint().strokes(np.stack([start, ends], 1), np.full(count, 0.0035))
    painter.polygon(blob(rng, centre, (0.008 * size, 0.006 * size), 0.3), 0.8)
    cover = painter.map(0.0012) * _lung(canvas, side)
    canvas.attenuation += 0.38 * canvas.contrast * cover
    return canvas.frame.polygon(ellipse(centre, (0.03 + 0.012 * size,) * 2)) * _lung(canvas, side)


def nodule(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A small sphere: thickest in the middle, with a sharp border."""
    size = extent(finding)
    centre = locate(canvas, side, finding.place, rng)
    radius = 0.009 + 0.0085 * size
    outline = blob(rng, centre, (radius, radius * rng.uniform(0.85, 1.0)), 0.06)
    cover = canvas.frame.polygon(outline, 0.0015)
    core = canvas.frame.polygon(centre + 0.6 * (outline - centre), 0.003)
    canvas.attenuation += (0.20 + 0.05 * size) * canvas.contrast * (cover + 0.6 * core)
    return cover


def mass(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A lobulated mass with spicules."""
    size = extent(finding)
    centre = locate(canvas, side, finding.place, rng)
    radius = 0.026 + 0.017 * size
    painter = canvas.frame.paint()
    angle = rng.uniform(0, 2 * np.pi, 14)
    spikes = np.stack([np.cos(angle), np.sin(angle)], 1) * radius * rng.uniform(1.2, 1.6, (14, 1))
    painter.strokes(np.stack([0 * spikes, spikes], 1) + centre, np.full(14, 0.003), 0.5)
    painter.polygon(blob(rng, centre, (radius, radius * rng.uniform(0.8, 1.0)), 0.14))
    cover = painter.map(0.0025)
    canvas.attenuation += (0.46 + 0.06 * size) * canvas.contrast * cover
    return cover


def granuloma(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A small calcified spot, or a cluster of calcified lymph nodes at the hilum and in the mediastinum."""
    size = extent(finding)
    centre = locate(canvas, side, finding.place, rng)
    nodes = 3 if finding.place in ("hilum", "mediastinum") else 1
    painter = canvas.frame.paint()
    for _ in range(nodes):
        spot = centre + (nodes > 1) * 0.011 * rng.standard_normal(2)
        radius = 0.0045 + 0.0032 * size
        painter.polygon(blob(rng, spot, (radius, radius * rng.uniform(0.75, 1.0)), 0.12))
    cover = painter.map(0.0008)
    canvas.attenuation += (0.75 + 0.5 * (nodes > 1)) * canvas.contrast * cover
    return cover


def edema(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """Haze around the hila, thick indistinct vessels, and septal lines at the lung bases."""
    size = extent(finding)
    frame = canvas.frame
    lung = _lung(canvas, side)
    x, y = frame.coarse
    row = canvas.layout.row(0.6)
    if canvas.frontal:
        near = np.exp(-(((np.abs(x) - 0.12) / 0.11) ** 2) - ((y - row) / 0.15) ** 2)
    else:
        near = np.exp(-(((x - 0.03) / 0.14) ** 2) - ((y - row) / 0.16) ** 2)
    wings = frame.upsample(near.astype(np.float32)) * lung
    cotton = np.clip(0.7 + 0.6 * frame.field(rng, 30), 0, 2)
    canvas.attenuation += 0.17 * size * canvas.contrast * wings * cotton
    canvas.markings = canvas.markings * (1 + 0.7 * size * canvas.contrast * wings)
    painter = frame.paint()
    for half in SIDES:
        line = dome_line(canvas, half)
        inward = -SIGNS[half] if canvas.frontal else -1.0
        count = int(8 + 8 * size)
        rows = rng.uniform(line[-1, 1] - 0.17, line[-1, 1] - 0.02, count)
        starts = np.stack([np.full(count, line[-1, 0] + inward * 0.006), rows], 1)
        ends = starts + np.stack([inward * rng.uniform(0.02, 0.035, count), rng.uniform(-0.005, 0.005, count)], 1)
        painter.strokes(np.stack([starts, ends], 1), np.full(count, 0.003))
    lines = painter.map(0.001) * lung
    canvas.attenuation += 0.22 * canvas.contrast * lines * min(size, 1.5)
    return np.maximum(wings, lines)


def interstitial_markings(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """A network of fine lines, over the whole lung or at its base."""
    size = extent(finding)
    frame = canvas.frame
    painter = frame.paint()
    for half in (side,) if side else SIDES:
        line = dome_line(canvas, half)
        low, high = line[:, 1].max(), canvas.layout.apex + 0.03
        high = low - 0.22 if finding.place == "base" else high
        count = int((170 + 170 * size) * (0.5 if finding.place == "base" else 1.0))
        left, right = sorted((line[0, 0], line[-1, 0]))
        centres = rng.uniform((left, high), (right, low), (count, 2))
        angle = rng.uniform(0, np.pi, count)
        step = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(0.007, 0.016, (count, 1))
        painter.strokes(np.stack([centres - step, centres + step], 1), np.full(count, 0.0028))
    lung = _lung(canvas, side)
    net = painter.map(0.0008) * lung
    canvas.attenuation += (0.13 + 0.07 * size) * canvas.contrast * net
    zone = lung.copy()
    if finding.place == "base":
        _, y = frame.coarse
        low = max(dome_line(canvas, half)[:, 1].max() for half in ((side,) if side else SIDES))
        zone = zone * frame.upsample((y > low - 0.235).astype(np.float32))
    return zone


def emphysema(canvas: Canvas, finding: Finding, side: str, rng: np.random.Generator) -> Map:
    """Dark upper zones without vessels, with thin-walled bullae."""
    size = extent(finding)
    frame = canvas.frame
    _, y = frame.coarse
    upper = np.clip((canvas.layout.row(0.42 + 0.12 * size) - y) / 0.06, 0, 1)
    zone = frame.upsample(upper.astype(np.float32)) * _lung(canvas, side)
    canvas.markings = canvas.markings * (1 - 0.55 * min(size, 1.5) * zone)
    canvas.attenuation -= 0.07 * size * canvas.contrast * zone
    painter = frame.paint()
    for half in SIDES:
        for _ in range(int(2 + 2 * size)):
            centre = locate(canvas, half, str(rng.choice(["apex", "upper_lobe"])), rng)
            radius = rng.uniform(0.018, 0.03 + 0.012 * size)
            painter.line(blob(rng, centre, (radius, radius * rng.uniform(0.8, 1)), 0.08), 0.003, 1.0, closed=True)
    canvas.attenuation += 0.2 * canvas.contrast * painter.map(0.0008) * zone
    return zone
