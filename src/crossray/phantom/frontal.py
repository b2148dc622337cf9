"""The frontal radiograph of a patient without local findings."""

import numpy as np

from crossray.phantom.bones import ribs_from_front, shoulders, spine_from_front
from crossray.phantom.canvas import AIR, Canvas
from crossray.phantom.frame import Frame, Map, Points, blob, ellipse, offset, ribbon, smooth
from crossray.phantom.layout import SIDES, SIGNS, Layout, generator
from crossray.phantom.vessels import draw_vessels, vessel_tree

#: Values of y at which the half-width of the thoracic cavity is tabulated, before scaling by `Layout.breadth`.
_WALL_Y = (0.125, 0.135, 0.16, 0.20, 0.27, 0.37, 0.5, 0.65, 0.8, 1.0)
_WALL_X = (0.095, 0.13, 0.17, 0.205, 0.25, 0.295, 0.328, 0.347, 0.352, 0.34)


def cavity_half_width(layout: Layout, y: "float | Points") -> Points:
    """Half-width of the thoracic cavity at rows y."""
    rows = np.asarray(_WALL_Y)
    wall = np.asarray(_WALL_X) * (1 + layout.shape[0] * np.linspace(-0.05, 0.05, len(_WALL_X)))
    return np.asarray(layout.breadth * np.interp(y, 0.125 + (rows - 0.125) * layout.length, wall))


def dome(layout: Layout, side: str, share: "float | Points") -> Points:
    """Y of a hemidiaphragm; `share` ranges from 0 at the midline to 1 at the chest wall."""
    outward = np.clip((np.asarray(share, dtype=np.float64) - 0.48) / 0.52, -1, 1)
    fall = np.where(outward > 0, np.abs(outward) ** (2.4 + 0.4 * layout.shape[1]), 0.42 * np.abs(outward) ** 2)
    return np.asarray(layout.domes[side] + layout.dome_height * fall)


def dome_line(layout: Layout, side: str) -> Points:
    """A hemidiaphragm from the midline to the costophrenic angle, (25, 2)."""
    share = np.linspace(0, 1, 25)
    y = np.asarray(dome(layout, side, share))
    x = share * np.asarray(cavity_half_width(layout, float(y[-1])))
    return np.stack([SIGNS[side] * x, y], 1)


def lung_outline(layout: Layout, side: str) -> Points:
    """The outline of a lung, (N, 2), which extends behind the mediastinum."""
    diaphragm = dome_line(layout, side)
    rows = np.linspace(diaphragm[-1, 1], 0.127, 26)
    wall = np.stack([SIGNS[side] * np.asarray(cavity_half_width(layout, rows)), rows], 1)
    top = SIGNS[side] * layout.breadth
    inner = np.asarray([(0.085 * top, 0.118), (0.055 * top, 0.135), (0.03 * top, 0.2), (0.0, 0.3)])
    return np.concatenate([diaphragm, wall, inner])


def heart_outline(layout: Layout) -> Points:
    """The outline of the heart, (N, 2)."""
    low = layout.floor
    wide, shift = layout.heart * (1.12 if layout.supine else 1.0), 0.12 * layout.turn + 0.008 * layout.shape[2]
    height = low - layout.row(0.47 + 0.02 * layout.shape[3])
    border = [
        (0.055, low - height), (0.085, low - 0.86 * height), (0.118, low - 0.68 * height), (0.165, low - 0.45 * height),
        (0.182, low - 0.22 * height), (0.185, low - 0.07 * height), (0.14, low), (0.0, low + 0.02),
        (-0.07, low - 0.02), (-0.09, low - 0.2 * height), (-0.093, low - 0.38 * height),
        (-0.075, low - 0.62 * height), (-0.05, low - 0.9 * height),
    ]  # fmt: skip
    return smooth([(x * (wide if abs(x) > 0.06 else 1) + shift, y) for x, y in border], 5)


def aorta_outline(layout: Layout) -> Points:
    """The outline of the aortic arch and descending aorta, left of the spine, (N, 2)."""
    bulge, turn = layout.unfolding, 0.05 * layout.turn
    top = layout.row(0.27) - 0.05 * bulge
    line = [(0.02, top + 0.035), (0.035 + 0.04 * bulge, top + 0.03), (0.04 + 0.10 * bulge, layout.row(0.5)),
            (0.035 + 0.13 * bulge, layout.row(0.75)), (0.02, layout.row(1.0))]  # fmt: skip
    course = smooth(line, 5, closed=False) + offset(turn, 0)
    return ribbon(course, 0.022 + 0.006 * bulge)


def knob(layout: Layout) -> tuple[tuple[float, float], tuple[float, float]]:
    """Center and radii of the aortic knob."""
    bulge = layout.unfolding
    return (0.042 + 0.03 * bulge + 0.05 * layout.turn, layout.row(0.32)), (0.032 + 0.018 * bulge, 0.036 + 0.015 * bulge)


