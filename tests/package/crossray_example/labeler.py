"""A labeler: a bright square on the left is what it calls an opacity."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossray.evaluation.labelers import LABELERS
from crossray.text.observations import CHEXPERT, STATUSES


class BrightLabeler:
    """Knows one observation of CheXpert."""

    name = "bright 3"
    observations = CHEXPERT

    def label(self, reports: Sequence[str]) -> NDArray[np.int8]:
        codes = np.zeros((len(reports), len(CHEXPERT)), np.int8)
        for row, report in enumerate(reports):
            seen = "lung_opacity" if "left" in report else "no_finding"
            codes[row, CHEXPERT.index(seen)] = STATUSES.index("positive")
        return codes


@LABELERS.register("bright")
def open_bright(argument: str) -> BrightLabeler:
    return BrightLabeler()
