"""The state of a view while it is drawn: the attenuation so far, and what findings need to know."""

from dataclasses import dataclass

import numpy as np

from crossray.phantom.frame import Frame, Map
from crossray.phantom.layout import Layout

#: Share by which air reduces the attenuation of a lung, relative to solid tissue of the same thickness.
AIR = np.float32(0.93)


@dataclass
class Canvas:
    """The state of a view while it is drawn.

    Attributes:
        frame: the picture plane.
        layout: the patient.
        view: "frontal" or "lateral".
        attenuation: (H, W) line integral of the attenuation, about 0.4 in a lung and 2.5 below the diaphragm.
        markings: (H, W) vessels and texture of the lungs, added last; zero in collapsed or destroyed lung.
        lungs: by patient's side, (H, W) coverage of the aerated lung; in a lateral view the two overlap.
        heart: (H, W) coverage of the heart.
        contrast: factor of the findings' attenuation, set by the severity preset.
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
        """The attenuation with markings, (H, W)."""
        return np.maximum(self.attenuation + self.markings, 0)
