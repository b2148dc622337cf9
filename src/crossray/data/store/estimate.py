"""Estimates the time to prepare a large source from its first images, before anything is written."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from crossray.data.study import Study
from crossray.errors import UserError


@dataclass(frozen=True)
class Estimate:
    """Measured times of one process.

    Attributes:
        studies: number of created studies, usable or not.
        images: number of images that were read.
        seconds_a_study: seconds to create a study with report, sections and labels, all in one process.
        seconds_an_image: seconds to read and resize an image; all workers read images.
    """

    studies: int
    images: int
    seconds_a_study: float
    seconds_an_image: float

    def seconds(self, studies: int, images: int, workers: int) -> float:
        """Return the seconds for studies and images; workers read images while one process creates studies."""
        made, read = studies * self.seconds_a_study, images * self.seconds_an_image
        return made + read if workers == 0 else max(made, read / workers)


def estimate(studies: Iterable[Study], size: int, images: int = 24, studies_at_most: int = 240) -> Estimate:
    """Measure the time to create the first studies of a source and to read their images.

    Args:
        studies: studies of the source.
        size: short side of the stored views in pixels.
        images: number of images to read; missing or damaged ones are not counted.
        studies_at_most: maximum number of studies to read.
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
