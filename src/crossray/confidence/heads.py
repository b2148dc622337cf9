"""Logistic regressions on pooled vectors: rotation, inversion, mirroring, and frontal or lateral.

They are trained on training images in random poses (`crossray.confidence.poses`), so no labels are needed except the
positions of the views.

Shapes: N vectors, P dimensions, K classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossray.confidence.calibrators import scikit_learn

#: Inverse strength of the L2 penalty, for vectors of unit variance; strong, because N is often not much larger than P.
_C = 0.01


@dataclass(frozen=True)
class Head:
    """A linear classifier.

    Attributes:
        weights: (K, P) weights; `bias`: (K,) biases.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def probabilities(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the class probabilities (N, K) of vectors (N, P)."""
        logits = vectors.astype(np.float64) @ self.weights.T.astype(np.float64) + self.bias
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float64)


def fit_head(vectors: NDArray[np.floating], classes: NDArray[np.int64]) -> Head:
    """Train a linear classifier.

    Args:
        vectors: (N, P) training vectors.
        classes: (N,) class of each, from 0 to K - 1; every class must occur.

    Raises:
        UserError: scikit-learn is not installed.
    """
    model = scikit_learn("linear_model").LogisticRegression(C=_C, max_iter=500).fit(vectors, classes)
    weights, bias = model.coef_, model.intercept_
    if len(weights) == 1:  # for two classes, scikit-learn has only the second one's log-odds
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return Head(weights.astype(np.float32), bias.astype(np.float32))
