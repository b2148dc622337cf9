"""Resamples by one matrix product against resampling the reports themselves and scoring them again."""

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from crossray.errors import UserError
from crossray.evaluation.metrics.nlg import ReportPairs
from crossray.evaluation.statistics.significance import bootstrap, interval, paired_difference, resamples_of


def test_resampled_scores_are_those_of_the_resampled_reports(made_up) -> None:
    hypotheses, references = made_up(30, 1), made_up(30, 2)
    truth, generated = ({i: [text] for i, text in enumerate(side)} for side in (references, hypotheses))
    # Document frequencies of the whole set: the scores of single studies stay what they are.
    cider_by_study = Cider().compute_score(truth, generated)[1]
    statistics = ReportPairs(hypotheses, references).statistics()
    for weights in resamples_of(30, 20, seed=3):
        scores = statistics.weighted_scores(weights)
        for line, multiplicities in enumerate(weights.astype(int)):
            chosen = np.repeat(np.arange(30), multiplicities)
            resampled_truth = {place: truth[study] for place, study in enumerate(chosen)}
            resampled = {place: generated[study] for place, study in enumerate(chosen)}
            bleu = Bleu(4).compute_score(resampled_truth, resampled, verbose=0)[0]
            for order in (1, 2, 3, 4):
                assert scores[f"bleu{order}"][line] == pytest.approx(bleu[order - 1], abs=1e-12)
            assert scores["rouge_l"][line] == pytest.approx(Rouge().compute_score(resampled_truth, resampled)[0])
            assert scores["cider"][line] == pytest.approx(np.mean(cider_by_study[chosen]), abs=1e-12)


def test_intervals_of_a_mean_are_those_of_the_normal_distribution() -> None:
    # Half of the reports are perfect, half share nothing: ROUGE-L is the mean of 0s and 1s.
    references = [f"report number {index}" for index in range(400)]
    hypotheses = [text if index % 2 else "nothing shared" for index, text in enumerate(references)]
    found = bootstrap(ReportPairs(hypotheses, references).statistics(), resamples=2000, seed=0)["rouge_l"]
    assert found.value == pytest.approx(0.5)
    assert found.high - found.value == pytest.approx(1.96 * 0.5 / 20, rel=0.1)
    assert found.value - found.low == pytest.approx(1.96 * 0.5 / 20, rel=0.1)


def test_draws_follow_the_seed_and_keep_the_size() -> None:
    first, again, other = (np.concatenate(list(resamples_of(17, 600, seed))) for seed in (0, 0, 1))
    assert first.shape == (600, 17)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(first.sum(axis=1), 17)
    assert first.mean() == pytest.approx(1)


def test_a_better_system_is_told_from_chance(made_up) -> None:
    references = made_up(80, 1)
    good, bad = made_up(80, 2), made_up(80, 3)
    good[::2] = references[::2]
    better, worse = (ReportPairs(reports, references).statistics() for reports in (good, bad))
    difference = paired_difference(better, worse, resamples=200)["cider"]
    assert difference.low > 0
    assert difference.value == pytest.approx(better.scores()["cider"] - worse.scores()["cider"])
    assert paired_difference(worse, better, resamples=200)["cider"].high < 0
    same = paired_difference(worse, worse, resamples=200)["cider"]
    assert (same.low, same.value, same.high) == (0, 0, 0)


def test_pairing_narrows_the_interval(made_up) -> None:
    references = made_up(80, 1)
    first = [text if index % 2 else "zzz" for index, text in enumerate(references)]
    second = [f"{text} extra" if index % 2 else "zzz" for index, text in enumerate(references)]
    one, two = (ReportPairs(reports, references).statistics() for reports in (first, second))
    paired = paired_difference(one, two, resamples=500)["rouge_l"]
    alone = bootstrap(one, resamples=500)["rouge_l"]
    assert paired.high - paired.low < 0.2 * (alone.high - alone.low)


def test_percentiles() -> None:
    found = interval(5.0, np.arange(101, dtype=float), level=0.9)
    assert (found.value, found.low, found.high, found.level) == pytest.approx((5.0, 5.0, 95.0, 0.9))


def test_wrong_sizes_are_refused(made_up) -> None:
    ten, nine = (ReportPairs(made_up(count, 1), made_up(count, 2)).statistics() for count in (10, 9))
    with pytest.raises(UserError, match="10 and 9 studies"):
        paired_difference(ten, nine)
    with pytest.raises(UserError, match="at least one"):
        bootstrap(ten, resamples=0)
