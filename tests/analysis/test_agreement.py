"""What two reports agree on, and where it is marked in them."""

import re

import pytest
from tests.pages.html_reader import Reader

from crossray.analysis.agreement import (
    Agreement,
    Mark,
    marked_text,
    marks_of_generated,
    marks_of_reference,
)
from crossray.text.display import readable
from crossray.text.observations import OBSERVATIONS, STATUSES, Evidence, ReportLabels


def labels(text: str, *said: tuple[str, str, str]) -> ReportLabels:
    """Labels of a text: (observation, status, words of the text that say so)."""
    statuses = {observation: status for observation, status, _ in said}
    evidence = [
        Evidence(observation, status, text.index(words), text.index(words) + len(words))
        for observation, status, words in said
    ]
    return ReportLabels(tuple(STATUSES.index(statuses.get(name, "blank")) for name in OBSERVATIONS), tuple(evidence))


REFERENCE = "the heart is enlarged . possible edema . no effusion . old rib fracture ."
TRUE = labels(
    REFERENCE,
    ("cardiomegaly", "positive", "heart is enlarged"),
    ("edema", "uncertain", "edema"),
    ("pleural_effusion", "negative", "effusion"),
    ("fracture", "positive", "rib fracture"),
)
REPORT = "enlarged heart . pulmonary edema . small effusion . no fracture ."
OURS = labels(
    REPORT,
    ("cardiomegaly", "positive", "enlarged heart"),
    ("edema", "positive", "pulmonary edema"),
    ("pleural_effusion", "positive", "effusion"),
    ("fracture", "negative", "fracture"),
)


def marked_words(html: str) -> list[tuple[str, str]]:
    """Class and words of every mark, in order, the sign and what only screen readers say left out."""
    html = re.sub(r'<span class="(sign|unseen)".*?</span>', "", html)
    return re.findall(r'<(?:mark|span) class="(\w+)" title="[^"]*">(.*?)</(?:mark|span)>', html)


def test_positive_and_uncertain_are_stated_and_denied_is_not() -> None:
    agreement = Agreement.between(TRUE, OURS)
    assert agreement.agreed == {"cardiomegaly": ("positive", "positive"), "edema": ("uncertain", "positive")}
    assert agreement.false_alarms == {"pleural_effusion": "positive"}
    assert agreement.missed == {"fracture": "positive"}
    assert agreement.balance == 0


def test_no_finding_is_left_out() -> None:
    normal = labels("clear", ("no_finding", "positive", "clear"))
    assert Agreement.between(normal, OURS).missed == {}
    assert Agreement.between(TRUE, normal).false_alarms == {}


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
