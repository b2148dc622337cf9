"""Variety, and the check that shuffles the images."""

import numpy as np
import pytest

from crossray.evaluation.metrics.degeneracy import derangement, shuffle_check, template, variety
from crossray.evaluation.metrics.nlg import ReportPairs, score


def test_variety_of_known_reports() -> None:
    found = variety(["a b a b", "a  b a b", "c xxxx", "XXXX. <unk>"], np.array([True, True, True, False]))
    assert found.distinct_reports == pytest.approx(3 / 4)
    assert found.distinct1 == pytest.approx(6 / 12)
    assert found.distinct2 == pytest.approx(4 / 8)
    assert found.distinct3 == pytest.approx(2 / 4)
    assert found.distinct4 == pytest.approx(1 / 2)
    assert (found.words, found.deidentified, found.unknown, found.normal) == pytest.approx((3, 0.5, 0.25, 0.75))
    empty = variety(["", ""])
    assert (empty.distinct_reports, empty.distinct1, empty.distinct4, empty.words) == (0.5, 0, 0, 0)
    assert empty.normal is None


def test_the_sentence_that_is_overused_most() -> None:
    truth = ["Heart large."] * 2 + ["Lungs clear. Heart normal."] * 78
    written = ["Heart large. Heart large."] * 12 + ["Lungs clear."] * 59 + ["Bones intact."] * 9
    assert template(written, truth) == pytest.approx((12 / 80, 2 / 80))  # bones: in 9 reports only
    # a sentence that no true report has counts like one that a single report has
    assert template(["Bones intact."] * 10 + ["Heart large."] * 70, truth) == pytest.approx((70 / 80, 2 / 80))
    # equally overused: the rarer one in true reports, not the one that a set yields first
    written = ["A here. B here. C here. D here."] * 12 + [f"{number}." for number in range(8)]
    assert template(written, ["A here. B here. C here."] + ["Other."] * 19) == pytest.approx((12 / 20, 0))
    assert template(["a."] * 9, ["b."] * 9) is None
    assert template([], []) is None


def test_no_study_keeps_its_image() -> None:
    generator = np.random.default_rng(0)
    for studies in (2, 3, 50):
        for _ in range(20):
            order = derangement(studies, generator)
            assert sorted(order) == list(range(studies))
            assert (order != np.arange(studies)).all()


def test_constant_reports_ignore_the_image(made_up) -> None:
    references = made_up(60, 1)
    found = shuffle_check(ReportPairs([references[0]] * 60, references), resamples=200)
    assert found is not None
    assert found.ignores_image
    assert found.differences["cider"].value == pytest.approx(0, abs=1e-12)


def test_varied_reports_at_random_ignore_the_image(made_up) -> None:
    found = shuffle_check(ReportPairs(made_up(200, 5), made_up(200, 1)), resamples=300)
    assert found is not None
    assert found.ignores_image


def test_reports_of_the_image_depend_on_it(made_up) -> None:
    references = made_up(60, 1)
    hypotheses = made_up(60, 2)
    hypotheses[::2] = references[::2]
    found = shuffle_check(ReportPairs(hypotheses, references), resamples=200)
    assert found is not None
    assert not found.ignores_image
    assert found.scores["cider"] < score(hypotheses, references)["cider"] - 2


def test_a_single_study_cannot_be_checked() -> None:
    assert shuffle_check(ReportPairs(["a"], ["a"])) is None
