"""Scores as sums over single studies: what must not matter, and parts and other pairings of a corpus."""

import numpy as np
import pytest

from crossray.errors import UserError
from crossray.evaluation.metrics.nlg import METRICS, ReportPairs, score
from crossray.evaluation.metrics.rouge import longest_common_subsequence


def test_order_of_studies_does_not_matter(made_up) -> None:
    hypotheses, references = made_up(50, 1), made_up(50, 2)
    order = np.random.default_rng(0).permutation(50)
    assert score([hypotheses[i] for i in order], [references[i] for i in order]) == pytest.approx(
        score(hypotheses, references), abs=1e-12
    )


def test_other_pairings_equal_scoring_them_anew(made_up) -> None:
    hypotheses, references = made_up(40, 1), made_up(40, 2)
    order = np.random.default_rng(0).integers(40, size=40)
    statistics = ReportPairs(hypotheses, references).statistics(order)
    assert statistics.scores() == pytest.approx(score([hypotheses[i] for i in order], references), abs=1e-12)


def test_perfect_and_hopeless_reports(made_up) -> None:
    references = made_up(30, 1)
    perfect = score(references, references)
    assert perfect["cider"] == pytest.approx(10)
    assert min(perfect.values()) > 0.99
    assert score(["zzz yyy"] * 30, references) == pytest.approx(dict.fromkeys(METRICS, 0.0), abs=1e-6)


def test_a_part_keeps_the_document_frequencies_of_the_whole(made_up) -> None:
    hypotheses, references = made_up(40, 1), made_up(40, 2)
    whole = ReportPairs(hypotheses, references).statistics()
    part = whole.part(np.arange(40) < 10)
    alone = score(hypotheses[:10], references[:10])
    assert len(part) == 10
    assert part.scores()["cider"] == pytest.approx(whole.cider[:10].mean())
    assert part.scores()["cider"] != pytest.approx(alone["cider"], abs=1e-3)
    for name in ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l"):
        assert part.scores()[name] == pytest.approx(alone[name])


@pytest.mark.parametrize(("hypotheses", "references"), [(["a"], []), ([], []), (["a"], ["a", "b"])])
def test_wrong_lists_are_refused(hypotheses: list[str], references: list[str]) -> None:
    with pytest.raises(UserError, match="give"):
        score(hypotheses, references)


def test_longest_common_subsequence_against_the_textbook() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        first, second = (list(map(str, generator.integers(4, size=generator.integers(0, 80)))) for _ in range(2))
        table = np.zeros((len(first) + 1, len(second) + 1), dtype=int)
        for i, ours in enumerate(first):
            for j, theirs in enumerate(second):
                table[i + 1, j + 1] = table[i, j] + 1 if ours == theirs else max(table[i, j + 1], table[i + 1, j])
        assert longest_common_subsequence(first, second) == table[-1, -1]
