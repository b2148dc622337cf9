"""Whether a system writes about the image at all: variety of its reports, and its score with images shuffled.

A prediction depends on its own study alone (DESIGN 3), so that giving every study another study's images is the same
as putting every prediction against another study's reference. Nothing has to be generated again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossray.evaluation.ngrams import code_reports
from crossray.evaluation.nlg import METRICS, ReportPairs
from crossray.evaluation.significance import LEVEL, Interval, paired_difference

#: The metric that decides whether a result ignores the image. BLEU and ROUGE-L hardly move for templates.
DECIDING_METRIC = "cider"

# Equal scores may differ by rounding; so small a difference is none.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Variety:
    """How different generated reports are.

    Attributes:
        distinct_reports: different reports over reports: 1/N for a system that always writes the same.
        distinct1: different words over words, of all reports together.
        distinct2: different bigrams over bigrams.
    """

    distinct_reports: float
    distinct1: float
    distinct2: float


@dataclass(frozen=True)
class ShuffleCheck:
    """Scores with the images shuffled between studies.

    Attributes:
        scores: metric name to the mean score over the shuffles.
        differences: metric name to true score minus shuffled score, with its paired bootstrap interval.
        shuffles: number of shuffles.
    """

    scores: dict[str, float]
    differences: dict[str, Interval]
    shuffles: int

    @property
    def ignores_image(self) -> bool:
        """Whether the lower bound of the CIDEr difference is not above 0."""
        return self.differences[DECIDING_METRIC].low <= _ROUNDING


def variety(reports: Sequence[str]) -> Variety:
    """Variety of generated reports; ratios are 0 where there is nothing to count."""
    (coded,) = code_reports(reports)
    distinct = []
    for order in coded.orders[:2]:
        total = int(order.count.sum())
        distinct.append(len(np.unique(order.code)) / total if total else 0.0)
    different = len({" ".join(report.split()) for report in reports})
    return Variety(different / len(reports) if reports else 0.0, *distinct)


def derangement(studies: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """A random order of at least two studies in which none stays at its place: one cycle through all of them."""
    cycle = generator.permutation(studies)
    result = np.empty(studies, dtype=np.int64)
    result[cycle] = np.roll(cycle, 1)
    return result


def shuffle_check(
    pairs: ReportPairs,
    *,
    shuffles: int = 5,
    resamples: int = 1000,
    seed: int = 0,
    level: float = LEVEL,
) -> ShuffleCheck | None:
    """Compare predictions with themselves after shuffling the images between studies.

    Args:
        pairs: predictions and references.
        shuffles: number of random shuffles to average over.
        resamples: bootstrap resamples.
        seed: of shuffles and resamples.
        level: share of the resamples in an interval.

    Returns:
        The check, or None for a single study, which has no other image.
    """
    if len(pairs) < 2:
        return None
    generator = np.random.default_rng(seed)
    shuffled = [pairs.statistics(derangement(len(pairs), generator)) for _ in range(shuffles)]
    scores = [statistics.scores() for statistics in shuffled]
    return ShuffleCheck(
        scores={name: float(np.mean([values[name] for values in scores])) for name in METRICS},
        differences=paired_difference(pairs.statistics(), shuffled, resamples=resamples, seed=seed, level=level),
        shuffles=shuffles,
    )
