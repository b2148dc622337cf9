"""Run-length encoding of masks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def encode_runs(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Encode a mask (H, W) as run lengths.

    Returns:
        Lengths of alternating runs of zeros and ones in row-major order, starting with zeros (possibly 0 of them);
        their sum is H * W.
    """
    flat = np.concatenate([[False], np.ravel(mask)])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return tuple(np.diff(np.concatenate([[0], changes, [mask.size]])).tolist())


def decode_runs(runs: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    """Decode a mask (height, width) from the run lengths of `encode_runs`."""
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(height, width)
