"""Sections of a free-text radiology report: MIMIC-CXR's, or a user's own.

A heading stands at the start of a line, in capitals, closed by a colon. The rules are our own. They mean to agree with
the parser of MIMIC-CXR's makers (`txt/section_parser.py` of MIT-LCP/mimic-cxr) on which reports have findings;
docs/data/mimic-cxr.md lists where they differ and why. They were never run on a true report of MIMIC-CXR.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Literal

#: Where `Sections.findings` come from.
Origin = Literal["heading", "combined", "last_paragraph", ""]

_HEADING = re.compile(r"^[ \t]*([A-Z][A-Z ()/,&.-]{1,60}?)[ \t]*:", re.MULTILINE)
#: Titles and drawn lines are no text.
_TITLE = re.compile(
    r"^[ \t]*(?:FINAL REPORT\b.*|WET READ\b(?!:).*|(?:FINAL )?ADDENDUM[ \t]*:?[ \t]*|_{8,}[ \t]*)$", re.MULTILINE
)
_ADDENDUM = re.compile(r"^[ \t]*(?:FINAL )?ADDENDUM\b[ \t]*:?", re.MULTILINE)
_FINAL = re.compile(r"^[ \t]*FINAL REPORT\b", re.MULTILINE)
_PARAGRAPH = re.compile(r"\n[ \t]*\n")

#: Words that decide what a heading opens, wherever they stand in it; the first that is there counts.
_WORDS = (
    ("addendum", ("ADDENDUM",)),
    ("other", ("PROVISIONAL", "PRELIMINARY", "WET READ")),
    ("impression", ("IMPRESSION", "CONCLUSION", "OPINION", "SUMMARY")),
    ("findings", ("FINDING", "OBSERVATIONS")),
    ("indication", ("INDICATION", "HISTORY", "REASON FOR", "CLINICAL")),
    ("other", ("COMPARISON", "TECHNIQUE", "EXAMINATION", "RECOMMENDATION", "NOTIFICATION", "REFERENCE EXAM")),
)

#: A heading that says how the image was taken stands for the findings that follow: "CHEST, TWO VIEWS: ...".
_STUDY = re.compile(r"\b(?:CHEST|PORTABLE|RADIOGRAPHS?|VIEWS?|FRONTAL|LATERAL|LAT|PA|AP|RIBS|UPRIGHT)\b")

#: Headings within the findings of a structured report; they stay with their text.
_PLACES = re.compile(
    r"\b(?:HEART|CARDIAC|CARDIOMEDIASTINAL|LUNGS?|PLEURAL?|BONES?|OSSEOUS|MEDIASTINUM|HILA|DIAPHRAGM|TUBES?|LINES?|"
    r"CATHETERS?|DEVICES?|ABDOMEN|SOFT TISSUES|OTHER)\b"
)

#: Titles of whole words that a slip of the keyboard may have changed.
_MAIN = ("FINDINGS", "IMPRESSION", "INDICATION", "CONCLUSION", "COMPARISON")


@dataclass(frozen=True)
class Sections:
    """Text of the sections, lines joined; "" where there is none.

    Attributes:
        findings: the findings, or what stands for them (`origin`).
        impression: impression or conclusion.
        indication: indication, history or reason for the examination.
        addendum: what was added later; it belongs to none of the others.
        origin: where `findings` come from: "heading" (their own section, or one headed by the views taken), "combined"
            (one section of findings and impression), "last_paragraph" (`split_sections`), or "" (there are none).
    """

    findings: str
    impression: str
    indication: str
    addendum: str
    origin: Origin


def split_sections(report: str) -> Sections:
    """Part a report into its sections.

    * Sections of one kind that occur more than once are joined in their order.
    * "FINDINGS AND IMPRESSION" counts as findings where there are none of their own.
    * Headings of places ("LUNGS:") stay in the section that they stand in, and open the findings elsewhere.
    * An addendum before the final report, or behind everything, is kept apart, and so is a preliminary reading.
    * A report with neither gives as findings what stands below the last heading's own paragraph ("last paragraph").

    Args:
        report: the whole text, with its line breaks.
    """
    body, addendum = _without_addenda(report.replace("\r\n", "\n").replace("\r", "\n"))
    parts: dict[str, list[str]] = {}
    for kind, text in _parts(_TITLE.sub("", body)):
        parts.setdefault(kind, []).append(text)
    own, combined, impression, indication = (
        " ".join(filter(None, parts.get(kind, []))) for kind in ("findings", "combined", "impression", "indication")
    )
    if own:
        return Sections(own, " ".join(filter(None, (impression, combined))), indication, addendum, "heading")
    if combined:
        return Sections(combined, impression, indication, addendum, "combined")
    last = "" if impression else _last_paragraph(body)
    return Sections(last, impression, indication, addendum, "last_paragraph" if last else "")


def has_headings(report: str) -> bool:
    """Whether findings, impression or indication stand under a heading."""
    return any(kind not in ("", "other", "addendum") for kind, _ in _parts(report))


def _parts(body: str) -> list[tuple[str, str]]:
    """Kind and text of every section, in order; what stands before the first heading is left out."""
    parts: list[tuple[str, str]] = []
    kind, start = "", len(body)
    for match in _HEADING.finditer(body):
        opened = _kind(match[1])
        within = {"place": ("findings", "combined", "impression"), "study": ("findings",)}.get(opened, ())
        if kind in within:
            continue
        if kind:
            parts.append((kind, _joined(body[start : match.start()])))
        kind = "findings" if opened in ("place", "study") else opened
        start = match.start() if opened == "place" else match.end()
    if kind:
        parts.append((kind, _joined(body[start:])))
    return parts


@lru_cache(maxsize=4096)
def _kind(heading: str) -> str:
    """What a heading opens: a section, "place", "study", or "other" for a section that is not kept."""
    heading = " ".join(heading.split())
    for kind, words in _WORDS:
        if any(word in heading for word in words):
            return "combined" if kind == "impression" and "FINDING" in heading else kind
    meant = get_close_matches(heading, _MAIN, n=1, cutoff=0.87)
    if meant:
        return _kind(meant[0])
    if _STUDY.search(heading):
        return "study"
    return "place" if _PLACES.search(heading) else "other"


def _without_addenda(report: str) -> tuple[str, str]:
    """The report without its addenda, and these."""
    addenda = []
    while (start := _ADDENDUM.search(report)) is not None:
        end = _end_of_addendum(report, start)
        addenda.append(_joined(_TITLE.sub("", report[start.end() : end])))
        report = report[: start.start()] + report[end:]
    return report, " ".join(filter(None, addenda))


def _end_of_addendum(report: str, start: re.Match[str]) -> int:
    """Where the final report follows; the end where the report stands before; else the next heading."""
    final = _FINAL.search(report, start.end())
    if final is not None:
        return final.start()
    if any(kind in ("findings", "combined", "impression") for kind, _ in _parts(report[: start.start()])):
        return len(report)
    heading = _HEADING.search(report, start.end())
    return len(report) if heading is None else heading.start()


def _last_paragraph(body: str) -> str:
    """What stands below the last heading's own paragraph; of a report without headings, all but a title."""
    final = list(_FINAL.finditer(body))
    body = _TITLE.sub("", body[final[-1].start() :] if final else body)
    headings = list(_HEADING.finditer(body))
    last = body[headings[-1].end() :] if headings else body
    paragraphs = [joined for joined in map(_joined, _PARAGRAPH.split(last)) if joined or headings]
    titled = bool(headings) or (len(paragraphs) > 1 and not paragraphs[0].endswith("."))
    return " ".join(filter(None, paragraphs[1:] if titled else paragraphs))


def _joined(text: str) -> str:
    return " ".join(text.split())
