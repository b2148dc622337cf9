"""Clinical efficacy on codes set by hand; tests/oracles compares with scikit-learn."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.evaluation.keywords import KeywordLabeler

from crossray.errors import UserError
from crossray.evaluation.metrics.clinical import METRICS, ClinicalStatistics
from crossray.evaluation.metrics.meteor import METRIC
from crossray.evaluation.metrics.statistics import Pairings, StudyStatistics, measure
from crossray.evaluation.statistics.significance import bootstrap, scores_of
from crossray.text.observations import CHEXPERT, STATUSES


def codes(*reports: dict[str, str]) -> NDArray[np.int8]:
    """Status codes of reports given as observation to status."""
    return np.array([[STATUSES.index(report.get(name, "blank")) for name in CHEXPERT] for report in reports], np.int8)


TRUE = codes(
    {"edema": "positive", "cardiomegaly": "positive"},
    {"edema": "uncertain"},
    {"no_finding": "positive", "edema": "negative"},
    {},
)
WRITTEN = codes(
    {"edema": "positive", "pneumonia": "positive"},
    {"edema": "positive"},
    {"no_finding": "positive"},
    {"edema": "uncertain"},
)


def test_both_conventions_by_hand() -> None:
    scores = scores_of(ClinicalStatistics(WRITTEN, TRUE))
    # Positive counts. Studies: 1 of 2 right; one claimed, none true; right; nothing on either side, which counts 0.
    assert (scores["ce_precision"], scores["ce_recall"], scores["ce_f1"]) == pytest.approx((1.5 / 4,) * 3)
    assert scores["ce_micro_precision"] == pytest.approx(2 / 4)
    assert scores["ce_micro_recall"] == pytest.approx(2 / 3)
    assert scores["ce_macro_recall"] == pytest.approx((1 + 0 + 1) / 14)
    # Positive or uncertain counts: the second study is right, the fourth claims what is not there.
    assert scores["ce_f1_uncertain"] == pytest.approx((0.5 + 1 + 1 + 0) / 4)
    assert scores["ce_micro_precision_uncertain"] == pytest.approx(3 / 5)
    # Of the five there are edema and cardiomegaly.
    assert scores["ce5_micro_precision"] == pytest.approx(1 / 2)
    assert scores["ce5_macro_f1_uncertain"] == pytest.approx(2 * 2 / (3 + 2) / 5)


def test_blank_and_negative_count_the_same() -> None:
    blank_for_negative = np.where(STATUSES.index("negative") == TRUE, STATUSES.index("blank"), TRUE)
    assert scores_of(ClinicalStatistics(WRITTEN, TRUE)) == scores_of(ClinicalStatistics(WRITTEN, blank_for_negative))


def test_class_intervals_hold_what_a_bootstrap_of_the_class_holds() -> None:
    draw = np.random.default_rng(0)
    reference = draw.integers(0, 2, size=(300, 14)).astype(np.int8)
    hypothesis = np.where(draw.random((300, 14)) < 0.8, reference, 1 - reference).astype(np.int8)
    edema = CHEXPERT.index("edema")
    found = ClinicalStatistics(hypothesis, reference).class_scores(resamples=400, seed=5)["positive"][edema]
    # Micro over a table in which nothing else ever occurs is the score of that class.
    alone = [np.where(np.arange(14) == edema, side, 0).astype(np.int8) for side in (hypothesis, reference)]
    expected = bootstrap(ClinicalStatistics(*alone), resamples=400, seed=5)["ce_micro_f1"]
    assert (found.f1.low, found.f1.value, found.f1.high) == pytest.approx((expected.low, expected.value, expected.high))
    assert found.f1.low < found.f1.value < found.f1.high


def test_parts_and_other_pairings() -> None:
    statistics = ClinicalStatistics(WRITTEN, TRUE)
    assert scores_of(statistics.part(np.array([True, False, True, False])))["ce_f1"] == pytest.approx(0.75)
    order = np.array([2, 3, 0, 1])
    assert scores_of(statistics.paired(order)) == scores_of(ClinicalStatistics(WRITTEN[order], TRUE))
    written, true = statistics.without_findings
    assert written.tolist() == true.tolist() == [False, False, True, False]
    assert statistics.references_differ
    assert not ClinicalStatistics(WRITTEN, np.repeat(TRUE[:1], 4, axis=0)).references_differ


def test_columns_are_taken_by_name() -> None:
    shuffled = np.random.default_rng(0).permutation(14)
    names = [*(CHEXPERT[index] for index in shuffled), "aorta_abnormal"]
    extra = np.ones((4, 1), np.int8)
    found = ClinicalStatistics.of(
        np.hstack([WRITTEN[:, shuffled], extra]), np.hstack([TRUE[:, shuffled], extra]), names
    )
    np.testing.assert_array_equal(found.hypothesis, WRITTEN)
    np.testing.assert_array_equal(found.reference, TRUE)
    with pytest.raises(UserError, match="no column for edema"):
        ClinicalStatistics.of(TRUE, TRUE, ["oedema" if name == "edema" else name for name in CHEXPERT])


def test_every_text_is_labelled_once(made_up) -> None:
    labeler = KeywordLabeler()
    true, ours = made_up(40, 1), made_up(40, 2)
    references = {"r2gen": [report[:30] for report in true], "full": true}
    measured = measure({"a": ours, "b": true, "c": ours}, references, meteor="no", labeler=labeler)
    assert len(labeler.seen) == len(set(labeler.seen))
    assert set(labeler.seen) == {*ours, *true, *references["r2gen"]}
    assert measured.labeler == "keywords 1"
    statistics = measured.statistics["full", "a"]
    expected = ClinicalStatistics.of(labeler.label(ours), labeler.label(true), labeler.observations)
    assert scores_of(statistics).items() >= scores_of(expected).items()
    assert scores_of(measured.statistics["full", "b"])["ce_f1"] == 1
    half = np.arange(40) < 20
    assert scores_of(statistics.part(half))["ce_f1"] == scores_of(expected.part(half))["ce_f1"]
    without = measure({"a": ours}, references, meteor="no")
    assert without.labeler == ""
    assert not set(METRICS) & set(scores_of(without.statistics["full", "a"]))


def test_shuffled_pairs_carry_their_labels(made_up) -> None:
    true, ours = made_up(30, 1), made_up(30, 2)
    order = np.roll(np.arange(30), 7)
    labeler = KeywordLabeler()
    statistics = measure({"a": ours}, {"full": true}, meteor="no", labeler=labeler).statistics["full", "a"]
    found = Pairings.of((ours, true), statistics).statistics(order)
    moved = [ours[index] for index in order]
    expected = measure({"a": moved}, {"full": true}, meteor="no", labeler=labeler).statistics["full", "a"]
    assert scores_of(found) == pytest.approx(scores_of(expected))


@dataclass
class Fixed:
    """Statistics whose scores are known."""

    scores: dict[str, float]

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        return {name: np.full(len(weights), value) for name, value in self.scores.items()}

    def __len__(self) -> int:
        return 1


def test_avg_is_that_of_revtafs_table() -> None:
    # REVTAF, Table 2, last row.
    nlg = {"bleu1": 0.420, "bleu2": 0.249, "bleu3": 0.159, "bleu4": 0.107, "rouge_l": 0.309, "cider": 5.0}
    meteor, clinical = {METRIC: 0.176}, {"ce_precision": 0.286, "ce_recall": 0.282, "ce_f1": 0.273, "ce5_f1": 0.9}
    families = {"nlg": Fixed(nlg), "meteor": Fixed(meteor), "clinical": Fixed(clinical)}
    found = scores_of(StudyStatistics(families))
    assert found["avg"] == pytest.approx(0.251, abs=0.0005)
    for missing in families:
        rest = {name: statistics for name, statistics in families.items() if name != missing}
        assert "avg" not in scores_of(StudyStatistics(rest))
