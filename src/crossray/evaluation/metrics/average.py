"""The last column of REVTAF's tables: the mean of the other nine, if all nine are computed."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from crossray.evaluation.metrics.family import Family, Metric, register

#: Name of the score.
AVERAGE = "avg"

_AVERAGED = (
    "bleu1", "bleu2", "bleu3", "bleu4", "meteor_1.5_jar", "rouge_l", "ce_precision", "ce_recall", "ce_f1",
)  # fmt: skip


@register("average")
class Average(Family):
    """The mean of the metrics in REVTAF's tables."""

    metrics = (Metric(AVERAGE, "Avg (REVTAF)", 11),)

    def derived(self, scores: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """(R,) means, if no metric is missing."""
        if not all(name in scores for name in _AVERAGED):
            return {}
        return {AVERAGE: np.mean([scores[name] for name in _AVERAGED], axis=0)}
