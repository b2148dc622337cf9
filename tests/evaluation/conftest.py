"""Made-up reports, and a small prepared dataset of gray squares."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from crossray.data.store import Dataset, write_dataset
from crossray.data.study import FindingMask, Study, View

_OBJECTS = ("the heart", "the mediastinum", "the left lung", "the right lung", "the aorta", "a device")
_STATES = ("is normal .", "is enlarged .", "is clear .", "shows an opacity .", "is not seen .", "is stable .")


@pytest.fixture
def made_up() -> Callable[[int, int], list[str]]:
    """Makes so many reports of one to five sentences with a seed."""

    def make(count: int, seed: int) -> list[str]:
        draw = np.random.default_rng(seed)
        lengths = draw.integers(1, 6, size=count)
        return [" ".join(f"{draw.choice(_OBJECTS)} {draw.choice(_STATES)}" for _ in range(size)) for size in lengths]

    return make


@dataclass(frozen=True)
class Square:
    """A view in one gray value."""

    grey: int
    position: str = "frontal"
    height: int = 40
    drawn: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"square {self.grey}"

    def read(self, size: int) -> View:
        pixels = np.full((max(size, self.height), size), self.grey, dtype=np.uint8)
        if not self.drawn:
            return View(pixels)
        return View(pixels, (FindingMask(*self.drawn, "positive", *pixels.shape, (0, pixels.size)),))


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """Writes studies given as (split, report, gray value, tags, is normal); a finding can be drawn in the abnormal."""

    def make(
        studies: list[tuple[str, str, int, str | None, bool]], name: str = "data", drawn: tuple[str, ...] = ()
    ) -> Dataset:
        made = [
            Study(
                id=f"study-{index}",
                patient=f"patient-{index}",
                split=split,
                findings=report,
                # The lateral view comes first, and must not be the one that is compared.
                images=(Square(255 - grey, "lateral"), Square(grey, drawn=() if normal else drawn)),
                labels={"no_finding": "positive"} if normal else {"cardiomegaly": "positive"},
                extra={"tags": tags},
            )
            for index, (split, report, grey, tags, normal) in enumerate(studies)
        ]
        return write_dataset(tmp_path / name, made, size=36, source={"name": "made up"}, workers=1)

    return make
