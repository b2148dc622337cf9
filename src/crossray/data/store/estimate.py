"""What preparing a large source will cost, measured on its first images before anything is written."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from crossray.data.study import Study
from crossray.errors import UserError


@dataclass(frozen=True)
class Estimate:
    """Seconds of one process, measured.

    Attributes:
        studies: studies that were made, whether or not they can be used.
        images: images that were read.
        seconds_a_study: to make a study: its report, sections and labels. One process does this for all.
        seconds_an_image: to read an image and scale it. Every worker does this.
    """

    studies: int
    images: int
    seconds_a_study: float
    seconds_an_image: float

    def seconds(self, studies: int, images: int, workers: int) -> float:
        """Time for so many studies and images; workers read while one process makes studies."""
        made, read = studies * self.seconds_a_study, images * self.seconds_an_image
        return made + read if workers == 0 else max(made, read / workers)


def estimate(studies: Iterable[Study], size: int, images: int = 24, studies_at_most: int = 240) -> Estimate:
    """Read the first images of a source.

    Args:
        studies: the source.
        size: short side of the stored views in pixels.
        images: images to read; those that are missing or broken are not counted.
        studies_at_most: studies to look at.
    """
    made = read = 0
    making = reading = 0.0
    iterator = islice(iter(studies), studies_at_most)
    started = time.perf_counter()
    for study in iterator:
        making += time.perf_counter() - started
        made += 1
        for image in () if study.refusal is not None else study.images:
            started = time.perf_counter()
            try:
                image.read(size)
            except UserError:
                continue
            reading += time.perf_counter() - started
            read += 1
        if read >= images:
            break
        started = time.perf_counter()
    return Estimate(made, read, making / max(made, 1), reading / max(read, 1))
