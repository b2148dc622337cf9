"""Reliability, calibration error and risk by coverage against scikit-learn, pencil and brute force."""

import itertools

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from crossray.confidence.measures import area, brier_score, expected_calibration_error, reliability, risk_coverage


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    confidence = random.beta(3, 1, 400)
    return confidence, random.random(400) < confidence**2


def test_the_diagram_is_that_of_scikit_learn(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    confidence, correct = drawn
    shares, means = calibration_curve(correct, confidence, n_bins=10, strategy="uniform")
    filled = [one for one in reliability(confidence, correct) if one.count]
    assert [one.accuracy for one in filled] == pytest.approx(shares.tolist())
    assert [one.confidence for one in filled] == pytest.approx(means.tolist())
    assert sum(one.count for one in filled) == len(correct)


def test_both_ends_of_the_range_are_counted() -> None:
    bins = reliability(np.array([0.0, 0.1, 1.0]), np.array([False, False, True]), bins=10)
    assert [one.count for one in bins] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 1]


def test_the_calibration_error_is_what_a_pencil_finds() -> None:
    confidence = np.array([0.1, 0.3, 0.8, 0.9, 0.9])
    correct = np.array([False, True, True, True, False])
    # two bins: (0.1 + 0.3) / 2 against 1/2 in two of five, (0.8 + 0.9 + 0.9) / 3 against 2/3 in three of five
    assert expected_calibration_error(reliability(confidence, correct, bins=2)) == pytest.approx(
        2 / 5 * 0.3 + 3 / 5 * (2.6 / 3 - 2 / 3)
    )
    assert expected_calibration_error(reliability(np.array([]), np.array([], bool))) == 0


def test_the_brier_score_is_that_of_scikit_learn(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    confidence, correct = drawn
    assert brier_score(confidence, correct) == pytest.approx(brier_score_loss(correct, confidence))


def test_risk_by_coverage_is_the_mean_over_all_orders_of_equals() -> None:
    confidence, loss = np.array([0.5, 0.9, 0.5, 0.2, 0.5]), np.array([1.0, 0.0, 0.0, 1.0, 1.0])
    orders = [
        order
        for order in itertools.permutations(range(5))
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(order))
    ]
    brute = np.mean([np.cumsum(loss[list(order)]) / np.arange(1, 6) for order in orders], axis=0)
    assert risk_coverage(confidence, loss) == pytest.approx(brute)


def test_no_order_is_better_than_the_oracle_and_one_confidence_for_all_is_chance() -> None:
    loss = np.array([1.0, 0.0, 0.0, 1.0, 0.0])
    oracle = area(risk_coverage(-loss, loss))
    areas = [area(risk_coverage(np.array(order, float), loss)) for order in itertools.permutations(range(5))]
    assert oracle == pytest.approx(min(areas))
    assert area(risk_coverage(np.ones(5), loss)) == pytest.approx(loss.mean()) == pytest.approx(np.mean(areas))
