"""A metric: whether a report ends with the word that the true one ends with."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossray.evaluation.metrics.family import metric


@metric("last_word", "Last word")
def last_word(hypotheses: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    def last(report: str) -> str:
        return (report.rstrip(" .").split() or [""])[-1]

    return np.array([float(last(ours) == last(theirs)) for ours, theirs in zip(hypotheses, references, strict=True)])
