"""Sentence boundaries in raw and cleaned reports."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossray.text.cleaning import clean
from crossray.text.sentences import split_sentences


@pytest.mark.parametrize(
    ("report", "sentences"),
    [
        ("The heart is normal. Lungs clear.", ["The heart is normal", "Lungs clear"]),
        ("the heart is normal . lungs clear .", ["the heart is normal", "lungs clear"]),
        ("A 3.5 cm mass. No effusion", ["A 3.5 cm mass", "No effusion"]),
        ("1. Heart normal. 2. Lungs clear.", ["Heart normal", "Lungs clear"]),
        ("Called Dr. Who. Stable vs. prior, e.g. the mass.", ["Called Dr. Who", "Stable vs. prior, e.g. the mass"]),
        ("Fracture? Yes! Healed...", ["Fracture", "Yes", "Healed"]),
        ("Tip at L1. Lungs clear.", ["Tip at L1", "Lungs clear"]),
        ("clear.The heart", ["clear", "The heart"]),
        ("line one\n  goes on.\n\nNext.", ["line one goes on", "Next"]),
        ("", []),
        (" . . ", []),
        ("1. ", []),
    ],
)
def test_boundaries(report: str, sentences: list[str]) -> None:
    assert split_sentences(report) == sentences


@given(
    st.lists(st.lists(st.sampled_from(["no", "left", "effusion", "3.5", "cm", "dr", "xxxx"]), min_size=1), max_size=6)
)
def test_a_cleaned_report_splits_into_what_it_was_joined_from(sentences: list[list[str]]) -> None:
    joined = [" ".join(words) for words in sentences]
    expected = [sentence for sentence in joined if not sentence.endswith("dr")]
    report = "".join(f"{sentence} . " for sentence in expected)
    assert split_sentences(report) == expected
    assert split_sentences(clean(report, "fixed")) == expected


@given(st.text())
def test_no_sentence_is_empty_and_nothing_but_stops_and_numbers_is_lost(report: str) -> None:
    sentences = split_sentences(report)
    assert all(sentences)
    kept = "".join(sentences)
    lost = [character for character in report if character not in kept and not character.isspace()]
    assert all(character in ".?!)" or character.isdigit() for character in lost)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", ["?", "1..5", "dr. ", "1. ", "e.g", "a.b", ")"])
def test_long_runs_take_no_quadratic_time(piece: str) -> None:
    assert split_sentences(piece * 100_000 + "x")[-1].endswith("x")
