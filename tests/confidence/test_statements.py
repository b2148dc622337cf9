"""What reports claim, and what speaks for it."""

import math

import numpy as np
import pytest

from crossray.confidence.statements import (
    base_rate,
    holds,
    observations,
    presence,
    sentences,
    share,
    signals,
)
from crossray.decoding.reports import WrittenReport
from crossray.text.observations import OBSERVATIONS
from crossray.text.tokenizer import Tokenizer

TEXT = "there is a pleural effusion . no pneumothorax . the patient is tall ."
EFFUSION, PNEUMOTHORAX, NO_FINDING = (
    OBSERVATIONS.index(name) for name in ("pleural_effusion", "pneumothorax", "no_finding")
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([TEXT, "the heart is normal ."], min_count=1)


def _written(tokenizer: Tokenizer, text: str) -> WrittenReport:
    tokens = tuple(tokenizer.encode(text, 60)[1:-1])
    return WrittenReport(text, tokens, tuple(-0.1 * (place + 1) for place in range(len(tokens))))


def test_a_sentence_claims_its_own_observations(tokenizer: Tokenizer) -> None:
    found = sentences(_written(tokenizer, TEXT), tokenizer)
    assert [dict(one.claims) for one in found] == [{EFFUSION: True}, {PNEUMOTHORAX: False}, {}]
    # six words of -0.1 to -0.6, then three of -0.7 to -0.9
    assert [one.probability for one in found[:2]] == pytest.approx([math.exp(-0.35), math.exp(-0.8)])


def test_an_observation_rests_on_the_sentences_that_state_it(tokenizer: Tokenizer) -> None:
    found = {one.text: one for one in observations(_written(tokenizer, TEXT), tokenizer)}
    assert {name: dict(one.claims) for name, one in found.items()} == {
        "pleural_effusion": {EFFUSION: True},
        "pneumothorax": {PNEUMOTHORAX: False},
    }
    assert found["pneumothorax"].probability == pytest.approx(math.exp(-0.8))


def test_no_finding_rests_on_the_whole_report(tokenizer: Tokenizer) -> None:
    report = _written(tokenizer, "no pneumothorax . the heart is normal .")
    (found,) = [one for one in observations(report, tokenizer) if one.text == "no_finding"]
    assert dict(found.claims) == {NO_FINDING: True}
    assert found.probability == pytest.approx(math.exp(report.log_probability / len(report.tokens)))


def test_uncertain_counts_as_there_and_unmentioned_as_not_there() -> None:
    (said,) = presence(["possible pleural effusion ."])
    assert said[EFFUSION]
    assert not said[PNEUMOTHORAX]


def test_all_claims_must_hold() -> None:
    present = np.zeros((3, len(OBSERVATIONS)), bool)
    present[1, EFFUSION] = present[2, EFFUSION] = present[2, PNEUMOTHORAX] = True
    assert holds({EFFUSION: True, PNEUMOTHORAX: False}, present).tolist() == [False, True, False]


def test_the_rarest_claim_decides_the_base_rate() -> None:
    rates = np.full(len(OBSERVATIONS), 0.5)
    rates[EFFUSION], rates[PNEUMOTHORAX] = 0.2, 0.01
    assert base_rate({EFFUSION: True, PNEUMOTHORAX: False}, rates) == pytest.approx(0.2)
    assert base_rate({PNEUMOTHORAX: False}, rates) == pytest.approx(0.99)


def test_agreement_is_the_share_of_drawn_reports_that_say_the_same(tokenizer: Tokenizer) -> None:
    stated = sentences(_written(tokenizer, TEXT), tokenizer)[:2]
    drawn = presence([TEXT, "no pleural effusion .", "pleural effusion and pneumothorax .", "the heart is normal ."])
    found = signals(stated, np.full(len(OBSERVATIONS), 0.5), drawn)
    assert found["agreement"] == pytest.approx([share(2, 4), share(3, 4)])
    assert "agreement" not in signals(stated, np.full(len(OBSERVATIONS), 0.5))
