"""Approximate randomization and the bootstrap against the naive way: move the reports themselves and score again."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from crossray.evaluation.metrics.nlg import ReportPairs, score
from crossray.evaluation.metrics.statistics import StudyStatistics
from crossray.evaluation.statistics.randomization import (
    exchanged_differences,
    exchanges_of,
    paired_tests,
    randomization_p,
)
from crossray.evaluation.statistics.significance import bootstrap, paired_difference, resamples_of

STUDIES, RESAMPLES = 24, 60
_WORDS = ("heart", "lung", "clear", "normal", "enlarged", "effusion", ".")


@dataclass(frozen=True)
class Means:
    """A metric that is the mean of values of single studies."""

    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values)

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        return {"mean": weights @ self.values / weights.sum(axis=1)}


def reports(count: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(_WORDS, size=draw.integers(3, 15))) for _ in range(count)]


@pytest.fixture(scope="module")
def texts() -> tuple[list[str], list[str], list[str]]:
    """Reports of two systems, the first a little better, and the true ones."""
    first, second, true = (reports(STUDIES, seed) for seed in (1, 2, 3))
    first[:4] = true[:4]
    return first, second, true


def test_exchanges_are_those_of_the_reports(texts) -> None:
    first, second, true = texts
    ours, theirs = (StudyStatistics({"nlg": ReportPairs(system, true).statistics()}) for system in (first, second))
    found = exchanged_differences(ours, theirs, resamples=RESAMPLES, seed=5)
    naive = []
    for moved in np.concatenate(list(exchanges_of(STUDIES, RESAMPLES, seed=5))):
        here = [two if move else one for one, two, move in zip(first, second, moved, strict=True)]
        there = [one if move else two for one, two, move in zip(first, second, moved, strict=True)]
        after, before = score(here, true), score(there, true)
        naive.append({name: after[name] - before[name] for name in after})
    assert found.keys() == naive[0].keys()
    tests = paired_tests({"a": ours, "b": theirs}, [("a", "b")], resamples=RESAMPLES, seed=5)["a", "b"]
    true_scores = score(first, true), score(second, true)
    for name in found:
        expected = [differences[name] for differences in naive]
        np.testing.assert_allclose(found[name], expected, atol=1e-10)
        difference = true_scores[0][name] - true_scores[1][name]
        as_large = sum(abs(value) >= abs(difference) - 1e-9 for value in expected)
        assert tests[name].randomization_p == (1 + as_large) / (1 + RESAMPLES)
        assert tests[name].difference.value == pytest.approx(difference)


def test_intervals_are_those_of_repeated_reports(texts) -> None:
    """CIDEr is left out: scoring the repeated reports anew would count the document frequencies anew."""
    first, second, true = texts
    ours, theirs = (StudyStatistics({"nlg": ReportPairs(system, true).statistics()}) for system in (first, second))
    naive: list[tuple[dict[str, float], dict[str, float]]] = []
    for multiplicities in np.concatenate(list(resamples_of(STUDIES, RESAMPLES, seed=5))).astype(int):
        chosen = np.repeat(np.arange(STUDIES), multiplicities)
        repeated = [[system[study] for study in chosen] for system in (first, second, true)]
        naive.append((score(repeated[0], repeated[2]), score(repeated[1], repeated[2])))
    found = bootstrap(ours, resamples=RESAMPLES, seed=5, level=0.9)
    differences = paired_difference(ours, theirs, resamples=RESAMPLES, seed=5, level=0.9)
    tests = paired_tests({"a": ours, "b": theirs}, [("a", "b")], resamples=RESAMPLES, seed=5, level=0.9)["a", "b"]
    for name in ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l"):
        low, high = np.quantile([ours_drawn[name] for ours_drawn, _ in naive], [0.05, 0.95])
        assert (found[name].low, found[name].high) == pytest.approx((low, high), abs=1e-10)
        drawn = np.array([one[name] - two[name] for one, two in naive])
        ends = pytest.approx(tuple(np.quantile(drawn, [0.05, 0.95])), abs=1e-10)
        assert (differences[name].low, differences[name].high) == ends
        assert (tests[name].difference.low, tests[name].difference.high) == ends
        smaller = min(np.sum(drawn < 0), np.sum(drawn > 0))
        assert tests[name].bootstrap_p == pytest.approx(min(1, 2 * (1 + smaller) / (1 + RESAMPLES)))


@pytest.mark.parametrize("shift", [0.0, 0.4, 1.0])
def test_p_is_scipys(shift: float) -> None:
    """All 2^10 exchanges, which scipy enumerates; 40,000 random ones come within five standard errors of them."""
    draw = np.random.default_rng(3)
    first, second = draw.normal(shift, 1, 10), draw.normal(0, 1, 10)
    exact = stats.permutation_test(
        (first, second),
        lambda one, two, axis: np.mean(one, axis=axis) - np.mean(two, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    ).pvalue
    resamples = 40_000
    found = randomization_p(
        float(first.mean() - second.mean()),
        exchanged_differences(Means(first), Means(second), resamples=resamples)["mean"],
    )
    assert found == pytest.approx(exact, abs=5 * np.sqrt(exact * (1 - exact) / resamples) + 1 / resamples)
