"""Bootstrap intervals of scores and of differences between systems (docs/evaluation.md).

Studies are drawn with replacement. A resample is a row of multiplicities, so all resamples of all metrics are one
matrix product with the statistics of single studies. All systems and metrics use the same draws (paired bootstrap).
Document frequencies of CIDEr are always those of the whole set. `randomization` tests differences without drawing
studies.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crossray.errors import UserError

#: Default share of the resamples in an interval.
LEVEL = 0.95

#: Note on CIDEr for every page of intervals.
CIDER_NOTE = "intervals of CIDEr-D keep the document frequencies of the whole set of references in every resample"

_ROWS_AT_ONCE = 256

#: Scores that are mathematically equal may differ by rounding; a tie must count as a tie.
ROUNDING = 1e-10


class Statistics(Protocol):
    """Statistics of single studies behind the scores, such as `crossray.evaluation.metrics.nlg.NlgStatistics`."""

    def __len__(self) -> int:
        """Number of studies."""

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """(R,) scores for each metric, of the resamples with multiplicities (R, N) `weights`."""


@dataclass(frozen=True)
class Interval:
    """A value with the percentile interval of its resamples.

    Attributes:
        value: value on all studies.
        low: lower end; `high`: upper end. The interval contains `level` of the resamples, with half of the rest on each
            side.
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
        seed: seed of the draws; equal seeds and counts give equal draws.

    Yields:
        (r, N) blocks, R rows in total; each row sums to N.

    Raises:
        UserError: there is no study or no resample.
    """
    generator = np.random.default_rng(seed)
    for rows in rows_at_once(studies, resamples):
        drawn = generator.integers(studies, size=(rows, studies)) + np.arange(rows)[:, None] * studies
        yield np.bincount(drawn.ravel(), minlength=rows * studies).reshape(rows, studies).astype(np.float64)


def scores_of(statistics: Statistics) -> dict[str, float]:
    """The score of all studies for each metric."""
    return _mean([statistics])


def resampled_scores(statistics: Statistics, *, resamples: int, seed: int) -> dict[str, NDArray[np.float64]]:
    """(R,) scores of one system in every bootstrap resample, for each metric.

    Systems that are resampled with the same seed on the same number of studies are paired.
    """
    return _resampled_mean([statistics], resamples, seed)


def bootstrap(
    statistics: Statistics, *, resamples: int = 1000, seed: int = 0, level: float = LEVEL
) -> dict[str, Interval]:
    """Percentile intervals for all scores of one system.

    Args:
        statistics: statistics of the system's predictions.
        resamples: number of resamples.
        seed: seed of the draws.
        level: share of the resamples in an interval.

    Returns:
        The interval for each metric.
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
        second: statistics of the other on the same studies in the same order; for a list (such as several shuffles),
            the mean of their scores is used.
        resamples: number of resamples.
        seed: seed of the draws.
        level: share of the resamples in an interval.

    Returns:
        The interval of the difference for each metric. The first system is significantly better if `low` > 0.

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
    """Two-sided p-value of (R,) resampled differences: below 1 - level if the percentile interval excludes 0."""
    below, above = np.sum(differences <= ROUNDING), np.sum(differences >= -ROUNDING)
    return float(min(1.0, 2 * (1 + min(below, above)) / (1 + len(differences))))


def interval(value: float, drawn: NDArray[np.float64], level: float = LEVEL) -> Interval:
    """Percentile interval of resampled values.

    Args:
        value: value on all studies.
        drawn: (R,) values of the resamples.
        level: share of the resamples between both ends.
    """
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), level)


def rows_at_once(studies: int, resamples: int) -> Iterator[int]:
    """Split R resamples into blocks of rows that fit into memory; yields the number of rows in each.

    Raises:
        UserError: there is no study or no resample.
    """
    if studies < 1 or resamples < 1:
        raise UserError(f"bootstrap: {resamples} resamples of {studies} studies; give at least one of each")
    for start in range(0, resamples, _ROWS_AT_ONCE):
        yield min(_ROWS_AT_ONCE, resamples - start)


def require_paired(first: Statistics, second: Statistics) -> None:
    """Reject statistics that cannot belong to the same studies.

    Raises:
        UserError: they have different numbers of studies.
    """
    if len(first) != len(second):
        raise UserError(
            f"a paired comparison of {len(first)} and {len(second)} studies: score both systems on the same studies"
        )


def _mean(several: Sequence[Statistics]) -> dict[str, float]:
    """For each metric, the mean of the scores of all studies over several statistics."""
    everything = np.ones((1, len(several[0])))
    return {name: float(values[0]) for name, values in _mean_scores(several, everything).items()}


def _resampled_mean(several: Sequence[Statistics], resamples: int, seed: int) -> dict[str, NDArray[np.float64]]:
    """For each metric, the (R,) means of the scores of each resample over several statistics."""
    blocks = [_mean_scores(several, weights) for weights in resamples_of(len(several[0]), resamples, seed)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _mean_scores(several: Sequence[Statistics], weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    scores = [statistics.weighted_scores(weights) for statistics in several]
    return {name: np.mean([values[name] for values in scores], axis=0) for name in scores[0]}
