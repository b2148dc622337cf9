"""The lateral radiograph of a patient without local findings; the front of the body is at the left."""

import numpy as np

from crossray.phantom.bones import ribs_from_side, spine_from_side, vertebrae_from_side
from crossray.phantom.canvas import AIR, Canvas
from crossray.phantom.frame import Frame, Map, Points, blob, ellipse, offset, ribbon, smooth
from crossray.phantom.layout import SIDES, Layout, generator
from crossray.phantom.vessels import draw_vessels, vessel_tree


def front(layout: Layout, y: "float | Points") -> "float | Points":
    """X of the inner side of the breastbone at rows y."""
    rows = 0.125 + (np.asarray((0.12, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)) - 0.125) * layout.length
    return layout.depth * np.interp(y, rows, (-0.02, -0.15, -0.205, -0.245, -0.26, -0.255, -0.24))


def back(layout: Layout, y: "float | Points") -> "float | Points":
    """X of the posterior border of the lungs at rows y."""
    rows = np.asarray(y, dtype=np.float64)
    spine = np.reshape([spine_from_side(layout, float(row)) for row in rows.ravel()], rows.shape)
    return spine + np.interp(rows, (0.1, 0.2, 0.4), (-0.02, 0.025, 0.05))


def dome_line(layout: Layout, side: str) -> Points:
    """A hemidiaphragm from the breastbone to the posterior costophrenic angle, (25, 2)."""
    top = layout.domes[side] + (0.012 if side == "right" else 0.0)
    share = np.linspace(0, 1, 25)
    behind = np.clip((share - 0.35) / 0.65, 0, 1) ** 1.9
    ahead = np.clip((0.35 - share) / 0.35, 0, 1) ** 2
    y = top + (0.06 + 0.95 * layout.dome_height) * behind + 0.35 * layout.dome_height * ahead
    first, last = float(front(layout, y[0])), float(back(layout, y[-1]))
    return np.stack([first + share * (last - first), y], 1)


def lung_outline(layout: Layout, side: str) -> Points:
    """The outline of a lung, (N, 2)."""
    diaphragm = dome_line(layout, side)
    rows = np.linspace(diaphragm[-1, 1], 0.15, 22)
    rear = np.stack([np.asarray(back(layout, rows)), rows], 1)
    rows = np.linspace(0.19, diaphragm[0, 1], 18)
    ahead = np.stack([np.asarray(front(layout, rows)) + 0.012, rows], 1)
    return np.concatenate([diaphragm, rear, [(0.10, 0.125), (0.04, 0.14), (-0.05, 0.165)], ahead])


def heart_outline(layout: Layout) -> Points:
    """The outline of the heart, (N, 2)."""
    low = layout.floor - 0.012
    chest = float(front(layout, low - 0.08))
    size = 0.55 + 0.45 * layout.heart
    centre = (chest + 0.035 + 0.115 * size + 0.008 * layout.shape[2], low - 0.085 + 0.008 * layout.shape[3])
    return ellipse(centre, (0.14 * size, 0.115 * (0.5 + 0.5 * size)), -0.5)


def hilum(layout: Layout) -> Points:
    """Position of the roots of the lungs, (2,)."""
    return np.asarray([0.03, layout.row(0.52)])


def aorta_outline(layout: Layout) -> Points:
    """The outline of the aortic arch and descending aorta, in front of the spine, (N, 2)."""
    bulge = layout.unfolding
    rows = [layout.row(0.48), layout.row(0.30), layout.row(0.26), layout.row(0.34), layout.row(0.6), layout.row(1.0)]
    rear = [spine_from_side(layout, row) - 0.035 + 0.12 * bulge for row in rows[3:]]
    line = [(-0.03, rows[0]), (0.0, rows[1]), (0.07, rows[2] - 0.04 * bulge), *zip(rear, rows[3:], strict=True)]
    return smooth(line, 5, closed=False)


def _body(frame: Frame, layout: Layout) -> tuple[Map, Map, Map]:
    """Coverage of the trunk, its thickness (which decreases toward the skin), and coverage of the raised arms."""
    thick = 0.055 + 0.045 * (layout.soft - 1)
    rows = np.asarray([0.22, 0.35, 0.5, 0.65, 0.8])
    ahead = np.asarray(front(layout, rows)) - thick
    if layout.scene.patient.female:
        ahead = ahead - 0.07 * layout.soft * np.exp(-(((rows - 0.56) / 0.11) ** 2))
    belly = ahead[-1] + 0.05 * (0.4 - layout.soft)
    skin = thick - 0.05
    rear = [(0.37 + skin, 1.7), (0.36 + skin, 0.9), (0.375 + skin, 0.6), (0.385 + skin, 0.4), (0.36 + skin, 0.22),
            (0.30, 0.08), (0.2, -0.02), (0.16, -0.2)]  # fmt: skip
    trunk = [*zip(ahead, rows, strict=True), (belly, 1.0), (belly + 0.01, 1.7), *rear, (-0.02, -0.2), (-0.1, 0.02)]
    rng = generator(layout.scene, "arms")
    lift = 0.08 * rng.standard_normal()
    arm = [(0.22, 0.13), (0.05, -0.03 - lift), (-0.25, -0.10 - lift), (-0.7, -0.20 - lift), (-0.7, 0.02 - lift),
           (-0.3, 0.10 - lift), (-0.12, 0.2), (0.0, 0.24), (0.12, 0.24)]  # fmt: skip
    painter = frame.paint().polygon(smooth(trunk, 4))
    thickness = np.clip(1.8 * painter.map(0.05) - 0.7, 0, 1)
    return painter.map(0.003), thickness, frame.polygon(smooth(arm, 4), 0.02)


