"""Sections of invented reports in the manners in which MIMIC-CXR's are written."""

import re
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossray.data.sources.sections import has_headings, split_sections
from crossray.text.lines import unified

TYPICAL = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old with cough  // pneumonia?

 TECHNIQUE:  Chest PA and lateral

 COMPARISON:  ___

 FINDINGS:

 The lungs are clear.  Ratio: normal.
 No effusion.

 IMPRESSION:

 Nothing acute.
""".replace("\n\n", "\n \n")  # as in MIMIC-CXR, blank lines hold a blank


def test_a_typical_report() -> None:
    sections = split_sections(TYPICAL)
    assert sections.findings == "The lungs are clear. Ratio: normal. No effusion."
    assert sections.impression == "Nothing acute."
    assert sections.indication == "___ year old with cough // pneumonia?"
    assert (sections.addendum, sections.origin) == ("", "heading")
    assert split_sections(TYPICAL.replace("\n", "\r\n")) == sections
    assert split_sections(TYPICAL.replace("\n", "\r")) == sections


@pytest.mark.parametrize(
    ("report", "findings", "impression", "origin"),
    [
        ("FINDINGS AND IMPRESSION: Clear.", "Clear.", "", "combined"),
        ("FINDINGS/IMPRESSION:\n Clear.", "Clear.", "", "combined"),
        ("FINDINGS AND IMPRESSION: Clear.\nFINDINGS: Large.", "Large.", "Clear.", "heading"),
        ("IMPRESSION AND RECOMMENDATION: Clear.", "", "Clear.", ""),
        ("CONCLUSION: Clear.", "", "Clear.", ""),
        ("FINDINGS: Clear.\nIMPRESSION: Good.\nFINDINGS: Bones too.", "Clear. Bones too.", "Good.", "heading"),
        ("FINDINGS:\nHEART: Normal.\nLUNGS: Clear.\nNOTE: x.", "HEART: Normal. LUNGS: Clear. NOTE: x.", "", "heading"),
        ("FINAL REPORT\n HISTORY: x.\n \n TECHNIQUE: y.\n \n Lungs\n clear.\n", "Lungs clear.", "", "last_paragraph"),
        ("Lungs are clear.", "Lungs are clear.", "", "last_paragraph"),
        ("CHEST, TWO VIEWS:  Clear.\n IMPRESSION: Good.", "Clear.", "Good.", "heading"),
        ("CHEST RADIOGRAPH:\n \n COMPARISON: x.\n \n Clear.\n \n Large.", "Clear. Large.", "", "last_paragraph"),
        ("FINDINGS:\n PA AND LATERAL: Clear.\n NOTIFICATION: x.", "PA AND LATERAL: Clear.", "", "heading"),
        ("HISTORY: x.\nLUNGS: Clear.\nHEART: Large.\nIMPRESSION:\nLUNGS: Good.",
         "LUNGS: Clear. HEART: Large.", "LUNGS: Good.", "heading"),
        ("FINDGINGS: Clear.\nIMPERSSION: Good.", "Clear.", "Good.", "heading"),
        ("IMPRESSION: Good.\nCOMPRESSION: x.", "", "Good. COMPRESSION: x.", ""),
        ("PROVISIONAL FINDINGS IMPRESSION (PFI): x.\nFINDINGS: Clear.", "Clear.", "", "heading"),
        ("WET READ: ___ 1:00 AM\n Bad.\n ________________\n FINAL REPORT\n FINDINGS: Clear.", "Clear.", "", "heading"),
        ("IMPRESSION: Good.\nWET READ: ___ 1:00 AM\n Bad.", "", "Good.", ""),
        ("FINAL REPORT\n AP CHEST, ___\n \n Lungs clear.\n", "Lungs clear.", "", "last_paragraph"),
        ("HISTORY: x.", "", "", ""),
        ("", "", "", ""),
        ("FINAL REPORT\n", "", "", ""),
        ("FINDINGS:\n \nIMPRESSION: Good.", "", "Good.", ""),
    ],
)  # fmt: skip
def test_other_manners(report: str, findings: str, impression: str, origin: str) -> None:
    sections = split_sections(report)
    assert (sections.findings, sections.impression, sections.origin) == (findings, impression, origin)


def test_addenda_stay_apart() -> None:
    before = split_sections(" WET READ: ___ 1:00 AM\n\n FINAL ADDENDUM\n ADDENDUM:  A nodule was added.\n" + TYPICAL)
    assert "nodule" in before.addendum
    assert before.findings == split_sections(TYPICAL).findings
    after = split_sections(TYPICAL + "\n ADDENDUM:\n A nodule was added.\n")
    assert after.addendum == "A nodule was added."
    assert after.impression == "Nothing acute."
    both = split_sections("FINAL ADDENDUM\n One.\n" + TYPICAL + "\n ADDENDUM:\n Two.\n IMPRESSION: Three.\n")
    assert both.addendum == "One. Two. IMPRESSION: Three."
    assert (both.findings, both.impression) == (before.findings, "Nothing acute.")
    first = split_sections("ADDENDUM: One.\n \n FINDINGS: Clear.")
    assert (first.findings, first.addendum) == ("Clear.", "One.")


def test_lower_case_words_with_a_colon_are_no_headings() -> None:
    assert not has_headings("Ratio: normal. Left lung: clear.")
    assert has_headings("x\n FINDINGS: clear.")


@pytest.mark.parametrize(
    "gap", [" ", "\\n", "<br/>", "</p><p>", "\\.br\\", "\x0b", "\x0c", "\u2029", "\r", "_x000D_\n", "&#10;"]
)
def test_line_breaks_that_an_export_writes_otherwise(gap: str) -> None:
    sections = split_sections(f"INDICATION: Fever.{gap}FINDINGS: Small effusion.{gap}IMPRESSION: Effusion.")
    assert (sections.indication, sections.findings, sections.impression) == ("Fever.", "Small effusion.", "Effusion.")
    assert sections.remainder == ""


@pytest.mark.parametrize(
    ("findings", "impression"),
    [
        ("Findings: {}\nImpression: {}", ""),
        ("findings: {} impression: {}", ""),
        ("**FINDINGS:** {}\n\n**IMPRESSION:** {}", ""),
        ("- FINDINGS: {}\n- IMPRESSION: {}", ""),
        ("## Findings\n{}\n## Impression\n{}", ""),
        ("FINDINGS\uff1a{}\nIMPRESSION\uff1a{}", ""),
        ("TECHNIQUE: PA COMPARISON: None FINDINGS: {} IMPRESSION: {}", "PA None"),
        ("Befund: {}\nBeurteilung: {}", ""),
        ("HALLAZGOS: {}\nIMPRESI\u00d3N: {}", ""),
        ("R\u00c9SULTATS : {}\nCONCLUSION : {}", ""),
    ],
)
def test_headings_as_people_write_them(findings: str, impression: str) -> None:
    sections = split_sections(findings.format("Lungs clear.", "Good."))
    assert (sections.findings, sections.impression) == ("Lungs clear.", "Good.")
    assert sections.remainder == impression


def test_parts_of_structured_findings_stay_with_their_text() -> None:
    sections = split_sections("FINDINGS:\nAIRWAY: Patent.\nGASTRIC BUBBLE: Large.\nCOMPARISON: Old.\nFOO: x")
    assert sections.findings == "AIRWAY: Patent. GASTRIC BUBBLE: Large."
    assert sections.remainder == "Old. x"
    assert sections.unknown == ("FOO",)
    assert sections.extra() == {"unread": {"words": 2, "headings": ["FOO"]}}


@pytest.mark.parametrize(
    "report",
    [
        "FINDINGS: Clear.\nElectronically signed by Dr X on Monday",
        "REPORT: Clear.\n\nSIGNED BY: Dr X\n\nChecked on Monday",
        "Lungs are Clear.\nDICTATED BY: Dr X",
    ],
)
def test_signatures_are_no_findings(report: str) -> None:
    sections = split_sections(report)
    assert sections.findings.endswith("Clear.")
    assert "Dr X" in sections.remainder


def test_a_break_that_ends_a_statement_stays_an_end() -> None:
    report = "FINDINGS:\nNo consolidation\n- Large right effusion or\nthickening\n- Chest tube\nIMPRESSION: x"
    assert split_sections(report).findings == "No consolidation. Large right effusion or thickening. Chest tube"


@pytest.mark.parametrize(
    "heading",
    [
        "{} - ", "{} -- ", "{} \u2013 ", "{}; ", "{} = ", "{}. ", "{}... ", "{} > ", "{}\t", "{} ",
        "[{}]\n", "({}):\n", "__{}__:\n", "== {} ==\n", "| {}: |\n", "<b>{}</b>: ", "<strong>{}</strong><br>",
        "1. {}:\n", "2) {}\n", "\u25a0 {}: ", "\ufeff{}: ", "\u200b{}:\u00a0", "{}\n-----\n", "{}\n=====\n",
    ],
)  # fmt: skip
def test_headings_in_other_shapes(heading: str) -> None:
    """Other signs than a colon, brackets, marks, numbers, and characters that show nothing."""
    report = "".join(
        f"{heading.format(name)}{text}\n\n"
        for name, text in (("INDICATION", "Cough."), ("FINDINGS", "Lungs are clear."), ("IMPRESSION", "No change."))
    )
    found = split_sections(report)
    assert (found.indication, found.findings, found.impression) == ("Cough.", "Lungs are clear.", "No change.")


@pytest.mark.parametrize(
    ("report", "findings", "impression"),
    [
        ("FINDINGS:~Lungs are clear.~IMPRESSION:~No change.", "Lungs are clear.", "No change."),
        ("FINDINGS:|Lungs are clear.|IMPRESSION:|No change.", "Lungs are clear.", "No change."),
        ("FINDINGS: A ~3 cm mass, ~2 cm nodule.", "A ~3 cm mass, ~2 cm nodule.", ""),
        ("F I N D I N G S: Lungs are clear.\nI M P R E S S I O N: No change.", "Lungs are clear.", "No change."),
        ("FINDINGS Lungs are clear. IMPRESSION No change.", "Lungs are clear.", "No change."),
        ("Radiological findings: Lungs are clear.\nFinal impression: No change.", "Lungs are clear.", "No change."),
        ("FINDINGS: See impression.\nIMPRESSION: No change.", "", "No change."),
        ("FINDINGS:\n\nSee impression.", "", ""),
        ("IMPRESSION:\n\nAs above.", "", ""),
        ("FINDINGS CONSISTENT WITH PNEUMONIA.", "FINDINGS CONSISTENT WITH PNEUMONIA.", ""),
    ],
)
def test_separators_spaced_letters_and_pointers(report: str, findings: str, impression: str) -> None:
    found = split_sections(report)
    assert (found.findings, found.impression) == (findings, impression)


PIECES = ["FINDINGS:", "Findings:", "IMPRESSION:", "Impression", "INDICATION:", "ADDENDUM:", "FINAL REPORT",
          "WET READ: x", "RESULT:", "INTERPRETATION:", "FINDINGS AND IMPRESSION:", "LUNGS:", "TECHNIQUE:", "SCHEMA:",
          "CHEST, TWO VIEWS:",
          "Electronically signed by", "No effusion.", "large", "Mass", "alpha", "Beta.", "T8", "3.5 cm", "____________",
          "-", "*", "1."]  # fmt: skip
GAPS = [" ", "\n", "\n\n", "\r\n", "<br>", "\\.br\\", " \n  "]


@given(st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(GAPS)), max_size=14))
@settings(max_examples=600, deadline=None)
def test_no_word_vanishes_and_none_doubles(pieces: list[tuple[str, str]]) -> None:
    report = "".join(piece + gap for piece, gap in pieces)
    found = split_sections(report)
    texts = (found.findings, found.impression, found.indication, found.addendum, found.remainder, *found.headings)
    assert Counter(re.findall(r"\w+", unified(report).replace("_", " "))) == Counter(
        re.findall(r"\w+", " ".join(texts).replace("_", " "))
    )


@pytest.mark.parametrize(
    "piece",
    [
        "ADDENDUM:\n",
        "ADDENDUM: x FINDINGS: y. ",
        "A. ",
        "*",
        "*A",
        "- ",
        "A B: ",
        "FINDINGS:\n\n \n",
        "FINAL REPORT\nADDENDUM\n",
    ],
)
def test_hostile_reports_take_few_steps(piece: str) -> None:
    """Steps are counted, not seconds: three times the text takes about three times the steps."""

    def steps(report: str) -> int:
        count = 0

        def tracer(*_: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(tracer)
        try:
            split_sections(report)
        finally:
            sys.setprofile(None)
        return count

    assert steps(piece * 900) < 4 * steps(piece * 300) + 1000
