"""Simulates the exposure: converts attenuation to gray levels."""

import numpy as np
from numpy.typing import NDArray

from crossray.phantom.frame import Frame, Map, ellipse, soften
from crossray.phantom.layout import generator
from crossray.phantom.scene import Scene

#: Strokes of the marker letters in a unit square, y down.
_LETTERS = {
    "L": [[(0.1, 0.0), (0.1, 1.0), (0.8, 1.0)]],
    "R": [[(0.1, 1.0), (0.1, 0.0), (0.65, 0.05), (0.75, 0.28), (0.6, 0.5), (0.1, 0.52)], [(0.4, 0.52), (0.8, 1.0)]],
}


def _spread(value: float, limit: float = 2.5) -> float:
    return float(np.clip(value, -limit, limit))


def marker(frame: Frame, scene: Scene, view: str) -> Map:
    """Coverage of the side marker, a lead letter: L at the right of the picture or R at the left."""
    rng = generator(scene, "marker", view)
    letter = "R" if view == "frontal" and rng.random() < 0.35 else "L"
    side = -1.0 if letter == "R" else 1.0
    corner = np.asarray([side * rng.uniform(0.36, 0.43), rng.uniform(0.03, 0.10)])
    high, lean = rng.uniform(0.03, 0.05), 0.25 * rng.standard_normal()
    painter = frame.paint()
    for stroke in _LETTERS[letter]:
        points = (np.asarray(stroke) - 0.5) * (0.7 * high, high)
        points = points + np.stack([lean * points[:, 1], -lean * points[:, 0]], 1)
        painter.line(corner + points, 0.17 * high, 1.0)
    if rng.random() < 0.3:
        painter.line(ellipse(corner, (high, high)), 0.1 * high, 1.0, closed=True)
    return painter.map(0.0008)


def expose(attenuation: Map, frame: Frame, scene: Scene, view: str) -> NDArray[np.uint8]:
    """Convert an attenuation map to gray levels (H, W): scatter, film response, blur, quantum noise.

    The response depends on the exposure only, not on the picture, so a finding changes gray levels only where it is.
    """
    exposure = scene.exposure
    loose = 0.45 if scene.severity == "easy" else 1.0
    rng = generator(scene, "film", view)
    reach = 1.0 if view == "frontal" else 0.85
    strength = np.exp(0.16 * loose * _spread(exposure.gain))
    gamma = np.exp(0.10 * loose * _spread(exposure.contrast))
    black = 0.10 * loose * rng.uniform(-1, 1) + 0.08

    haze = 1 + 0.07 * loose * frame.field(rng, 3)
    dose = attenuation * haze * np.float32(reach)
    grain = rng.standard_normal(attenuation.shape, dtype=np.float32)
    quantum = 0.010 * np.exp(0.35 * loose * _spread(exposure.noise))
    dose = dose + quantum * grain * np.exp(np.minimum(0.35 * dose, 1.5))
    level = 1 - np.exp(-np.maximum(dose - black, 0) * np.float32(0.78 * strength))
    grey = np.power(level, np.float32(gamma * 1.05)) * 264
    if exposure.marker:
        grey = np.maximum(grey, 250 * marker(frame, scene, view))
    sigma = float(0.0017 * np.exp(0.45 * loose * _spread(exposure.blur)) * frame.width)
    pixels: NDArray[np.uint8] = np.clip(soften(grey, sigma) + 0.5, 0, 255).astype(np.uint8)
    return pixels
