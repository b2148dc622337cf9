"""Maps signals to a probability: Platt's logistic regression over one or several signals.

The probability that a model assigns to its words is not the probability of being right. A logistic regression over the
log-odds of the signals estimates the latter (Platt, 1999; with one signal, it is temperature scaling with an offset).
Fitting requires scikit-learn; applying the result does not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossray.errors import UserError

#: Log-odds are taken of probabilities this far from 0 and 1.
_EDGE = 1e-4

#: Inverse strength of the ridge: weak, so that a few statements that are all right do not give infinite weights.
_C = 100.0

Signals = Mapping[str, NDArray[np.float64]]
Apply = Callable[[Signals], NDArray[np.float64]]


@dataclass(frozen=True)
class Calibrator:
    """Probability of being right from named signals between 0 and 1.

    Attributes:
        weights: weight of the log-odds of each signal.
        intercept: added to their sum.
    """

    weights: Mapping[str, float]
    intercept: float

    def __call__(self, signals: Signals) -> NDArray[np.float64]:
        """(N,) probabilities of N statements, whose signals are (N,) each; signals without a weight are ignored."""
        total = sum(weight * log_odds(signals[name]) for name, weight in self.weights.items()) + self.intercept
        return np.asarray(1 / (1 + np.exp(-total)), np.float64)


def log_odds(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of p / (1 - p), of p moved away from 0 and 1."""
    inside = np.clip(share, _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside / (1 - inside)), np.float64)


def fit(signals: Signals, correct: NDArray[np.bool_], names: Sequence[str]) -> Calibrator:
    """Learn a calibrator.

    Args:
        signals: (N,) each.
        correct: (N,), whether each statement is right.
        names: the signals to use.

    Raises:
        UserError: scikit-learn is not installed, or there is no statement.
    """
    if not len(correct):
        raise UserError("calibration: there is no statement to learn from; choose a split with more studies.")
    right = int(correct.sum())
    if right in (0, len(correct)):  # nothing to tell apart: the share, kept away from certainty
        share = (right + 0.5) / (len(correct) + 1)
        return Calibrator(dict.fromkeys(names, 0.0), float(log_odds(np.array(share))))
    columns = np.stack([log_odds(signals[name]) for name in names], axis=1)
    model = scikit_learn("linear_model").LogisticRegression(C=_C).fit(columns, correct)
    return Calibrator(dict(zip(names, model.coef_[0].tolist(), strict=True)), float(model.intercept_[0]))


def fit_isotonic(signals: Signals, correct: NDArray[np.bool_], names: Sequence[str]) -> Apply:
    """Isotonic regression of one signal, for comparison with Platt's map.

    Args:
        signals: (N,) each.
        correct: (N,).
        names: the one signal to use.

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
    """(N,) confidence of each statement by a calibrator that was fitted without its patient.

    Args:
        signals: (N,) each.
        correct: (N,).
        groups: patient of each statement; a patient's statements are left out together.
        names: the signals to use.
        folds: parts that the patients are divided into, at random.
        seed: seed of the division.
        learn: `fit`, or another way to learn from the others' statements.
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
    """A module of scikit-learn.

    Raises:
        UserError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError:
        raise UserError("calibration needs scikit-learn; pip install 'crossray[confidence]'.") from None
