"""Bootstrap intervals of scores and of differences between systems (docs/evaluation.md).

Studies are drawn with replacement; a resample is a row of multiplicities, so that all resamples of all metrics are one
matrix product with the statistics of single studies. Systems are compared on the same draws (paired bootstrap), and
so is every metric. Document frequencies of CIDEr stay those of the whole set. `randomization`
tests differences without drawing studies.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crossray.errors import UserError

#: Share of the resamples that an interval holds, when nothing else is asked for.
LEVEL = 0.95

#: What every page of intervals has to say about CIDEr.
CIDER_NOTE = "intervals of CIDEr-D keep the document frequencies of the whole set of references in every resample"

_ROWS_AT_ONCE = 256

#: Scores that are equal by arithmetic may differ by rounding; a tie must count as one.
ROUNDING = 1e-10


class Statistics(Protocol):
    """Statistics of single studies that scores are made of, such as `crossray.evaluation.metrics.nlg.NlgStatistics`."""

    def __len__(self) -> int:
        """Number of studies."""

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """Metric name to (R,) scores of the resamples whose multiplicities are (R, N) `weights`."""


@dataclass(frozen=True)
class Interval:
    """A value with the percentile interval of its resamples.

    Attributes:
        value: on the true set of studies.
        low: lower end; `high`: upper end. The interval holds `level` of the resamples, half of the rest on each side.
        level: share of the resamples between both ends.
    """

    value: float
    low: float
    high: float
    level: float = LEVEL


def resamples_of(studies: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Multiplicities of the studies in each resample.

    Args:
        studies: N, number of studies to draw from.
        resamples: R, number of resamples.
        seed: of the draws; equal seed and counts give equal draws.

    Yields:
        (r, N) blocks, R rows in all; each row sums to N.

    Raises:
        UserError: there is no study or no resample.
    """
    generator = np.random.default_rng(seed)
    for rows in rows_at_once(studies, resamples):
        drawn = generator.integers(studies, size=(rows, studies)) + np.arange(rows)[:, None] * studies
        yield np.bincount(drawn.ravel(), minlength=rows * studies).reshape(rows, studies).astype(np.float64)


def scores_of(statistics: Statistics) -> dict[str, float]:
    """Metric name to the score of all studies."""
    return _mean([statistics])


def resampled_scores(statistics: Statistics, *, resamples: int, seed: int) -> dict[str, NDArray[np.float64]]:
    """Metric name to (R,) scores of one system in every bootstrap resample.

    Systems that are resampled with equal seed on equally many studies are paired.
    """
    return _resampled_mean([statistics], resamples, seed)


def bootstrap(
    statistics: Statistics, *, resamples: int = 1000, seed: int = 0, level: float = LEVEL
) -> dict[str, Interval]:
    """Percentile intervals of all scores of one system.

    Args:
        statistics: of the system's predictions.
        resamples: number of resamples.
        seed: of the draws.
        level: share of the resamples in an interval.

    Returns:
        Metric name to interval.
    """
    drawn = _resampled_mean([statistics], resamples, seed)
    return {name: interval(value, drawn[name], level) for name, value in _mean([statistics]).items()}


def paired_difference(
    first: Statistics,
    second: Statistics | Sequence[Statistics],
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[str, Interval]:
    """Score of the first system minus that of the second, resampled on the same studies.

    Args:
        first: statistics of one system.
        second: statistics of the other on the same studies in the same order; the mean of the scores of several
            (such as several shuffles) when it is a list.
        resamples: number of resamples.
        seed: of the draws.
        level: share of the resamples in an interval.

    Returns:
        Metric name to the interval of the difference. The first system is better beyond chance when `low` > 0.

    Raises:
        UserError: the systems were scored on different numbers of studies.
    """
    others = list(second) if isinstance(second, Sequence) else [second]
    for other in others:
        require_paired(first, other)
    ours, theirs = _resampled_mean([first], resamples, seed), _resampled_mean(others, resamples, seed)
    our_value, their_value = _mean([first]), _mean(others)
    return {
        name: interval(our_value[name] - their_value[name], ours[name] - theirs[name], level)
        for name in our_value
        if name in their_value
    }


def bootstrap_p(differences: NDArray[np.float64]) -> float:
    """Two-sided p-value of (R,) resampled differences: below 1 - level where the percentile interval leaves out 0."""
    below, above = np.sum(differences <= ROUNDING), np.sum(differences >= -ROUNDING)
    return float(min(1.0, 2 * (1 + min(below, above)) / (1 + len(differences))))


def interval(value: float, drawn: NDArray[np.float64], level: float = LEVEL) -> Interval:
    """Percentile interval of resampled values.

    Args:
        value: on the true set.
        drawn: (R,) values of the resamples.
        level: share of the resamples between both ends.
    """
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level)


def rows_at_once(studies: int, resamples: int) -> Iterator[int]:
    """Cut R resamples into blocks of rows that fit into memory; yields the rows of each.

    Raises:
        UserError: there is no study or no resample.
    """
    if studies < 1 or resamples < 1:
        raise UserError(f"bootstrap: {resamples} resamples of {studies} studies; give at least one of each")
    for start in range(0, resamples, _ROWS_AT_ONCE):
        yield min(_ROWS_AT_ONCE, resamples - start)


def require_paired(first: Statistics, second: Statistics) -> None:
    """Refuse statistics that cannot be of the same studies.

    Raises:
        UserError: they hold different numbers of studies.
    """
    if len(first) != len(second):
        raise UserError(
            f"a paired comparison of {len(first)} and {len(second)} studies: score both systems on the same studies"
        )


def _mean(several: Sequence[Statistics]) -> dict[str, float]:
    """Metric name to the mean over several statistics of the score of all studies."""
    everything = np.ones((1, len(several[0])))
    return {name: float(values[0]) for name, values in _mean_scores(several, everything).items()}


def _resampled_mean(several: Sequence[Statistics], resamples: int, seed: int) -> dict[str, NDArray[np.float64]]:
    """Metric name to (R,) means over several statistics of the scores of each resample."""
    blocks = [_mean_scores(several, weights) for weights in resamples_of(len(several[0]), resamples, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _mean_scores(several: Sequence[Statistics], weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    scores = [statistics.weighted_scores(weights) for statistics in several]
    return {name: np.mean([values[name] for values in scores], axis=0) for name in scores[0]}
