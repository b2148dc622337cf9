"""METEOR against pycocoevalcap's own wrapper, which lets the jar do the last step too."""

import shutil

import numpy as np
import pytest

from crossray.evaluation.metrics.meteor import meteor, score_of_counts

HYPOTHESES = [
    "the cardiac size is normal .",
    "the lungs are clear . no pleural effusion .",
    "there is a large opacity in the left lung base .",
    "heart size within normal limits .",
    ".",
    "no acute disease ||| seen .",
    "the the the the",
    "the lungs are clear .",
]
REFERENCES = [
    "the heart is normal .",
    "the lungs are clear . no pleural effusion .",
    "a big opacity of the lower left lung is present .",
    "the heart is enlarged . the lungs are hyperexpanded with flattened diaphragms .",
    "the lungs are clear .",
    "no acute cardiopulmonary disease .",
    "the heart",
    "the lungs are clear .",
]


@pytest.mark.java
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="no Java on the PATH")
def test_equals_the_jar() -> None:
    from pycocoevalcap.meteor.meteor import Meteor

    wrapper = Meteor()
    expected, expected_by_study = wrapper.compute_score(
        {index: [text] for index, text in enumerate(REFERENCES)},
        {index: [text] for index, text in enumerate(HYPOTHESES)},
    )
    statistics = meteor(HYPOTHESES, REFERENCES)
    assert statistics.score() == pytest.approx(expected, abs=1e-9)
    np.testing.assert_allclose(score_of_counts(statistics.counts), expected_by_study, atol=1e-9)
