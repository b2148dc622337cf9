"""Tests of differences: equal systems, better systems, many comparisons, and statistics of every kind."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from crossray.errors import UserError
from crossray.evaluation.metrics.clinical import ClinicalStatistics
from crossray.evaluation.metrics.meteor import MeteorStatistics
from crossray.evaluation.metrics.nlg import ReportPairs
from crossray.evaluation.metrics.statistics import StudyStatistics
from crossray.evaluation.statistics.randomization import (
    PairedTest,
    corrected,
    exchanged_differences,
    exchanges_of,
    holm,
    joined,
    paired_tests,
    randomization_p,
)
from crossray.evaluation.statistics.significance import Interval, bootstrap_p


@dataclass(frozen=True)
class Ratio:
    """A metric of a corpus, such as BLEU: the sum of one count over the sum of another."""

    hits: NDArray[np.float64]
    words: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.hits)

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        return {"ratio": (weights @ self.hits) / (weights @ self.words)}


def drawn_ratio(draw: np.random.Generator, studies: int, rate: float = 0.5) -> Ratio:
    words = draw.integers(5, 60, size=studies).astype(float)
    return Ratio(draw.binomial(words.astype(int), rate).astype(float), words)


def test_p_values_of_equal_systems_are_uniform() -> None:
    """Both tests, 400 times on two systems that differ by chance only."""
    draw = np.random.default_rng(0)
    by_exchange, by_bootstrap = [], []
    for seed in range(400):
        systems = {"a": drawn_ratio(draw, 60), "b": drawn_ratio(draw, 60)}
        test = paired_tests(systems, [("a", "b")], resamples=199, seed=seed)["a", "b"]["ratio"]
        by_exchange.append(test.randomization_p)
        by_bootstrap.append(test.bootstrap_p)
    for p_values in (by_exchange, by_bootstrap):
        assert stats.kstest(p_values, "uniform").pvalue > 0.01
        assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.03)


def test_a_better_system_is_told_from_chance() -> None:
    draw = np.random.default_rng(0)
    systems = {"good": drawn_ratio(draw, 200, 0.55), "bad": drawn_ratio(draw, 200, 0.45)}
    tests = paired_tests(systems, [("good", "bad"), ("bad", "good")], resamples=499)
    for pair, sign in ((("good", "bad"), 1), (("bad", "good"), -1)):
        test = tests[pair]["ratio"]
        assert sign * test.difference.low > 0 < sign * test.difference.high
        assert test.randomization_p == 1 / 500
        assert test.bootstrap_p == 2 / 500
        assert test.corrected_p is None


def test_a_system_does_not_differ_from_itself(made_up) -> None:
    same = ReportPairs(made_up(30, 1), made_up(30, 2)).statistics()
    for test in paired_tests({"a": same, "b": same}, [("a", "b")], resamples=50)["a", "b"].values():
        assert (test.difference.low, test.difference.value, test.difference.high) == (0, 0, 0)
        assert (test.bootstrap_p, test.randomization_p) == (1, 1)


def test_exchanges_follow_the_seed_and_move_half() -> None:
    first, again, other = (np.concatenate(list(exchanges_of(17, 600, seed))) for seed in (0, 0, 1))
    assert first.shape == (600, 17)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first.mean() == pytest.approx(0.5, abs=0.02)


def test_small_rounding_does_not_break_ties() -> None:
    assert randomization_p(0.3, np.array([0.3 - 1e-15, -0.3, 0.1])) == 3 / 4
    assert bootstrap_p(np.array([1e-17, -1e-17, 0.0])) == 1


def test_statistics_of_all_metrics_are_joined(made_up) -> None:
    draw = np.random.default_rng(0)

    def system(seed: int) -> StudyStatistics:
        codes = draw.integers(4, size=(2, 12, 14)).astype(np.int8)
        return StudyStatistics(
            {
                "nlg": ReportPairs(made_up(12, seed), made_up(12, 9)).statistics(),
                "meteor": MeteorStatistics(draw.random((12, 23))),
                "clinical": ClinicalStatistics(*codes),
            }
        )

    one, two = system(1), system(2)
    both = joined(one, two)
    assert len(both) == 24
    for weights, expected in (
        ([[1.0] * 12 + [0.0] * 12], one),
        ([[0.0] * 12 + [1.0] * 12], two),
    ):
        found = both.weighted_scores(np.array(weights))
        alone = expected.weighted_scores(np.ones((1, 12)))
        assert {"bleu4", "meteor_1.5_jar", "ce_f1", "avg"} < found.keys() == alone.keys()
        for name in alone:
            np.testing.assert_allclose(found[name], alone[name], err_msg=name)
    fewer = StudyStatistics({name: two.families[name] for name in ("nlg", "clinical")})
    with pytest.raises(ValueError, match=r"StudyStatistics\.families"):
        joined(one, fewer)


def test_holm_by_hand() -> None:
    # Four values: 0.01 * 4, 0.02 * 3, max(0.06, 0.03 * 2), max(0.06, 0.04 * 1).
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.005, 0.011, 0.02, 0.04, 0.13]) == pytest.approx([0.025, 0.044, 0.06, 0.08, 0.13])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_all_pairs_and_metrics_are_corrected_together() -> None:
    def test(p: float) -> PairedTest:
        return PairedTest(Interval(0, 0, 0), p, p)

    found = corrected({("a", "b"): {"x": test(0.01), "y": test(0.5)}, ("a", "c"): {"x": test(0.02), "y": test(0.9)}})
    values = [found[pair][metric].corrected_p for pair in found for metric in found[pair]]
    assert values == pytest.approx([0.04, 1.0, 0.06, 1.0])
    assert found["a", "c"]["x"].randomization_p == 0.02


def test_wrong_sizes_are_refused() -> None:
    draw = np.random.default_rng(0)
    with pytest.raises(UserError, match="10 and 9 studies"):
        exchanged_differences(drawn_ratio(draw, 10), drawn_ratio(draw, 9))
    with pytest.raises(UserError, match="at least one"):
        exchanged_differences(drawn_ratio(draw, 10), drawn_ratio(draw, 10), resamples=0)
