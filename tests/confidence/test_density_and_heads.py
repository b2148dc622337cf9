"""Distance and heads against scipy and scikit-learn."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression

from crossray.confidence.density import fit_density
from crossray.confidence.heads import fit_head


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    random = np.random.default_rng(0)
    return (random.normal(size=(120, 6)) @ random.normal(size=(6, 6)) + 3).astype(np.float32)


def test_the_distance_is_mahalanobis_to_the_nearest_centre(vectors: np.ndarray) -> None:
    kinds = np.arange(120) % 2
    moved = vectors + 5 * kinds[:, None]
    centres = np.stack([moved[kinds == kind].mean(axis=0) for kind in (0, 1)])
    inverse = LedoitWolf(assume_centered=True).fit(moved - centres[kinds]).precision_
    expected = [min(mahalanobis(one, centre, inverse) for centre in centres) / np.sqrt(6) for one in moved]
    assert fit_density(moved, kinds).distance(moved) == pytest.approx(expected, rel=1e-4)


def test_a_distance_within_the_data_is_about_one_and_far_away_is_large(vectors: np.ndarray) -> None:
    density = fit_density(vectors, np.zeros(120, np.int64))
    assert density.distance(vectors).mean() == pytest.approx(1, abs=0.3)
    assert density.distance(vectors + 100).min() > 10


@pytest.mark.parametrize("classes", [2, 4])
def test_a_head_has_the_probabilities_of_scikit_learn(vectors: np.ndarray, classes: int) -> None:
    truth = np.arange(120) % classes
    expected = LogisticRegression(C=0.01, max_iter=500).fit(vectors, truth).predict_proba(vectors)
    assert fit_head(vectors, truth).probabilities(vectors) == pytest.approx(expected, abs=1e-5)
