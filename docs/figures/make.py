"""Draws the figures of the documents: `python docs/figures/make.py`."""

from pathlib import Path

import numpy as np
from PIL import Image

from crossray.data.images import resize_short_side
from crossray.phantom.draw import draw
from crossray.phantom.scene import Exposure, Finding, Patient, Scene

FOLDER = Path(__file__).parent
SIDE = 256

#: One study a row: what is drawn, and who it is drawn in.
SCENES = (
    Scene(seed=11),
    Scene(seed=12, patient=Patient(fat=0.8, age=71.0), findings=(
        Finding("cardiomegaly", degree="moderate"), Finding("pleural_effusion", "left", degree="moderate"))),
    Scene(seed=13, findings=(Finding("mass", "right", "upper_lobe"), Finding("hyperinflation", degree="moderate")),
          patient=Patient(age=66.0)),
    Scene(seed=14, findings=(Finding("pacemaker", "left"), Finding("sternotomy_wires")),
          patient=Patient(female=True, age=78.0), exposure=Exposure(noise=1.0)),
)  # fmt: skip


def main() -> None:
    """Two studies a row, frontal and lateral view each."""
    tiles = []
    for scene in SCENES:
        for view in ("frontal", "lateral"):
            pixels = resize_short_side(draw(scene, view, SIDE).pixels, SIDE)
            tiles.append(pixels[:SIDE, :SIDE])
    rows = [np.hstack(tiles[start : start + 4]) for start in range(0, len(tiles), 4)]
    Image.fromarray(np.vstack(rows)).save(FOLDER / "phantom.jpg", quality=85, optimize=True)


if __name__ == "__main__":
    main()
