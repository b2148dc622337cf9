"""A view while it is drawn: the attenuation so far, and data for drawing findings."""

from dataclasses import dataclass

import numpy as np

from crossray.phantom.frame import Frame, Map
from crossray.phantom.layout import Layout

#: What is left of a lung's attenuation compared with solid tissue of the same thickness.
AIR = np.float32(0.93)


@dataclass
class Canvas:
    """A view while it is drawn.

    Attributes:
        frame: the picture plane.
        layout: the patient.
        view: "frontal" or "lateral".
        attenuation: (H, W) line integral of attenuation, about 0.4 in a lung and 2.5 below the diaphragm.
        markings: (H, W) vessels and texture of the lungs, added last; a collapsed or destroyed lung has none.
        lungs: patient's side -> (H, W) coverage of the aerated lung; in a lateral view both sides overlap.
        heart: (H, W) coverage of the heart.
        contrast: how strongly findings absorb, by the severity preset.
    """

    frame: Frame
    layout: Layout
    view: str
    attenuation: Map
    markings: Map
    lungs: dict[str, Map]
    heart: Map
    contrast: float

    @property
    def frontal(self) -> bool:
        """Whether this is a frontal view."""
        return self.view == "frontal"

    def finished(self) -> Map:
        """The whole attenuation, (H, W)."""
        return np.maximum(self.attenuation + self.markings, 0)
