"""Mistaken poses of radiographs: turned, mirrored, inverted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pose:
    """The difference of an image from the stored one.

    Attributes:
        turns: quarter-turns clockwise, 0 to 3.
        inverted: black and white exchanged, as in a negative.
        mirrored: left and right exchanged, before the turns.
    """

    turns: int = 0
    inverted: bool = False
    mirrored: bool = False

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image in this pose.

        Args:
            pixels: (H, W) uint8.

        Returns:
            (H, W), or (W, H) after an odd number of turns.
        """
        if self.mirrored:
            pixels = pixels[:, ::-1]
        pixels = np.rot90(pixels, -self.turns)
        return np.ascontiguousarray(255 - pixels if self.inverted else pixels)


#: The pose of an image that is as it should be.
AS_IS = Pose()

#: One mistake at a time, by name.
MISTAKES: dict[str, Pose] = {
    "turned by 90 degrees": Pose(turns=1),
    "turned by 180 degrees": Pose(turns=2),
    "turned by 270 degrees": Pose(turns=3),
    "inverted": Pose(inverted=True),
    "mirrored": Pose(mirrored=True),
}


def draw_poses(count: int, generator: np.random.Generator) -> list[Pose]:
    """Random poses: upright half of the time, and each half the time inverted and mirrored, independently."""
    turns = np.where(generator.random(count) < 0.5, 0, generator.integers(1, 4, count))
    inverted, mirrored = generator.random((2, count)) < 0.5
    return [Pose(*one) for one in zip(turns.tolist(), inverted.tolist(), mirrored.tolist(), strict=True)]
