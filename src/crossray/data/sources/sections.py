"""Sections of a free-text radiology report: MIMIC-CXR's, or a user's own.

A heading is the start of a line, in capitals, closed by a colon. Which headings there are is taken from the published
parser of MIMIC-CXR's makers (`create_section_files.py`, MIT-LCP/mimic-cxr), and so is the last resort for a report
without any: its last paragraph.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

_HEADING = re.compile(r"^[ \t]*([A-Z][A-Z ()/,&.-]{2,60}?)[ \t]*:", re.MULTILINE)
#: A title stands on a line of its own and is no text.
_TITLE = re.compile(r"^[ \t]*(?:FINAL REPORT|WET READ.*|FINAL ADDENDUM|ADDENDUM)[ \t]*:?[ \t]*$", re.MULTILINE)
_ADDENDUM = re.compile(r"^[ \t]*(?:FINAL )?ADDENDUM\b[ \t]*:?", re.MULTILINE)
_FINAL = re.compile(r"^[ \t]*FINAL REPORT\b[ \t]*:?", re.MULTILINE)
_PARAGRAPH = re.compile(r"\n[ \t]*\n")

#: Which section a heading opens, by its beginning; the first that fits. Other headings open a section that is not kept.
_KINDS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("findings", lambda h: h.startswith("FINDING") or h in ("OBSERVATIONS", "CHEST FINDINGS")),
    ("impression", lambda h: h.startswith(("IMPRESSION", "CONCLUSION", "OPINION", "FINAL IMPRESSION", "SUMMARY"))),
    ("indication", lambda h: h.startswith(("INDICATION", "REASON FOR", "CLINICAL", "HISTORY", "PATIENT HISTORY"))),
)

#: Headings that are words of a sentence about a place: they stay in the section that they stand in.
_INSIDE = (
    "HEART", "LUNGS", "LUNG", "PLEURA", "BONES", "CHEST", "MEDIASTINUM", "TUBES", "LINES", "TUBES AND LINES",
    "LINES AND TUBES", "LINES/TUBES", "OTHER", "ABDOMEN", "SOFT TISSUES", "AP", "PA", "PA AND LATERAL",
)  # fmt: skip


@dataclass(frozen=True)
class Sections:
    """Text of the sections, lines joined; "" where there is none.

    Attributes:
        findings: the section of that name, one of findings and impression together, or the last paragraph.
        impression: impression or conclusion.
        indication: indication, history or reason for the examination.
        addendum: what was added later; it belongs to none of the others.
        origin: where `findings` comes from: "heading", "last_paragraph" or "" (the report has other headings only).
    """

    findings: str
    impression: str
    indication: str
    addendum: str
    origin: str


def split_sections(report: str) -> Sections:
    """Part a report into its sections.

    * Sections of one kind that occur more than once are joined in their order.
    * An addendum before the final report, or behind everything, is kept apart.
    * "FINDINGS AND IMPRESSION" counts as findings.
    * A report with neither findings nor impression gives its last paragraph as findings.

    Args:
        report: the whole text, with its line breaks.
    """
    body, addendum = _without_addendum(report.replace("\r\n", "\n").replace("\r", "\n"))
    body = _TITLE.sub("", body)
    parts: dict[str, list[str]] = {}
    for kind, text in _parts(body):
        parts.setdefault(kind, []).append(text)
    findings, impression, indication = (
        " ".join(filter(None, parts.get(kind, []))) for kind in ("findings", "impression", "indication")
    )
    origin = "heading" if findings else ""
    if not findings and not impression:
        findings = _last_paragraph(body)
        origin = "last_paragraph" if findings else ""
    return Sections(findings, impression, indication, addendum, origin)


def has_headings(report: str) -> bool:
    """Whether findings, impression or indication stand under a heading."""
    return any(kind for kind, _ in _parts(report))


def _parts(body: str) -> list[tuple[str, str]]:
    """Kind ("" for what is not kept) and text of every section."""
    headings = [(match, _kind(match[1])) for match in _HEADING.finditer(body) if match[1].strip() not in _INSIDE]
    starts = [match.start() for match, _ in headings] + [len(body)]
    return [(kind, _joined(body[match.end() : end])) for (match, kind), end in zip(headings, starts[1:], strict=True)]


def _kind(heading: str) -> str:
    heading = " ".join(heading.split())
    return next((kind for kind, fits in _KINDS if fits(heading)), "")


def _without_addendum(report: str) -> tuple[str, str]:
    start = _ADDENDUM.search(report)
    if start is None:
        return report, ""
    final = _FINAL.search(report, start.end())
    end = final.start() if final else len(report)
    return report[: start.start()] + "\n" + report[end:], _joined(report[start.end() : end])


def _last_paragraph(body: str) -> str:
    paragraphs = [_joined(part) for part in _PARAGRAPH.split(body)]
    paragraphs = [part for part in paragraphs if part]
    if not paragraphs:
        return ""
    last = paragraphs[-1]
    heading = _HEADING.match(last)
    return last if heading is None or heading[1].strip() in _INSIDE else last[heading.end() :].strip()


def _joined(text: str) -> str:
    return " ".join(text.split())
