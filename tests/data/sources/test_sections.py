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
        ("FINDINGS AND IMPRESSION: Clear.", "Clear.", "", "heading"),
        ("FINDINGS/IMPRESSION:\n Clear.", "Clear.", "", "heading"),
        ("CONCLUSION: Clear.", "", "Clear.", ""),
        ("FINDINGS: Clear.\nIMPRESSION: Good.\nFINDINGS: Bones too.", "Clear. Bones too.", "Good.", "heading"),
        ("FINDINGS:\nHEART: Normal.\nLUNGS: Clear.\nNOTE: x.", "HEART: Normal. LUNGS: Clear.", "", "heading"),
        ("FINAL REPORT\n HISTORY: x.\n \n TECHNIQUE: y.\n \n Lungs\n clear.\n", "Lungs clear.", "", "last_paragraph"),
        ("Lungs are clear.", "Lungs are clear.", "", "last_paragraph"),
        ("CHEST RADIOGRAPH:  Lungs are clear.", "Lungs are clear.", "", "last_paragraph"),
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


def test_lower_case_words_with_a_colon_are_no_headings() -> None:
    assert not has_headings("Findings: clear. Impression: good.")
    assert has_headings("x\n FINDINGS: clear.")
