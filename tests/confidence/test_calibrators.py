"""Calibrators: what is known to be right is found, nobody is measured on what was learned from."""

import numpy as np
import pytest

from crossray.confidence.calibrators import Calibrator, cross_fitted, fit, fit_isotonic
from crossray.confidence.measures import expected_calibration_error, reliability
from crossray.errors import UserError


def _drawn(count: int = 20_000) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Statements whose truth is a known logistic function of two signals."""
    random = np.random.default_rng(0)
    signals = {"a": random.uniform(0.02, 0.98, count), "b": random.uniform(0.02, 0.98, count)}
    truth = Calibrator({"a": 0.5, "b": 1.5}, -0.4)(signals)
    return signals, random.random(count) < truth


def test_the_logistic_function_behind_the_truth_is_found() -> None:
    found = fit(*_drawn(), ["a", "b"])
    assert found.weights == pytest.approx({"a": 0.5, "b": 1.5}, abs=0.06)
    assert found.intercept == pytest.approx(-0.4, abs=0.06)


def test_a_calibrator_is_the_logistic_function_of_weighted_log_odds() -> None:
    value = Calibrator({"a": 2.0}, 0.5)({"a": np.array([0.8]), "unused": np.array([0.1])})
    odds = (0.8 / 0.2) ** 2 * np.exp(0.5)
    assert value == pytest.approx([odds / (1 + odds)])


def test_certainty_has_finite_odds() -> None:
    found = fit({"a": np.array([0.0, 1.0, 1.0, 0.0])}, np.array([False, True, True, False]), ["a"])
    assert np.isfinite([found.intercept, found.weights["a"]]).all()
    assert 0 < Calibrator({"a": 1.0}, 0.0)({"a": np.array([1.0])})[0] < 1


@pytest.mark.parametrize(("correct", "expected"), [([True] * 4, 4.5 / 5), ([False] * 4, 0.5 / 5)])
def test_where_all_are_right_the_share_is_kept_from_certainty(correct: list[bool], expected: float) -> None:
    found = fit({"a": np.array([0.1, 0.4, 0.6, 0.9])}, np.array(correct), ["a"])
    assert found({"a": np.array([0.2, 0.9])}) == pytest.approx([expected, expected])


def test_nothing_to_learn_from_is_said() -> None:
    with pytest.raises(UserError, match="no statement"):
        fit({"a": np.array([])}, np.array([], bool), ["a"])


@pytest.mark.parametrize("learn", [fit, fit_isotonic])
def test_what_is_cross_fitted_is_calibrated(learn: object) -> None:
    signals, correct = _drawn(4000)
    patients = [f"p{number // 3}" for number in range(len(correct))]
    found = cross_fitted(signals, correct, patients, ["a"], learn=learn)  # type: ignore[arg-type]
    before = expected_calibration_error(reliability(signals["a"], correct))
    after = expected_calibration_error(reliability(found, correct))
    assert before > 0.07
    assert after < 0.03


def test_a_patients_confidence_does_not_depend_on_its_own_truth() -> None:
    signals, correct = _drawn(300)
    patients = [f"p{number // 4}" for number in range(300)]
    own = np.array([patient == "p7" for patient in patients])
    changed = np.where(own, ~correct, correct)
    first, second = (cross_fitted(signals, truth, patients, ["a"]) for truth in (correct, changed))
    assert np.array_equal(first[own], second[own])
    assert not np.array_equal(first[~own], second[~own])
