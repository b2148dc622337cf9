"""Sentences invented by somebody who had not seen the rules, with the labels that CheXpert's conventions ask for."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from crossray.text.observations import label_report

SENTENCES: list[dict[str, Any]] = yaml.safe_load(
    Path(__file__).with_name("observation_sentences.yaml").read_text(encoding="utf-8")
)

#: Contested sentences where our convention (docs/data/labeler.md) is the other one.
DECIDED_OTHERWISE = {
    "Borderline cardiomegaly.": "borderline is uncertain, as in CheXpert's rules",
    "Volume loss in the left lower lobe with leftward mediastinal shift.": "volume loss is a sign, not a mention",
}


def faults(sentence: dict[str, Any]) -> list[str]:
    """What is not as the sentence demands."""
    labels = label_report(sentence["text"])
    found = [
        f"{name} {labels.status(name)}, not {status}"
        for name, status in sentence.get("labels", {}).items()
        if labels.status(name) != status
    ]
    found += [f"{name} not blank" for name in sentence.get("blank", ()) if labels.status(name) != "blank"]
    found += [
        f"{name} present" for name in sentence.get("absent", ()) if labels.status(name) in ("positive", "uncertain")
    ]
    return found


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda sentence: f"{sentence['pattern']}: {sentence['text']}")
def test_sentence(sentence: dict[str, Any]) -> None:
    if sentence["text"] in DECIDED_OTHERWISE:
        assert sentence["contested"], "only what careful annotators read differently may be decided otherwise"
        assert faults(sentence), f"decided as the sentence asks, not otherwise: {DECIDED_OTHERWISE[sentence['text']]}"
    else:
        assert not faults(sentence)


def test_every_pattern_has_three_sentences() -> None:
    assert len(SENTENCES) >= 150
    assert min(Counter(sentence["pattern"] for sentence in SENTENCES).values()) >= 3