def _airways(frame: Frame, layout: Layout) -> Map:
    x, y = hilum(layout)
    painter = frame.paint()
    painter.line(np.asarray([(0.0, -0.05), (0.03, 0.2), (x + 0.02, y - 0.03)]), 0.034, 1.0)
    painter.polygon(ellipse((x + 0.018, y - 0.015), (0.014, 0.017)), 1.0)
    painter.polygon(ellipse((x + 0.026, y + 0.04), (0.012, 0.014)), 0.8)
    return painter.map(0.004)


def _hila(frame: Frame, layout: Layout) -> Map:
    x, y = hilum(layout)
    rng = generator(layout.scene, "hilum", "lateral")
    painter = frame.paint()
    painter.polygon(blob(rng, (x - 0.022, y + 0.012), (0.028, 0.038), 0.15), 0.8)
    arch = smooth(
        [(x + 0.01, y - 0.035), (x + 0.045, y - 0.02), (x + 0.05, y + 0.05), (x + 0.045, y + 0.11)], 5, closed=False
    )
    painter.polygon(ribbon(arch, np.linspace(0.014, 0.006, len(arch))), 0.8)
    return painter.map(0.007)


def _vessels(frame: Frame, layout: Layout) -> Map:
    trees = []
    for side in SIDES:
        rng = generator(layout.scene, "vessels", side, "lateral")
        fan = np.radians([-110, -70, -35, 20, 50, 75, 105, 140, 175, 215]) + 0.2 * rng.standard_normal(10)
        trees.append(vessel_tree(rng, hilum(layout) + offset(0.01, 0.01), fan, 0.24, 0.005))
    return draw_vessels(frame, trees, 0.0012)


def _gas(frame: Frame, layout: Layout) -> Map:
    rng = generator(layout.scene, "gas", "lateral")
    painter = frame.paint()
    top = layout.domes["left"] + 0.03
    if rng.random() < 0.6:
        high = rng.uniform(0.02, 0.05)
        outline = blob(rng, (rng.uniform(-0.12, 0.0), top + high), (rng.uniform(0.04, 0.09), high), 0.09)
        outline[:, 1] = np.minimum(outline[:, 1], top + 1.3 * high)
        painter.polygon(outline, rng.uniform(0.5, 1.0))
    for _ in range(rng.integers(0, 4)):
        painter.polygon(blob(rng, rng.uniform((-0.25, top + 0.1), (0.1, 1.1)), rng.uniform(0.015, 0.045, 2), 0.25), 0.6)
    return painter.map(0.004)


def draw_lateral(frame: Frame, layout: Layout, contrast: float) -> Canvas:
    """Draw a lateral view without local findings."""
    rng = generator(layout.scene, "texture", "lateral")
    x, y = frame.coarse
    trunk, thickness, arms = _body(frame, layout)
    lungs = {side: frame.polygon(lung_outline(layout, side), 0.0015) for side in SIDES}
    heart = frame.polygon(heart_outline(layout), 0.009)
    aorta = frame.paint().polygon(ribbon(aorta_outline(layout), 0.022)).map(0.005)
    both = 0.5 * (lungs["right"] + lungs["left"])

    across = np.clip(1 - ((x - 0.05) / 0.40) ** 2, 0, 1)
    solid = 1.9 * np.sqrt(across) * (0.75 + 0.25 * np.clip(y / 0.3, 0, 1))
    shell = layout.soft * (0.36 + 0.30 * across)
    shoulder = (
        1.25 * layout.soft * np.exp(-((np.clip(y - 0.08, 0, 1) / 0.12) ** 2)) * np.exp(-(((x - 0.06) / 0.24) ** 2))
    )
    belly = 0.45 * np.clip((y - layout.domes["right"]) / 0.25, 0, 1) * layout.soft * across
    low = layout.floor - 0.03
    middle = 0.5 * np.exp(-(((x - 0.01) / 0.11) ** 2)) * np.clip((0.36 - y) / 0.2, 0, 1)
    middle += np.clip((0.27 - y) / 0.11, 0, 1)
    middle += 0.44 * np.exp(-(((x + 0.17 + 0.25 * (y - low)) / 0.12) ** 2) - ((np.minimum(y - low, 0) / 0.2) ** 2))
    middle += 0.14 * np.exp(-(((x - 0.16) / 0.12) ** 2))
    air = both * (1 - 0.20 * heart - 0.14 * aorta - frame.upsample(middle.astype(np.float32))).clip(0) * AIR
    attenuation = frame.upsample((shell + shoulder + belly).astype(np.float32))
    attenuation = attenuation + frame.upsample(solid.astype(np.float32)) * (1 - air)
    attenuation += 0.05 * layout.soft * frame.field(rng, 9) * (1 - both)
    attenuation -= 0.35 * _airways(frame, layout) + 0.7 * _gas(frame, layout) * (1 - both)
    attenuation += vertebrae_from_side(frame, layout) + ribs_from_side(frame, layout)
    plate = frame.paint()
    rows = np.linspace(0.22, 0.22 + 0.36 * layout.length, 8)
    breastbone = np.stack([np.asarray(front(layout, rows)) - 0.012, rows], 1)
    plate.tube(breastbone, 0.011, 0.5, 1.0)
    attenuation += 0.4 * layout.bone * plate.map(0.002) + 0.28 * _hila(frame, layout) * both
    attenuation *= trunk * (0.45 + 0.55 * thickness)
    attenuation += 0.8 * layout.soft * arms * (1 - 0.35 * trunk)

    texture = 0.04 * frame.field(rng, 72) + 0.045 * frame.field(rng, 26)
    markings = both * (0.34 * _vessels(frame, layout) + texture)
    return Canvas(frame, layout, "lateral", attenuation, markings, lungs, heart * both, contrast)
