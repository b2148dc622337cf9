"""Measures of confidence: reliability, expected calibration error, and risk by coverage.

Shapes: N statements.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Number of bins of equal width in which reliability is measured.
BINS = 10


@dataclass(frozen=True)
class Bin:
    """The statements whose confidence is in one interval.

    Attributes:
        low: lower bound, inclusive; `high`: upper bound, inclusive in the last bin only.
        count: number of statements.
        confidence: mean confidence of the statements; 0 if there are none.
        accuracy: share of correct statements; 0 if there are none.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability(confidence: NDArray[np.float64], correct: NDArray[np.bool_], bins: int = BINS) -> tuple[Bin, ...]:
    """Compute mean confidence and accuracy in bins of equal width from 0 to 1: the reliability diagram.

    Args:
        confidence: (N,) confidence, from 0 to 1.
        correct: (N,), whether each statement is correct.
        bins: number of bins.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    least = np.maximum(count, 1)
    means = np.bincount(place, weights=confidence, minlength=bins) / least
    shares = np.bincount(place, weights=correct.astype(np.float64), minlength=bins) / least
    return tuple(
        Bin(float(edges[row]), float(edges[row + 1]), int(count[row]), float(means[row]), float(shares[row]))
        for row in range(bins)
    )


def expected_calibration_error(bins: tuple[Bin, ...]) -> float:
    """Return the mean distance between confidence and accuracy of the bins, weighted by their size (Guo et al., 2017).

    Returns:
        From 0 to 1; 0 if all bins are empty.

    Example:
        >>> bins = reliability(np.array([0.9, 0.9, 0.2]), np.array([True, False, False]))
        >>> round(expected_calibration_error(bins), 3)
        0.333
    """
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.confidence - one.accuracy) for one in bins) / max(total, 1)


def brier_score(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Return the mean squared difference between confidence and correctness; calibration and ranking both lower it."""
    return float(np.mean((confidence - correct) ** 2))


def risk_coverage(confidence: NDArray[np.floating], loss: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the mean loss of the k most confident statements, for k from 1 to N (El-Yaniv and Wiener, 2010).

    Ties are averaged over all their orders.

    Args:
        confidence: (N,) confidence on any scale; higher is more confident.
        loss: (N,) loss of each statement, such as 1 if it is wrong and 0 if it is correct.

    Returns:
        (N,) mean losses; the last one is the mean of all statements.

    Example:
        >>> risk_coverage(np.array([0.9, 0.8, 0.3]), np.array([0.0, 0.0, 1.0])).round(2).tolist()
        [0.0, 0.0, 0.33]
    """
    values, group = np.unique(-confidence, return_inverse=True)
    size = np.bincount(group, minlength=len(values))
    mean = np.bincount(group, weights=loss.astype(np.float64), minlength=len(values)) / np.maximum(size, 1)
    return np.cumsum(np.repeat(mean, size)) / np.arange(1, len(confidence) + 1)


def area(curve: NDArray[np.float64]) -> float:
    """Return the area under a curve of `risk_coverage`, which is its mean; lower is better."""
    return float(curve.mean())
