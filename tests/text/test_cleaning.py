"""The cleaners against a table of examples, a slow restatement in regular expressions, and what `fixed` promises."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crossray.errors import UserError
from crossray.text.cleaning import CLEANERS, clean

#: Texts dense in what the cleaners decide on: stops, numbers, brackets, quotes, blanks, capitals.
AWKWARD = st.lists(
    st.sampled_from(
        [
            *"12345 .,?!;:()[]{}/\\'\"-_^&%<>@~\n\tAbÄİß",
            ". ",
            "..",
            "1. ",
            "2. ",
            "12. ",
            "3.5",
            "L1.",
            "No",
            "effusion",
            "Dr.",
        ]
    ),
    max_size=25,
).map("".join)
TEXTS = AWKWARD | st.text(max_size=60)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("The heart is 3.5 cm.", "the heart is 35 cm ."),
        ("tip at L1. The lungs are clear..", "tip at lthe lungs are clear ."),
        ("", " ."),
        ("XXXX-XXXX right-sided", "xxxx-xxxx right-sided ."),
    ],
)
@pytest.mark.parametrize("cleaner", ["legacy", "legacy_mimic"])
def test_legacy_quirks(raw: str, cleaned: str, cleaner: str) -> None:
    assert clean(raw, cleaner) == cleaned


def test_legacy_keeps_numbering_beyond_five() -> None:
    assert clean("12. 5. degenerative changes", "legacy") == "12 . degenerative changes ."
    assert clean("Clear. 5. Normal. 6. Stable.", "legacy") == "clear . normal . 6 . stable ."


def test_legacy_keeps_the_hyphen_and_deletes_the_range_around_it() -> None:
    assert clean("a-b:c;d<e=f>g?h@i[j", "legacy") == "a-bcdefghij ."


def in_the_words_of_the_specification(report: str, *, mimic: bool) -> str:
    """The published cleaner, step by step, with regular expressions."""
    if mimic:
        report = report.replace("\n", " ")
        for times, old, new in ((7, "__", "_"), (6, "  ", " "), (5, "..", ".")):
            for _ in range(times):
                report = report.replace(old, new)
    for _ in range(3):
        report = re.sub(r"\.\.", ".", report)
    report = re.sub(r"1\. ", "", report)
    for number in range(2, 6):
        report = re.sub(rf"\. {number}\. ", ". ", report)
    for number in range(2, 6):
        report = re.sub(rf" {number}\. ", ". ", report)
    pieces = []
    for piece in report.strip().lower().split(". "):
        unquoted = re.sub(r"[\"/\\']", "", piece).strip().lower()
        kept = [c for c in unquoted if c not in ".,?;*!%^&_+(){}]" and not 58 <= ord(c) <= 91]
        pieces.append("".join(kept))
    return " . ".join(pieces) + " ."


@given(TEXTS)
def test_legacy_is_the_specification(report: str) -> None:
    assert clean(report, "legacy") == in_the_words_of_the_specification(report, mimic=False)


@given(TEXTS)
def test_legacy_mimic_is_the_specification(report: str) -> None:
    assert clean(report, "legacy_mimic") == in_the_words_of_the_specification(report, mimic=True)


def test_legacy_mimic_joins_lines_and_runs() -> None:
    assert clean("The  heart\nof ____ is ........ normal.", "legacy_mimic") == "the heart of  is . normal ."


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("The heart is 3.5 cm.", "the heart is 3.5 cm ."),
        ("tip at L1. The lungs are clear..", "tip at l1 . the lungs are clear ."),
        ("12. 5. degenerative changes", "degenerative changes ."),
        ("1. Heart normal. 2. Lungs clear. 3) No effusion.", "heart normal . lungs clear . no effusion ."),
        ("Measures 5. Heart normal.", "measures 5 . heart normal ."),
        ("A nodule of .5 cm.", "a nodule of .5 cm ."),
        ("Scarring and/or atelectasis.", "scarring and or atelectasis ."),
        ("Lungs are clear.The heart is normal", "lungs are clear . the heart is normal ."),
        ("XXXX-XXXX right-sided", "xxxx-xxxx right-sided ."),
        ("Discussed with Dr. XXXX at 3 p.m. today.", "discussed with dr xxxx at 3 pm . today ."),
        ("Is there (still) a fracture? None!", "is there still a fracture . none ."),
        ("Clear. . ... Normal.", "clear . normal ."),
        ("", ""),
        (" ... ", ""),
    ],
)
def test_fixed(raw: str, cleaned: str) -> None:
    assert clean(raw, "fixed") == cleaned


@given(TEXTS)
@example("3.)5")
@example("a. .5 b")
@example('"5. b')
def test_fixed_is_idempotent(report: str) -> None:
    once = clean(report, "fixed")
    assert clean(once, "fixed") == once


@given(TEXTS)
def test_fixed_leaves_single_blanks_closed_sentences_and_no_signs(report: str) -> None:
    cleaned = clean(report, "fixed")
    assert cleaned == " ".join(cleaned.split())
    assert cleaned == cleaned.lower()
    assert not set(cleaned) & set(",?;*!%^&_+():<=>@[]{}\"'/\\")
    assert all(sentence.strip() for sentence in cleaned.split(" . ")) or not cleaned
    assert not cleaned or cleaned.endswith(" .")
    points = [match.start() for match in re.finditer(r"\.", f" {cleaned} ")]
    assert all(re.match(r" \. |[\d ]\.\d", f" {cleaned} "[at - 1 : at + 2]) for at in points)


@given(st.floats(0.1, 99, allow_nan=False).map(lambda value: f"{value:.1f}"))
def test_fixed_keeps_every_measurement(number: str) -> None:
    assert f" {number} cm " in clean(f"1. A nodule of {number} cm. 2. Nothing else.", "fixed")


@given(TEXTS)
def test_none_changes_nothing(report: str) -> None:
    assert clean(report, "none") == report


def test_unknown_cleaner_is_named() -> None:
    with pytest.raises(UserError, match="'strict' does not exist; choose one of legacy, legacy_mimic, fixed, none"):
        clean("text", "strict")
    assert all(isinstance(clean("text", cleaner), str) for cleaner in CLEANERS)
