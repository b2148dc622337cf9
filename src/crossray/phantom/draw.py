"""Draws a scene as a frontal or lateral radiograph, with a mask of each visible finding."""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from crossray.data.study import FindingMask, View
from crossray.errors import UserError
from crossray.phantom import airspace, devices, mediastinum, pleura, skeleton
from crossray.phantom.canvas import Canvas
from crossray.phantom.catalogue import CATALOGUE
from crossray.phantom.film import expose
from crossray.phantom.frame import Frame, Map
from crossray.phantom.frontal import draw_frontal
from crossray.phantom.lateral import draw_lateral
from crossray.phantom.layout import SIDES, generator, lay_out
from crossray.phantom.masks import encode_runs
from crossray.phantom.scene import Finding, Scene

#: Draws one side of a finding on a canvas and returns its visible extent, (H, W) in [0, 1].
Drawing = Callable[[Canvas, Finding, str, np.random.Generator], Map]

#: By name of the finding, in drawing order: findings that move or remove lung come before those on top of it.
DRAWINGS: Mapping[str, Drawing] = {
    drawing.__name__: drawing
    for drawing in (
        mediastinum.hyperinflation,
        mediastinum.low_lung_volumes,
        mediastinum.elevated_diaphragm,
        mediastinum.cardiomegaly,
        mediastinum.tortuous_aorta,
        mediastinum.mediastinal_widening,
        mediastinum.hilar_enlargement,
        mediastinum.hiatal_hernia,
        airspace.emphysema,
        airspace.edema,
        airspace.interstitial_markings,
        airspace.opacity,
        airspace.consolidation,
        airspace.pneumonia,
        airspace.atelectasis,
        airspace.scarring,
        airspace.nodule,
        airspace.mass,
        pleura.pneumothorax,
        pleura.pleural_thickening,
        pleura.costophrenic_blunting,
        pleura.pleural_effusion,
        airspace.granuloma,
        mediastinum.aortic_calcification,
        skeleton.scoliosis,
        skeleton.kyphosis,
        skeleton.vertebral_fracture,
        skeleton.spine_degeneration,
        skeleton.rib_fracture,
        devices.endotracheal_tube,
        devices.enteric_tube,
        devices.chest_tube,
        devices.central_line,
        devices.pacemaker,
        devices.sternotomy_wires,
        devices.surgical_clips,
    )
}
_ORDER = {name: place for place, name in enumerate(DRAWINGS)}
#: Possible ratios of height to width, by view: detectors differ.
_ASPECTS = {"frontal": (1.0, 1.0, 1.0, 1.03, 1.2), "lateral": (1.0, 1.0, 1.2, 1.2)}
#: Coverage above which a pixel belongs to a finding, or half of the finding's maximum coverage if that is lower.
_SEEN = 0.25


def frame_of(scene: Scene, view: str, size: int) -> Frame:
    """The picture plane of a view: the size of the detector and the position of the patient."""
    rng = generator(scene, "frame", view)
    loose = 0.4 if scene.severity == "easy" else 1.0
    aspect = rng.choice(_ASPECTS[view])
    zoom = np.exp(0.055 * loose * np.clip(rng.standard_normal(), -2.2, 2.2))
    shift = 0.028 * loose * np.clip(rng.standard_normal(2), -2.2, 2.2)
    tilt = np.radians(np.clip(scene.exposure.tilt, -12, 12))
    return Frame(size, round(size * aspect), float(zoom), (float(shift[0]), float(shift[1])), float(tilt))


def draw(scene: Scene, view: Literal["frontal", "lateral"], size: int) -> View:
    """Draw one view of a scene (docs/phantom.md).

    The image depends only on the arguments. Each part has its own random generator, so adding a finding to a scene does
    not change the rest of the image.

    Args:
        scene: the patient, the exposure and the findings.
        view: "frontal" (with the patient's left at the right) or "lateral" (with the front at the left).
        size: length of the short side in pixels, at least 16.

    Returns:
        The view: pixels (H, W) uint8, and a mask of each visible finding, in the order of the scene.

    Raises:
        UserError: the size is below 16, the view is unknown, or the catalog has no such finding.
    """
    if size < 16:
        raise UserError(f"phantom: size {size} is too small to draw; choose at least 16")
    if view not in _ASPECTS:
        raise UserError(f"phantom: view {view!r} is unknown; choose frontal or lateral")
    for finding in scene.findings:
        if finding.name not in DRAWINGS:
            raise UserError(f"phantom: finding {finding.name!r} is not in the catalog; choose one of its names")
    frame = frame_of(scene, view, size)
    contrast = 1.5 if scene.severity == "easy" else 1.0
    canvas = (draw_frontal if view == "frontal" else draw_lateral)(frame, lay_out(scene), contrast)
    masks: dict[int, FindingMask] = {}
    for place in sorted(range(len(scene.findings)), key=lambda place: _ORDER[scene.findings[place].name]):
        finding = scene.findings[place]
        if view not in CATALOGUE[finding.name].views:
            continue
        canvas.contrast = contrast * (0.5 if finding.status == "uncertain" else 1.0)
        seen = np.zeros((frame.height, frame.width), dtype=bool)
        for side in SIDES if finding.side == "bilateral" else (finding.side,):
            rng = generator(scene, finding.name, side, finding.place)
            cover = DRAWINGS[finding.name](canvas, finding, side, rng)
            seen |= cover > min(_SEEN, 0.5 * float(cover.max()))
        if seen.any():
            masks[place] = FindingMask(
                finding.name,
                finding.side,
                finding.place,
                finding.degree,
                finding.status,
                *seen.shape,
                encode_runs(seen),
            )
    pixels = expose(canvas.finished(), frame, scene, view)
    return View(pixels, tuple(masks[place] for place in sorted(masks)))
