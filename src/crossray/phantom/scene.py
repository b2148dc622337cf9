"""The scene of a drawn radiograph: patient, exposure and findings, which determine image and report."""

from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["easy", "realistic"]

#: Degrees from faint to gross; a finding without a natural degree has "".
DEGREES: tuple[str, ...] = ("minimal", "mild", "moderate", "severe")


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding of a scene.

    Attributes:
        name: key of `crossray.phantom.catalogue.CATALOGUE`.
        side: "left", "right", "bilateral" or "" (patient's side; a frontal view shows the patient's left at its right).
        place: one of the finding's places in the catalogue, or "".
        degree: one of `DEGREES`, or "".
        status: "positive", or "uncertain": drawn at the edge of visibility and reported with doubt.
    """

    name: str
    side: str = ""
    place: str = ""
    degree: str = ""
    status: Literal["positive", "uncertain"] = "positive"


@dataclass(frozen=True, slots=True)
class Patient:
    """Build of the body, each value around 0 with spread 1 unless said otherwise.

    Attributes:
        width: breadth of the thorax.
        height: length of the thorax.
        fat: thickness of soft tissue.
        female: breast shadows.
        age: years; bones lose contrast, the aorta unfolds.
    """

    width: float = 0.0
    height: float = 0.0
    fat: float = 0.0
    female: bool = False
    age: float = 50.0


@dataclass(frozen=True, slots=True)
class Exposure:
    """How the picture was taken.

    Attributes:
        gain: brightness, around 0 with spread 1; contrast: likewise; noise: likewise; blur: likewise.
        rotation: degrees that the patient is turned about the long axis; tilt: degrees in the plane.
        inspiration: around 0 with spread 1; low values raise the diaphragm.
        position: "pa" or "ap" of the frontal view.
        marker: a side marker letter is in the picture.
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
        seed: seeds the texture (noise, rib shape, vessels); two scenes that differ only here show the same findings.
        severity: preset that the findings' contrast was drawn for.
        undrawn: tags of a real report that no drawing exists for (`scene_from_tags` only).
    """

    seed: int
    patient: Patient = field(default_factory=Patient)
    exposure: Exposure = field(default_factory=Exposure)
    findings: tuple[Finding, ...] = ()
    severity: Severity = "realistic"
    undrawn: tuple[str, ...] = ()
