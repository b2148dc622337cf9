"""Calibrators: logistic regression from one or more signals to the probability that a statement is correct.

The probability that a model assigns to its words is not the probability that they are correct. A logistic regression on
the log-odds of the signals estimates the latter (Platt, 1999; with one signal, this is temperature scaling with an
offset). Fitting requires scikit-learn; applying a calibrator does not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossray.errors import UserError

#: Minimum distance of probabilities from 0 and 1 before their log-odds are computed.
_EDGE = 1e-4

#: Inverse strength of the L2 penalty: weak, but enough to keep the weights finite if all statements are correct.
_C = 100.0

Signals = Mapping[str, NDArray[np.float64]]
Apply = Callable[[Signals], NDArray[np.float64]]


@dataclass(frozen=True)
class Calibrator:
    """Maps named signals between 0 and 1 to the probability that a statement is correct.

    Attributes:
        weights: weight of the log-odds of each signal, by name.
        intercept: constant that is added to the weighted sum.

    Example:
        >>> calibrator = Calibrator({"probability": 0.5}, intercept=0.0)
        >>> calibrator({"probability": np.array([0.5, 0.9])}).round(2).tolist()
        [0.5, 0.75]
    """

    weights: Mapping[str, float]
    intercept: float

    def __call__(self, signals: Signals) -> NDArray[np.float64]:
        """Return (N,) probabilities from signals of shape (N,) each; signals without a weight are ignored."""
        total = sum(weight * log_odds(signals[name]) for name, weight in self.weights.items()) + self.intercept
        return np.asarray(1 / (1 + np.exp(-total)), np.float64)


def log_odds(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log(p / (1 - p)), with p clipped away from 0 and 1."""
    inside = np.clip(share, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside / (1 - inside)), np.float64)


def fit(signals: Signals, correct: NDArray[np.bool_], names: Sequence[str]) -> Calibrator:
    """Fit a calibrator.

    Args:
        signals: (N,) values of each signal, by name.
        correct: (N,), whether each statement is correct.
        names: names of the signals to use.

    Raises:
        UserError: scikit-learn is not installed, or there are no statements.
    """
    if not len(correct):
        raise UserError("calibration: there are no statements to learn from; choose a split with more studies.")
    right = int(correct.sum())
    if right in (0, len(correct)):  # only one class: a constant near the share, but not 0 or 1
        share = (right + 0.5) / (len(correct) + 1)
        return Calibrator(dict.fromkeys(names, 0.0), float(log_odds(np.array(share))))
    columns = np.stack([log_odds(signals[name]) for name in names], axis=1)
    model = scikit_learn("linear_model").LogisticRegression(C=_C).fit(columns, correct)
    return Calibrator(dict(zip(names, model.coef_[0].tolist(), strict=True)), float(model.intercept_[0]))


def fit_isotonic(signals: Signals, correct: NDArray[np.bool_], names: Sequence[str]) -> Apply:
    """Fit an isotonic regression on one signal, for comparison with `fit`.

    Args:
        signals: (N,) values of each signal, by name.
        correct: (N,), whether each statement is correct.
        names: name of the signal to use, a single one.

    Raises:
        UserError: scikit-learn is not installed.
    """
    (name,) = names
    steps = scikit_learn("isotonic").IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    steps.fit(signals[name], correct.astype(np.float64))
    return lambda given: np.asarray(steps.predict(given[name]), np.float64)


def cross_fitted(
    signals: Signals,
    correct: NDArray[np.bool_],
    groups: Sequence[str],
    names: Sequence[str],
    *,
    folds: int = 5,
    seed: int = 0,
    learn: Callable[[Signals, NDArray[np.bool_], Sequence[str]], Apply] = fit,
) -> NDArray[np.float64]:
    """Return the confidence of each statement, (N,), by a calibrator that was fitted without its patient.

    Args:
        signals: (N,) values of each signal, by name.
        correct: (N,), whether each statement is correct.
        groups: patient of each statement; the statements of a patient are held out together.
        names: names of the signals to use.
        folds: number of random folds of patients.
        seed: random seed of the folds.
        learn: `fit`, or another function with the same arguments.
    """
    _, patient = np.unique(np.asarray(groups), return_inverse=True)
    order = np.random.default_rng(seed).permutation(int(patient.max(initial=-1)) + 1)
    fold = (order % folds)[patient]
    found = np.empty(len(correct))
    for part in np.unique(fold):
        inside = fold == part
        others = {name: values[~inside] for name, values in signals.items()}
        own = {name: values[inside] for name, values in signals.items()}
        found[inside] = learn(others, correct[~inside], names)(own)
    return found


def scikit_learn(module: str) -> Any:
    """Import a module of scikit-learn.

    Raises:
        UserError: scikit-learn is not installed.
    """
    import importlib

    try:
        return importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError:
        raise UserError("calibration needs scikit-learn; run `pip install 'crossray[confidence]'`.") from None