def mediastinum_outline(layout: Layout) -> Points:
    """The outline of the upper mediastinum, (N, 2)."""
    wide = (1.15 if layout.supine else 1.0) + 0.08 * layout.shape[4]
    ahead = 0.06 * layout.turn
    left = [(0.075, 0.0), (0.058, layout.row(0.05)), (0.05, layout.row(0.2)), (0.052, layout.row(0.36)),
            (0.062, layout.row(0.5)), (0.06, layout.row(1.1))]  # fmt: skip
    right = [(-0.06, layout.row(1.1)), (-0.06, layout.row(0.55)), (-0.056, layout.row(0.38)), (-0.055, layout.row(0.2)),
             (-0.062, layout.row(0.05)), (-0.075, 0.0)]  # fmt: skip
    return smooth([(wide * x + ahead, y) for x, y in left + right], 4)


def _body(frame: Frame, layout: Layout) -> tuple[Map, Map]:
    """Coverage of the body (neck, shoulders, upper arms, trunk), and its thickness, which decreases toward the skin."""
    wide = layout.breadth * 0.97 + 0.05 * (layout.soft - 1)
    drop = 0.012 * layout.shape[5]
    trunk = [(0.088, -0.15), (0.087, 0.03), (0.14, 0.07), (0.27, 0.095 + drop), (0.43, 0.115 + drop), (0.58, 0.24),
             (0.66, 0.9), (0.56, 0.9), (0.49, 0.52), (0.435, 0.37), (0.415, 0.47), (0.41, 0.62), (0.42, 0.8),
             (0.435, 1.1), (0.44, 1.7)]  # fmt: skip
    half = [(x * wide, y) for x, y in trunk]
    painter = frame.paint().polygon(smooth(half + [(-x, y) for x, y in reversed(half)], 4))
    return painter.map(0.002), np.clip(1.8 * painter.map(0.05) - 0.7, 0, 1)


def _trachea(frame: Frame, layout: Layout) -> Map:
    x, carina = 0.02 * layout.turn, layout.row(0.40)
    painter = frame.paint()
    painter.line(np.asarray([(x, -0.1), (x + 0.004, 0.2), (x + 0.008, carina - 0.01)]), 0.036, 1.0)
    painter.line(
        np.asarray([(x + 0.006, carina - 0.02), (x - 0.03, carina + 0.03), (x - 0.055, carina + 0.065)]), 0.026, 0.8
    )
    painter.line(
        np.asarray([(x + 0.006, carina - 0.02), (x + 0.05, carina + 0.035), (x + 0.075, carina + 0.055)]), 0.022, 0.8
    )
    return painter.map(0.005)


def _breasts(frame: Frame, layout: Layout) -> Map:
    rng = generator(layout.scene, "breasts")
    painter = frame.paint()
    low = layout.row(0.95) + 0.03 * rng.standard_normal()
    for side in SIDES:
        x = SIGNS[side] * (0.235 + 0.01 * rng.standard_normal()) * layout.breadth
        painter.polygon(ellipse((x, low - 0.05), (0.15 + 0.02 * (layout.soft - 1), 0.16 + 0.03 * (layout.soft - 1))))
    edge = painter.map(0.004)
    _, y = frame.coarse
    rise = frame.upsample(np.clip((y - low + 0.17) / 0.2, 0, 1))
    return edge * rise * np.float32(0.32 * layout.soft)


def _gas(frame: Frame, layout: Layout) -> Map:
    """Gas in stomach and bowel, with a fluid level in the stomach."""
    rng = generator(layout.scene, "gas")
    painter = frame.paint()
    top = layout.domes["left"] + 0.022
    if rng.random() < 0.8:
        x, wide, high = rng.uniform(0.13, 0.2), rng.uniform(0.04, 0.085), rng.uniform(0.025, 0.06)
        outline = blob(rng, (x, top + high), (wide, high), 0.09)
        if rng.random() < 0.6:
            outline[:, 1] = np.minimum(outline[:, 1], top + 1.3 * high)
        painter.polygon(outline, rng.uniform(0.6, 1.0))
    for _ in range(rng.integers(0, 6)):
        centre = rng.uniform((-0.3, top + 0.12), (0.32, 1.1))
        painter.polygon(blob(rng, centre, rng.uniform(0.012, 0.045, 2), 0.25), rng.uniform(0.3, 0.8))
    return painter.map(0.004)


def hilum(layout: Layout, side: str) -> Points:
    """The root of a lung, (2,)."""
    y = layout.row(0.52 if side == "right" else 0.485)
    return np.asarray([SIGNS[side] * 0.075 + 0.02 * layout.turn, y])


