"""Wrong poses of radiographs: rotated, mirrored or inverted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pose:
    """A change of orientation or polarity of an image.

    Attributes:
        turns: number of quarter-turns clockwise, from 0 to 3.
        inverted: whether black and white are swapped, as in a negative.
        mirrored: whether left and right are swapped, before the turns.
    """

    turns: int = 0
    inverted: bool = False
    mirrored: bool = False

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Apply the pose to an image.

        Args:
            pixels: (H, W) uint8 image.

        Returns:
            Image of shape (H, W), or (W, H) after an odd number of turns.
        """
        if self.mirrored:
            pixels = pixels[:, ::-1]
        pixels = np.rot90(pixels, -self.turns)
        return np.ascontiguousarray(255 - pixels if self.inverted else pixels)


#: The pose of an unchanged image.
AS_IS = Pose()

#: Poses with a single mistake, by name.
MISTAKES: dict[str, Pose] = {
    "turned by 90 degrees": Pose(turns=1),
    "turned by 180 degrees": Pose(turns=2),
    "turned by 270 degrees": Pose(turns=3),
    "inverted": Pose(inverted=True),
    "mirrored": Pose(mirrored=True),
}


def draw_poses(count: int, generator: np.random.Generator) -> list[Pose]:
    """Draw random poses: independently, half are upright, half inverted and half mirrored."""
    turns = np.where(generator.random(count) < 0.5, 0, generator.integers(1, 4, count))
    inverted, mirrored = generator.random((2, count)) < 0.5
    return [Pose(*one) for one in zip(turns.tolist(), inverted.tolist(), mirrored.tolist(), strict=True)]
