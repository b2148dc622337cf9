"""A source: gray images with a bright square in one half, and a report that says in which."""

from dataclasses import dataclass

import numpy as np

from crossray.data.sources.source import Collection, source
from crossray.data.study import Study, View

SIDES = ("left", "right")


@dataclass(frozen=True)
class Square:
    """An image that is made when it is read."""

    number: int
    position: str = "pa"

    @property
    def name(self) -> str:
        return f"square {self.number}"

    def read(self, size: int) -> View:
        pixels = np.full((size, size), 60, np.uint8)
        half = slice(0, size // 2) if self.number % 2 == 0 else slice(size // 2, size)
        pixels[size // 4 : size // 2, half] = 220
        return View(pixels)


@source("squares", cleaner="fixed")
def squares(studies: int = 30) -> Collection:
    """Draw squares.

    Args:
        studies: how many.
    """
    made = [
        Study(
            id=f"square-{number}",
            patient=f"patient-{number}",
            split="train" if number % 5 < 3 else "val" if number % 5 == 3 else "test",
            findings=f"there is a bright square on the {SIDES[number % 2]} .",
            images=(Square(number),),
        )
        for number in range(studies)
    ]
    return Collection(made, {"kind": "squares", "studies": studies, "synthetic_images": True})
