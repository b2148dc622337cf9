"""Run lengths of masks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def encode_runs(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Run lengths of a mask (H, W) in row-major order, starting with the number of zeros (which may be 0).

    Their sum is H * W.
    """
    flat = np.concatenate([[False], np.ravel(mask)])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return tuple(np.diff(np.concatenate([[0], changes, [mask.size]])).tolist())


def decode_runs(runs: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """The mask (height, width) whose run lengths `encode_runs` gave."""
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(height, width)
