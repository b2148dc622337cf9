"""The geometry of a drawn patient: positions of domes, borders and vertebrae, given build, inspiration and findings."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossray.phantom.frame import Points
from crossray.phantom.scene import Finding, Scene

#: Size of a finding by degree.
SIZES: Mapping[str, float] = {"minimal": 0.55, "mild": 0.85, "": 1.0, "moderate": 1.25, "severe": 1.8}
#: Y of the fractured vertebra by place.
_BROKEN: Mapping[str, float] = {"upper_spine": 0.34, "middle_spine": 0.51, "lower_spine": 0.73, "": 0.51}
SIDES: tuple[str, str] = ("right", "left")
#: Sign of x by patient's side: a frontal view shows the patient's left at the right.
SIGNS: Mapping[str, float] = {"right": -1.0, "left": 1.0}


def generator(scene: Scene, *names: str) -> np.random.Generator:
    """A random generator for one part of the picture, so that adding a finding does not change other parts."""
    return np.random.default_rng([scene.seed % 2**64, zlib.crc32("/".join(names).encode())])


def extent(finding: Finding) -> float:
    """Size of a finding; 1 without a degree, and smaller if it is uncertain."""
    return SIZES[finding.degree] * (0.6 if finding.status == "uncertain" else 1.0)


def sides_of(finding: Finding) -> tuple[str, ...]:
    """The sides of a finding, each of which is drawn separately."""
    return SIDES if finding.side in ("bilateral", "") else (finding.side,)


@dataclass(frozen=True)
class Layout:
    """The geometry of a patient. Lengths are in picture widths.

    Attributes:
        scene: the scene that the layout was computed from.
        breadth: factor of the thorax's half-width.
        length: factor of the thorax's length.
        domes: y of the top of each hemidiaphragm, by patient's side.
        floor: y of the heart's lower border; an elevated hemidiaphragm does not lift it.
        dome_height: height of a dome above the costophrenic angle.
        heart: factor of the heart's width.
        turn: sine of the rotation angle, proportional to the shift of anterior structures to the patient's left.
        bend: sideways shift of the spine at its apex, positive to the patient's left.
        hunch: thoracic kyphosis.
        wedge: y of the fractured vertebra and the share of its height lost anteriorly, 0 without a fracture.
        bone: contrast of bone, which decreases with age.
        soft: thickness of soft tissue, 1 on average.
        depth: factor of the chest's depth (above 1 for a barrel chest).
        unfolding: extent to which the aorta bulges to the left.
        unevenness: (11, 2, 2) small shifts of each rib, right and left: of its posterior end and of its slope.
        shape: (8,) random variation between healthy bodies, with mean 0 and standard deviation 1.
        supine: whether the frontal view is AP, which magnifies heart and mediastinum.
    """

    scene: Scene
    breadth: float
    length: float
    domes: Mapping[str, float]
    floor: float
    dome_height: float
    heart: float
    turn: float
    bend: float
    hunch: float
    wedge: tuple[float, float]
    bone: float
    soft: float
    depth: float
    unfolding: float
    unevenness: NDArray[np.float64]
    shape: NDArray[np.float64]
    supine: bool

    @property
    def apex(self) -> float:
        """Y of the top of the lungs."""
        return 0.13

    def row(self, share: float) -> float:
        """Y at a share of the distance from the top of the lungs (0) to an average normal diaphragm (1)."""
        return self.apex + share * 0.54 * self.length

    def spine(self, y: "float | Points") -> "Points":
        """X of the spine's axis in a frontal view at rows y."""
        t = np.asarray(y, dtype=np.float64)
        return self.bend * np.exp(-(((t - 0.48) / 0.2) ** 2)) - 0.45 * self.bend * np.exp(-(((t - 0.95) / 0.2) ** 2))


def lay_out(scene: Scene) -> Layout:
    """Compute the layout of a scene, including the findings that move borders (heart, diaphragm, spine, volumes)."""
    found = {finding.name: finding for finding in scene.findings}
    size = {name: extent(finding) for name, finding in found.items()}
    rng = generator(scene, "layout")
    patient, exposure = scene.patient, scene.exposure
    loose = 0.5 if scene.severity == "easy" else 1.0

    breadth = 1 + 0.05 * np.clip(patient.width, -3, 3)
    length = 1 + 0.05 * np.clip(patient.height, -3, 3)
    volume = 0.022 * np.clip(exposure.inspiration, -3, 2.5)
    volume += 0.06 * size.get("hyperinflation", 0) - 0.075 * size.get("low_lung_volumes", 0)
    domes = {"right": 0.13 + 0.53 * length + volume, "left": 0.13 + 0.555 * length + volume}
    for side in SIDES:
        domes[side] += 0.008 * loose * rng.standard_normal()
    floor = 0.5 * (domes["right"] + domes["left"]) + 0.03
    elevated = found.get("elevated_diaphragm")
    if elevated is not None:
        for side in sides_of(elevated):
            domes[side] -= 0.075 * size["elevated_diaphragm"]
    broken = found.get("vertebral_fracture")
    scoliosis = found.get("scoliosis")
    return Layout(
        scene=scene,
        breadth=float(breadth),
        length=float(length),
        domes={side: float(np.clip(y, 0.40, 0.85)) for side, y in domes.items()},
        floor=float(np.clip(floor, 0.44, 0.86)),
        dome_height=float((0.115 - 0.03 * size.get("hyperinflation", 0)) * (1 + 0.1 * loose * rng.standard_normal())),
        heart=float(
            1
            + 0.06 * loose * float(np.clip(rng.standard_normal(), -2, 2))
            + 0.27 * size.get("cardiomegaly", 0)
            - 1.2 * min(volume, 0.1)
        ),
        turn=float(np.sin(np.radians(np.clip(exposure.rotation, -25, 25)))),
        bend=float(0.045 * size["scoliosis"] * SIGNS[scoliosis.side or "right"]) if scoliosis else 0.0,
        hunch=0.06 * size.get("kyphosis", 0.0),
        wedge=(_BROKEN[broken.place], 0.28 * size["vertebral_fracture"]) if broken else (0.0, 0.0),
        bone=float(np.clip(1.15 - 0.006 * (patient.age - 40), 0.65, 1.3)),
        soft=float(np.clip(1 + 0.22 * patient.fat, 0.5, 1.9)),
        depth=1 + 0.07 * size.get("hyperinflation", 0.0),
        unfolding=float(np.clip((patient.age - 55) / 250, 0, 0.1) + 0.4 * size.get("tortuous_aorta", 0.0)),
        unevenness=0.004 * generator(scene, "ribs").standard_normal((11, 2, 2)),
        shape=loose * generator(scene, "shape").standard_normal(8).clip(-2, 2),
        supine=exposure.position == "ap",
    )
