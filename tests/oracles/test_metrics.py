"""BLEU, ROUGE-L and CIDEr against pycocoevalcap: on true reports, made-up ones, and every odd text."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from crossray.evaluation.metrics.bleu import corpus_bleu
from crossray.evaluation.metrics.nlg import METRICS, ReportPairs, score
from crossray.text.cleaning import clean

TOLERANCE = 1e-6


def by_coco(hypotheses: list[str], references: list[str]) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Scores of the corpus and of each study."""
    truth = {index: [text] for index, text in enumerate(references)}
    generated = {index: [text] for index, text in enumerate(hypotheses)}
    bleu, bleu_by_study = Bleu(4).compute_score(truth, generated, verbose=0)
    rouge, rouge_by_study = Rouge().compute_score(truth, generated)
    scores = {f"bleu{order}": bleu[order - 1] for order in (1, 2, 3, 4)} | {"rouge_l": rouge}
    studies = {f"bleu{order}": bleu_by_study[order - 1] for order in (1, 2, 3, 4)} | {"rouge_l": list(rouge_by_study)}
    if any(text.split() for text in references):
        scores["cider"], by_study = Cider().compute_score(truth, generated)
        studies["cider"] = list(by_study)
    else:  # pycocoevalcap ends with an exception where no reference has a word
        scores["cider"], studies["cider"] = 0.0, [0.0] * len(references)
    return scores, studies


def assert_equal(hypotheses: list[str], references: list[str]) -> None:
    expected, expected_by_study = by_coco(hypotheses, references)
    statistics = ReportPairs(hypotheses, references).statistics()
    ours = statistics.scores()
    assert tuple(ours) == METRICS
    for name in METRICS:
        assert ours[name] == pytest.approx(expected[name], abs=TOLERANCE), name
    np.testing.assert_allclose(statistics.rouge_l, expected_by_study["rouge_l"], atol=TOLERANCE)
    np.testing.assert_allclose(statistics.cider, expected_by_study["cider"], atol=TOLERANCE)
    bleu_by_study = corpus_bleu(
        statistics.correct, statistics.guessed, statistics.hypothesis_length, statistics.reference_length
    )
    for order in (1, 2, 3, 4):
        np.testing.assert_allclose(
            bleu_by_study[:, order - 1], expected_by_study[f"bleu{order}"], atol=TOLERANCE, err_msg=f"bleu{order}"
        )


@pytest.mark.real_data
@pytest.mark.parametrize("cleaner", ["none", "legacy"])
def test_500_true_report_pairs(real_data: Path, cleaner: str) -> None:
    annotation = json.loads((real_data / "iu_xray" / "annotation.json").read_text())
    reports = [clean(study["report"], cleaner) for study in annotation["test"]]
    assert_equal(reports[1:501], reports[:500])


def test_made_up_pairs() -> None:
    generator = np.random.default_rng(0)
    words = [f"w{index}" for index in range(40)]

    def draw() -> str:
        return " ".join(generator.choice(words, size=generator.integers(0, 90)))

    assert_equal([draw() for _ in range(120)], [draw() for _ in range(120)])


@pytest.mark.parametrize(
    ("hypotheses", "references"),
    [
        pytest.param(["", "the heart is normal ."], ["a b c d e", "the heart is normal ."], id="empty hypothesis"),
        pytest.param(["a b", "the heart"], ["", "the heart is"], id="empty reference"),
        pytest.param(["", ""], ["", "a"], id="empty pair"),
        pytest.param(["", ""], ["", ""], id="nothing at all"),
        pytest.param(["a", "b"], ["a", "c"], id="one word"),
        pytest.param(["."], ["."], id="one study of one word"),
        pytest.param(["a b c d e"], ["a b c d e"], id="one study"),
        pytest.param(["a a a a a a", "b b"], ["a a b", "b b b b b b"], id="repeated words"),
        pytest.param(["a  b   c", " a b "], ["a b  c", "a  b"], id="double blanks"),
        pytest.param(["a\tb\nc", "a b"], ["a b c", "a\u00a0b"], id="other white space"),
        pytest.param(["same . report ."] * 5, ["same . report ."] * 5, id="all equal"),
        pytest.param(["x y z"] * 3, ["a b c", "d e f", "g h i"], id="nothing in common"),
        pytest.param(["hé ß 心", "İ i̇"], ["hé ß 肺", "i̇ İ"], id="letters of all kinds"),
        pytest.param(["a " * 300 + "b"], ["a " * 200 + "b c"], id="hundreds of words"),
    ],
)
def test_edge_cases(hypotheses: list[str], references: list[str]) -> None:
    assert_equal(hypotheses, references)


_TEXT = st.lists(st.sampled_from(["a", "b", "c", "d", ".", "", " "]), max_size=12).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(_TEXT, _TEXT), min_size=1, max_size=6))
def test_any_word_lists(pairs: list[tuple[str, str]]) -> None:
    assert_equal([pair[0] for pair in pairs], [pair[1] for pair in pairs])


def test_score_is_the_corpus_score() -> None:
    hypotheses, references = ["the heart is big .", "clear lungs ."], ["the heart is normal .", "lungs are clear ."]
    expected, _ = by_coco(hypotheses, references)
    assert score(hypotheses, references) == pytest.approx(expected, abs=TOLERANCE)
