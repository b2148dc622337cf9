"""Clinical efficacy against scikit-learn: every average, observation set and convention, resamples too."""

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

from crossray.evaluation.metrics.clinical import (
    CHEXPERT_5,
    CONVENTIONS,
    MEASURES,
    METRICS,
    OBSERVATION_SETS,
    ClinicalStatistics,
    metric_name,
)
from crossray.evaluation.statistics.significance import resamples_of
from crossray.text.observations import CHEXPERT, STATUSES

AVERAGES = {"example": "samples", "micro": "micro", "macro": "macro"}
PRESENT = {"positive": [1], "positive or uncertain": [1, 3]}


def made_up_codes(studies: int, seed: int) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Status codes of both reports: mostly equal, blank more often than not, some observations never there."""
    draw = np.random.default_rng(seed)
    frequency = draw.dirichlet([6, 2, 2, 0.6], size=len(CHEXPERT))
    frequency[::6] = [0.5, 0, 0.5, 0]
    sides = [
        np.stack([draw.choice(4, size=studies, p=row) for row in frequency], axis=1).astype(np.int8) for _ in range(2)
    ]
    same = draw.random(sides[0].shape) < 0.6
    return np.where(same, sides[1], sides[0]), sides[1]


def by_sklearn(hypothesis: NDArray[np.int8], reference: NDArray[np.int8]) -> dict[str, float]:
    """Every metric by scikit-learn on binary labels."""
    result = {}
    for convention in CONVENTIONS:
        ours, theirs = (np.isin(codes, PRESENT[convention.name]).astype(int) for codes in (hypothesis, reference))
        for key, observations in OBSERVATION_SETS.items():
            columns = [CHEXPERT.index(name) for name in observations]
            for average, theirs_name in AVERAGES.items():
                scores = precision_recall_fscore_support(
                    theirs[:, columns], ours[:, columns], average=theirs_name, zero_division=0
                )
                for measure, value in zip(MEASURES, scores, strict=False):
                    result[metric_name(measure, average, key, convention.suffix)] = value
    return result


@pytest.mark.parametrize("studies", [1, 2, 17, 300])
def test_all_averages(studies: int) -> None:
    codes = made_up_codes(studies, studies)
    found = ClinicalStatistics(*codes).weighted_scores(np.ones((1, studies)))
    assert tuple(found) == METRICS
    assert {name: values[0] for name, values in found.items()} == pytest.approx(by_sklearn(*codes), abs=1e-12)


def test_resamples_are_those_of_the_repeated_studies() -> None:
    hypothesis, reference = made_up_codes(25, 1)
    statistics = ClinicalStatistics(hypothesis, reference)
    for weights in resamples_of(25, 12, seed=2):
        found = statistics.weighted_scores(weights)
        for line, multiplicities in enumerate(weights.astype(int)):
            chosen = np.repeat(np.arange(25), multiplicities)
            expected = by_sklearn(hypothesis[chosen], reference[chosen])
            assert {name: values[line] for name, values in found.items()} == pytest.approx(expected, abs=1e-12)


def test_every_class_with_its_support() -> None:
    hypothesis, reference = made_up_codes(200, 3)
    found = ClinicalStatistics(hypothesis, reference).class_scores(resamples=20)
    for name, present in PRESENT.items():
        ours, theirs = (np.isin(codes, present).astype(int) for codes in (hypothesis, reference))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            expected = precision_recall_fscore_support(theirs, ours, average=None, zero_division=0)
        for score, *by_them in zip(found[name], *expected, strict=True):
            ours_values = (score.precision, score.recall, score.f1.value, score.support)
            assert ours_values == pytest.approx(tuple(by_them), abs=1e-12)
        assert [score.observation for score in found[name]] == list(CHEXPERT)
        assert [score.written for score in found[name]] == ours.sum(axis=0).tolist()


def test_the_sets_are_those_of_chexpert() -> None:
    assert STATUSES.index("positive") == 1
    assert STATUSES.index("uncertain") == 3
    assert set(CHEXPERT_5) < set(CHEXPERT)
    assert [len(observations) for observations in OBSERVATION_SETS.values()] == [14, 5]
