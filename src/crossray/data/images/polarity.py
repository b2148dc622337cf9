"""Detects negatives of chest images, in which air is bright and bone is dark.

The levels are compared with a pattern that all chest radiographs share: a bright middle and abdomen, dark lungs, and
air in the upper corners. Of 1,098 frontal and lateral radiographs from six public collections, none is mistaken for a
negative (`benchmarks/polarity.py`; docs/data/dicom.md).
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Correlation of the levels' ranks with the pattern of a chest below which an image looks like a negative.
NEGATIVE = -0.35

#: Smallest side of an image that is checked, in pixels.
_LEAST_SIDE = 128

_SIZE = 64
_DOWN, _ACROSS = np.mgrid[0:_SIZE, 0:_SIZE] / (_SIZE - 1)
_ASIDE = np.abs(_ACROSS - 0.5)
_LUNG_ROWS = (_DOWN > 0.2) & (_DOWN < 0.6)
_MIDDLE = _LUNG_ROWS & (_ASIDE < 0.10)
_LUNGS = (
    _LUNG_ROWS & (_ACROSS > 0.14) & (_ACROSS < 0.34),
    _LUNG_ROWS & (_ACROSS > 0.66) & (_ACROSS < 0.86),
)


def likeness(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """Measure how well an image agrees with the pattern of a chest.

    Args:
        pixels: (H, W) gray levels.

    Returns:
        Correlation with the pattern, -1 to 1, and how much brighter the middle is than the brighter one of the two
        lungs, as a share of the ranks, -1 to 1. The negative of an image has the opposite correlation.
    """
    ranks = _ranks(pixels)
    correlation, middle, lungs = _measured(ranks)
    return correlation, middle - max(lungs)


def negative(pixels: NDArray[np.uint8]) -> Literal["", "likely", "certain"]:
    """Detect whether an image is the negative of a chest radiograph; small images are not checked.

    "certain" also requires that the middle is darker than both lungs; "" means that nothing indicates a negative.
    """
    if min(pixels.shape) < _LEAST_SIDE or pixels.min() == pixels.max():
        return ""
    correlation, middle, lungs = _measured(_ranks(pixels))
    if correlation >= NEGATIVE:
        return ""
    return "certain" if middle < min(lungs) else "likely"


def _ranks(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Compute the ranks of the levels of a thumbnail, (64, 64) in [0, 1]."""
    small = np.asarray(Image.fromarray(pixels).resize((_SIZE, _SIZE), Image.Resampling.BOX))
    order = small.ravel().argsort(kind="stable").argsort(kind="stable")
    return (order / (order.size - 1)).reshape(small.shape)


def _measured(ranks: NDArray[np.float64]) -> tuple[float, float, list[float]]:
    pattern = _pattern()
    judged = pattern != 0
    correlation = float(np.corrcoef(ranks[judged], pattern[judged])[0, 1])
    return correlation, float(ranks[_MIDDLE].mean()), [float(ranks[lung].mean()) for lung in _LUNGS]


def _pattern() -> NDArray[np.float64]:
    """Return the pattern, (64, 64): 1 where a chest is bright, -1 where it is dark, 0 where that varies."""
    pattern = np.zeros((_SIZE, _SIZE))
    pattern[(_ASIDE < 0.10) & (_DOWN > 0.15)] = 1  # spine and mediastinum
    pattern[_LUNG_ROWS & (_ASIDE > 0.16) & (_ASIDE < 0.36)] = -1  # lungs
    pattern[(_DOWN > 0.82) & (_ASIDE < 0.40)] = 1  # abdomen
    pattern[(_DOWN < 0.12) & (_ASIDE > 0.32)] = -1  # air above the shoulders
    return pattern
