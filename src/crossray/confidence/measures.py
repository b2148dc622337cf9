"""Measures of confidence: reliability, expected calibration error, and risk by coverage.

Shapes: N statements.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Bins of equal width that reliability is measured in.
BINS = 10


@dataclass(frozen=True)
class Bin:
    """The statements whose confidence lies in one range.

    Attributes:
        low: lower end of the range, which belongs to it; `high`: upper end, which belongs to the last range only.
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
    """Mean confidence and accuracy in bins of equal width from 0 to 1: the reliability diagram.

    Args:
        confidence: (N,), 0 to 1.
        correct: (N,), whether each statement is right.
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
    """Mean distance between confidence and accuracy over all statements, bin by bin (Guo et al., 2017); 0 for none."""
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.confidence - one.accuracy) for one in bins) / max(total, 1)


def brier_score(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Mean squared distance between confidence and truth, which calibration and ranking both lower."""
    return float(np.mean((confidence - correct) ** 2))


def risk_coverage(confidence: NDArray[np.floating], loss: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean loss of the k most confident statements, for k from 1 to N (El-Yaniv and Wiener, 2010).

    Equal confidences are kept in random order; what is returned is the expectation over it.

    Args:
        confidence: (N,), any scale, higher is surer.
        loss: (N,), 1 for a wrong statement and 0 for a right one, or any other loss.

    Returns:
        (N,), the last of which is the mean loss of all.
    """
    values, group = np.unique(-confidence, return_inverse=True)
    size = np.bincount(group, minlength=len(values))
    mean = np.bincount(group, weights=loss.astype(np.float64), minlength=len(values)) / np.maximum(size, 1)
    return np.cumsum(np.repeat(mean, size)) / np.arange(1, len(confidence) + 1)


def area(curve: NDArray[np.float64]) -> float:
    """Area under a curve of `risk_coverage`: its mean; lower is better."""
    return float(curve.mean())
