"""Sections of invented reports in the manners in which MIMIC-CXR's are written."""

import pytest

from crossray.data.sources.sections import has_headings, split_sections

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
        ("FINDINGS:\nHEART: Normal.\nLUNGS: Clear.\nNOTE: x.", "HEART: Normal. LUNGS: Clear.", "", "heading"),
        ("FINAL REPORT\n HISTORY: x.\n \n TECHNIQUE: y.\n \n Lungs\n clear.\n", "Lungs clear.", "", "last_paragraph"),
        ("Lungs are clear.", "Lungs are clear.", "", "last_paragraph"),
        ("CHEST, TWO VIEWS:  Clear.\n IMPRESSION: Good.", "Clear.", "Good.", "heading"),
        ("CHEST RADIOGRAPH:\n \n COMPARISON: x.\n \n Clear.\n \n Large.", "Clear. Large.", "", "last_paragraph"),
        ("FINDINGS:\n PA AND LATERAL: Clear.\n NOTIFICATION: x.", "PA AND LATERAL: Clear.", "", "heading"),
        ("HISTORY: x.\nLUNGS: Clear.\nHEART: Large.\nIMPRESSION:\nLUNGS: Good.",
         "LUNGS: Clear. HEART: Large.", "LUNGS: Good.", "heading"),
        ("FINDGINGS: Clear.\nIMPERSSION: Good.", "Clear.", "Good.", "heading"),
        ("IMPRESSION: Good.\nCOMPRESSION: x.", "", "Good.", ""),
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
    assert not has_headings("Findings: clear. Impression: good.")
    assert has_headings("x\n FINDINGS: clear.")