def _vessels(frame: Frame, layout: Layout) -> Map:
    trees = []
    for side in SIDES:
        rng = generator(layout.scene, "vessels", side)
        fan = np.radians([-80, -52, -25, 5, 32, 55, 75]) + 0.16 * rng.standard_normal(7)
        fan = fan if side == "left" else np.pi - fan
        trees.append(vessel_tree(rng, hilum(layout, side), fan, 0.30 * layout.breadth, 0.0052))
    return draw_vessels(frame, trees, 0.0012)


def _hila(frame: Frame, layout: Layout) -> Map:
    painter = frame.paint()
    for side in SIDES:
        rng = generator(layout.scene, "hilum", side)
        x, y = hilum(layout, side)
        out = SIGNS[side]
        course = smooth([(x - out * 0.01, y - 0.03), (x + out * 0.012, y), (x + out * 0.018, y + 0.05),
                         (x + out * 0.02, y + 0.1)], 4, closed=False)  # fmt: skip
        wide = 0.012 * rng.uniform(0.8, 1.2)
        painter.polygon(ribbon(course, np.linspace(wide, wide * 0.5, len(course))), 0.7)
        for centre in (x + out * 0.022, y + 0.02) + rng.standard_normal((7, 2)) * (0.013, 0.028):
            painter.polygon(ellipse(centre, rng.uniform(0.004, 0.0075, 2)), rng.uniform(0.6, 1.0))
    return painter.map(0.0032)


def draw_frontal(frame: Frame, layout: Layout, contrast: float) -> Canvas:
    """Draw a frontal view without local findings."""
    rng = generator(layout.scene, "texture", "frontal")
    x, y = frame.coarse
    body, thickness = _body(frame, layout)
    outlines = {side: lung_outline(layout, side) for side in SIDES}
    lungs = {side: frame.polygon(outlines[side], 0.0012) for side in SIDES}
    heart = frame.polygon(heart_outline(layout), 0.0045)
    aorta = np.maximum(frame.polygon(aorta_outline(layout), 0.003), frame.polygon(ellipse(*knob(layout)), 0.003))
    middle = frame.polygon(mediastinum_outline(layout), 0.006)
    both = np.maximum(lungs["right"], lungs["left"])

    half_width = np.asarray(cavity_half_width(layout, y), dtype=np.float32)
    inside = np.clip(1 - (x / (half_width * 1.10)) ** 2, 0.0, 1) * np.clip((y - 0.02) / 0.12, 0, 1)
    solid = (1.62 - 0.35 * np.clip((0.36 - y) / 0.2, 0, 1)) * np.sqrt(inside)
    beside = np.clip(np.abs(x) / half_width - 0.9, 0, 0.5)
    shell = layout.soft * (0.33 + 0.52 * np.minimum(beside * 4, 1.0)) * np.clip(0.7 + 3.2 * (0.55 - np.abs(x)), 0.45, 1)
    shell *= 1 + 0.35 * np.exp(-(((y - 0.12) / 0.07) ** 2)) * np.clip(np.abs(x) / 0.15, 0, 1)
    belly = 0.55 * np.clip((y - 0.5 * sum(layout.domes.values())) / 0.2, 0, 1) * layout.soft
    neck = 0.55 * np.exp(-((x / 0.1) ** 2)) * np.clip(1 - y / 0.2, 0, 1)
    gap = 1 - (0.62 * heart + 0.5 * aorta + (1 - 0.62 * heart - 0.5 * aorta).clip(0) * 0.93 * middle).clip(0, 1)
    air = both * gap * AIR
    solid_map = frame.upsample((solid + belly + neck).astype(np.float32))
    attenuation = frame.upsample(shell.astype(np.float32)) + solid_map * (1 - air)
    attenuation += 0.12 * layout.soft * frame.field(rng, 9) * (1 - both) * 0.4
    attenuation -= 0.6 * _trachea(frame, layout) + 0.75 * _gas(frame, layout) * (1 - both)
    attenuation += spine_from_front(frame, layout) + ribs_from_front(frame, layout) + shoulders(frame, layout)
    attenuation += 0.30 * _hila(frame, layout) * both
    if layout.scene.patient.female:
        attenuation += _breasts(frame, layout)
    attenuation *= body * (0.4 + 0.6 * thickness)

    texture = 0.04 * frame.field(rng, 72) + 0.035 * frame.field(rng, 26)
    markings = both * (1 - 0.6 * (1 - gap)) * (0.36 * _vessels(frame, layout) + texture)
    return Canvas(
        frame,
        layout,
        "frontal",
        attenuation,
        markings,
        {side: lungs[side] * (0.25 + 0.75 * gap) for side in SIDES},
        heart,
        contrast,
    )
