"""The scene of a drawn study: patient, exposure and findings, which determine images and report."""

from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["easy", "realistic"]

#: Degrees from faint to gross; a finding without degrees has "".
DEGREES: tuple[str, ...] = ("minimal", "mild", "moderate", "severe")


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of a scene.

    Attributes:
        name: key of `crossray.phantom.catalogue.CATALOGUE`.
        side: patient's side: "left", "right", "bilateral" or "". A frontal view shows the patient's left at the right.
        place: one of the finding's places in the catalog, or "".
        degree: one of `DEGREES`, or "".
        status: "positive", or "uncertain": barely visible and reported as doubtful.
    """

    name: str
    side: str = ""
    place: str = ""
    degree: str = ""
    status: Literal["positive", "uncertain"] = "positive"


@dataclass(frozen=True, slots=True)
class Patient:
    """Build of the body. Numbers have mean 0 and standard deviation 1 unless stated otherwise.

    Attributes:
        width: width of the thorax.
        height: length of the thorax.
        fat: thickness of soft tissue.
        female: whether breast shadows are drawn.
        age: age in years; with age, bones lose contrast and the aorta unfolds.
    """

    width: float = 0.0
    height: float = 0.0
    fat: float = 0.0
    female: bool = False
    age: float = 50.0


@dataclass(frozen=True, slots=True)
class Exposure:
    """How the pictures were taken. Numbers without a unit have mean 0 and standard deviation 1.

    Attributes:
        gain: brightness.
        contrast: contrast.
        noise: noise level.
        blur: blur.
        rotation: rotation of the patient around the long axis, in degrees.
        tilt: rotation in the picture plane, in degrees.
        inspiration: depth of inspiration; low values raise the diaphragm.
        position: direction of the frontal view, "pa" or "ap".
        marker: whether the picture contains a side marker.
    """

    gain: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    rotation: float = 0.0
    tilt: float = 0.0
    inspiration: float = 0.0
    position: str = "pa"
    marker: bool = True


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that determines the two views of one drawn study.

    Attributes:
        seed: seed of the texture (noise, rib shape, vessels); scenes that differ only here show the same findings.
        severity: preset, which determines the contrast of the findings.
        undrawn: tags of a real report that cannot be drawn (`scene_from_tags` only).
    """

    seed: int
    patient: Patient = field(default_factory=Patient)
    exposure: Exposure = field(default_factory=Exposure)
    findings: tuple[Finding, ...] = ()
    severity: Severity = "realistic"
    undrawn: tuple[str, ...] = ()
