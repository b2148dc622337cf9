"""Distance of a vector from the training images: Mahalanobis distance to the nearest type of view.

Frontal and lateral views have separate centers and a shared covariance (Lee et al., 2018, with views instead of
classes). The covariance is shrunk (Ledoit and Wolf, 2004), so it is invertible with fewer images than dimensions.

Shapes: N vectors, P dimensions, C types of view.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from crossray.confidence.calibrators import scikit_learn


@dataclass(frozen=True)
class Density:
    """Centers and shared covariance of the training vectors.

    Attributes:
        centres: (C, P) mean of each type.
        whitening: (P, P) matrix; the product of a difference and it has unit covariance.
    """

    centres: NDArray[np.float32]
    whitening: NDArray[np.float32]

    def distance(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the distance (N,) of vectors (N, P) to the nearest center, over sqrt(P): about 1 for training data."""
        white = vectors.astype(np.float32) @ self.whitening
        apart = np.stack([np.linalg.norm(white - centre, axis=1) for centre in self._white_centres])
        return np.asarray(apart.min(axis=0) / np.sqrt(vectors.shape[1]), np.float64)

    @cached_property
    def _white_centres(self) -> NDArray[np.float32]:
        return np.asarray(self.centres @ self.whitening, np.float32)


def fit_density(vectors: NDArray[np.floating], kinds: NDArray[np.int64]) -> Density:
    """Estimate centers and covariance.

    Args:
        vectors: (N, P) vectors of training images.
        kinds: (N,) type of view of each; every distinct number gets a center.

    Raises:
        UserError: scikit-learn is not installed.
    """
    present = np.unique(kinds)
    centres = np.stack([vectors[kinds == kind].mean(axis=0) for kind in present])
    rest = vectors - centres[np.searchsorted(present, kinds)]
    covariance, _ = scikit_learn("covariance").ledoit_wolf(rest.astype(np.float64), assume_centered=True)
    whitening = np.linalg.cholesky(np.linalg.inv(covariance))
    return Density(centres.astype(np.float32), whitening.astype(np.float32))
