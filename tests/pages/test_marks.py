"""Where a report is marked, and that marks change no word of it."""

import re

import pytest
from tests.analysis.test_agreement import OURS, REFERENCE, REPORT, TRUE, labels
from tests.pages.html_reader import Reader

from crossray.analysis.agreement import Agreement, Mark, marks_of_generated, marks_of_reference
from crossray.pages.marks import marked_text
from crossray.text.display import readable


def marked_words(html: str) -> list[tuple[str, str]]:
    """Class and words of every mark, in order, the sign and what only screen readers say left out."""
    html = re.sub(r'<span class="(sign|unseen)".*?</span>', "", html)
    return re.findall(r'<(?:mark|span) class="(\w+)" title="[^"]*">(.*?)</(?:mark|span)>', html)


def test_words_of_a_report_are_marked_by_what_the_reference_says() -> None:
    html = marked_text(REPORT, marks_of_generated(OURS, Agreement.between(TRUE, OURS)))
    assert marked_words(html) == [
        ("agree", "Enlarged heart"),
        ("agree", "Pulmonary edema"),
        ("false", "effusion"),
        ("missed", "fracture"),  # denied, although the reference has it
    ]
    assert "uncertain in the reference" in html


def test_words_of_a_reference_are_marked_by_who_found_them() -> None:
    nothing = labels("clear")
    agreements = {"a": Agreement.between(TRUE, OURS), "b": Agreement.between(TRUE, nothing)}
    html = marked_text(REFERENCE, marks_of_reference(TRUE, agreements))
    assert marked_words(html) == [
        ("partly", "heart is enlarged"),
        ("partly", "edema"),
        ("negative", "effusion"),
        ("missed", "rib fracture"),
    ]
    assert "found by a; missed by b" in html
    alone = marked_text(REFERENCE, marks_of_reference(TRUE, {"a": agreements["a"]}))
    assert [kind for kind, _ in marked_words(alone)] == ["agree", "agree", "negative", "missed"]


@pytest.mark.parametrize("text", [REPORT, "Two spaces  and\na line . ( mild ) <unk> t12", ""])
def test_marks_change_no_word(text: str) -> None:
    marks = [Mark(0, 5, "agree", "one"), Mark(3, 20, "false", "two"), Mark(30, 31, "negative", "three")]
    html = re.sub(r'<span class="(sign|unseen)".*?</span>', "", marked_text(text, marks))
    assert "".join(Reader(html).text) == readable(text)


def test_where_marks_overlap_the_graver_wins_and_both_are_said() -> None:
    text = "large heart with edema"
    html = marked_text(text, [Mark(0, 11, "agree", "heart"), Mark(6, 22, "false", "edema")])
    assert marked_words(html) == [("agree", "Large"), ("false", "heart"), ("false", "with edema")]
    assert 'title="edema; heart"' in html


def test_a_hostile_report_stays_text() -> None:
    text = "<script>alert(1)</script> <img onerror=x> & cardiomegaly"
    html = marked_text(text, [Mark(0, len(text), "false", '<b>"')])
    assert [tag for tag, _ in Reader(html).tags] == ["mark", "span", "span"]
    assert "<script>alert(1)</script> <img onerror=x> & cardiomegaly" in "".join(Reader(html).text)
