"""Splits a free-text radiology report into sections, whether from MIMIC-CXR, a table, or a language model.

A heading is at the start of a line, in capitals, and ends with a colon. Well-known headings (findings, impression,
indication, comparison, ...) may have any case, be bold, or follow the end of a sentence, as in exports without line
breaks. No word is lost: text outside the sections is the remainder, and is counted. The rules are CrossRay's own. They
should agree with the parser of MIMIC-CXR's authors (`txt/section_parser.py` of MIT-LCP/mimic-cxr) on which reports have
findings; docs/data/mimic-cxr.md lists the differences and their reasons. They have never been run on an actual report
of MIMIC-CXR.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from crossray.data.sources.headings import NAMES, Kind, exact_kind, kind_of, stands_alone
from crossray.text.lines import one_line, unified

#: Origins of `Sections.findings`.
Origin = Literal["heading", "combined", "preamble", "last_paragraph", ""]

#: Maximum length of the name of a heading in messages, in characters.
LONGEST_NAME = 40

_MARKS = r"(?:[ \t>*#_=|\[(\u2022\u2013\u25a0\u25aa\u25cf-]|\(?\d{1,2}[.)][ \t])*+"
#: Closing brackets and marks after a name.
_CLOSED = r"[ \t*_=|\])]*"
#: A name with a colon at the start of a line; a colon between digits is a time of day.
_LINE = re.compile(
    rf"{_MARKS}(?P<name>[^\W\d_][\w \t()/,&.'-]{{1,60}}?){_CLOSED}(?:(?<!\d)[:\uff1a]|[:\uff1a](?!\d))[ \t*|\]]*"
)
#: A line that consists of a name only.
_ALONE = re.compile(rf"{_MARKS}(?P<name>[^\W\d_](?:[^\W\d_]|[ /&]){{3,40}})[ \t*#:.=_|\])-]*")
_KNOWN = "|".join(re.escape(name) for name in NAMES)
#: A known name at the start of a line, followed by a mark other than a colon, or in capitals before a sentence.
_SIGNED = re.compile(
    rf"{_MARKS}(?:(?P<name>(?i:{_KNOWN}))(?:\t|[ \t]*(?:[-\u2013\u2014]{{1,3}}(?=[ \t])|\.{{1,3}}(?=[ \tA-Z])|[;=>]+))"
    rf"[ \t]*|(?P<caps>{_KNOWN})[ \t]+(?=[A-Z][a-z]))"
)
_MAIN = "|".join(re.escape(name) for name in NAMES if stands_alone(name))
#: A known name after a sentence in any case, and in capitals after a space; any name in capitals after a sentence.
_WITHIN = re.compile(
    rf"(?:(?<=[.!?*#])[\"')\]]?[ \t*#]{{0,8}}+(?P<any>(?i:{_KNOWN}))[ \t*]{{0,8}}+[:\uff1a][ \t*]*+)"
    rf"|(?:(?<=\s)(?P<caps>{_KNOWN})[ \t]{{0,8}}+[:\uff1a][ \t*]*+)"
    rf"|(?:(?<=[.!?])[ \t]{{1,8}}+(?P<bare>{_MAIN})[ \t]{{1,8}}+(?=[A-Z][a-z]))"
    r"|(?:(?<=[.!?])[ \t]{1,8}+(?P<other>[A-Z][A-Z ()/,&-]{3,40})[:\uff1a](?!\d)[ \t]*)"
)
_TITLE = re.compile(r"[ \t]*(?P<title>FINAL REPORT|WET READ)\b(?!:).*|[ \t]*_{8,}[ \t]*$")
_ADDENDUM = re.compile(r"[ \t]*(?:FINAL )?ADDENDUM\b[ \t]*:?[ \t]*", re.IGNORECASE)
#: Signatures; the text after them is not part of a section.
_SIGNATURE = re.compile(
    r"[ \t]*(?:this report (?:was|has been) )?(?:electronically|digitally) (?:signed|verified|authenticated|approved)\b"
    r"|[ \t]*(?:signed|dictated|transcribed|verified|reviewed|interpreted|reported) (?:and \w+ )?by\b"
    r"|[ \t]*(?:elektronisch signiert|firmado electr|sign[e\u00e9] [e\u00e9]lectroniquement)",
    re.IGNORECASE,
)
#: Byte order marks, zero-width characters and special spaces.
_INVISIBLE = dict.fromkeys([0xFEFF, 0x200B, 0x200C, 0x200D, 0x2060, 0xAD]) | dict.fromkeys([0xA0, 0x202F, 0x2007], " ")
#: Line separators of some systems; "~3 cm" is a size.
_SEPARATOR = re.compile(r"[~^|](?!\s?\d)")
#: A line drawn with characters.
_DRAWN = re.compile(r"(?m)^[ \t]*[-=~*]{3,}[ \t]*$")
#: Findings that only refer to another section.
_POINTER = re.compile(
    r"(?:please )?(?:see|refer to|as(?: (?:per|in|stated|described|noted))?) (?:the )?"
    r"(?:impression|findings|conclusion|report|summary|below|above)(?: (?:below|above|section|report))?[.!]?",
    re.IGNORECASE,
)
_PARAGRAPH = re.compile(r"\n[ \t]*\n")

#: Kinds of headings that do not end an open section: those of parts, and unknown ones.
_STAYS: dict[Kind, frozenset[str]] = {
    "place": frozenset({"findings", "combined", "impression", "result", "interpretation"}),
    "unknown": frozenset({"findings", "combined", "impression", "result", "interpretation"}),
    "study": frozenset({"findings", "result"}),
}


@dataclass(frozen=True)
class Sections:
    """The texts of a report's sections, each on one line (`crossray.text.lines.one_line`); "" for a missing section.

    Every word of the report is in exactly one of the texts or in `headings`.

    Attributes:
        findings: the findings, or text in place of them (`origin`).
        impression: impression or conclusion.
        indication: indication, history or reason for the examination.
        addendum: text that was added later and is not part of another section.
        origin: origin of `findings`: "heading" (their own section, or one headed by the views), "combined" (one section
            of findings and impression), "preamble" (sentences before the first heading, if no section contains
            findings), "last_paragraph" (`split_sections`), or "" (no findings).
        remainder: everything else: comparison, technique, preliminary readings, signatures, and text under unknown
            headings.
        headings: names of the headings that were removed from the text, in order.
        unknown: names of unknown headings, whose text is part of the remainder; shortened to `LONGEST_NAME` characters.
    """

    findings: str
    impression: str
    indication: str
    addendum: str
    origin: Origin
    remainder: str = ""
    headings: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def extra(self) -> dict[str, object]:
        """Return what a study keeps of the rest: its addendum, and the words and unknown headings of the remainder."""
        words = len(self.remainder.split())
        extra: dict[str, object] = {}
        if words or self.unknown:
            extra["unread"] = {"words": words, "headings": list(self.unknown)}
        if self.addendum:
            extra["addendum"] = self.addendum
        return extra


@dataclass
class _Part:
    """A part of the report: its kind, the name of its removed heading or "", and the range of its text."""

    kind: Kind | Literal[""]
    name: str
    start: int
    end: int = 0


@dataclass(frozen=True)
class _Event:
    """A possible end of a section: its kind and name, its start, and the start of the text after it."""

    kind: Kind | Literal["final", "title"]
    name: str
    start: int
    end: int


def split_sections(report: str) -> Sections:
    """Split a report into its sections, in linear time.

    * Sections of the same kind are joined in their order.
    * "FINDINGS AND IMPRESSION", "RESULT" and "REPORT" count as findings if there is no findings section.
    * Only headings of other known sections end the findings or the impression: "LUNGS:" and other words in capitals
      before a colon are kept with their text. Elsewhere, headings of places such as "LUNGS:" start the findings.
    * An addendum before the final report or at the end is separated, and so is a preliminary reading.
    * In a report without findings and impression, the findings are the text after the paragraph of the last heading
      ("last_paragraph").

    Args:
        report: the whole text, with line breaks of any kind, including HL7, HTML and escaped ones.
    """
    text = _lines(report)
    parts, addenda = _parts(text)
    texts = {id(part): one_line(text[part.start : part.end]) for part in (*parts, *addenda)}

    def joined(*kinds: str) -> str:
        return " ".join(filter(None, (texts[id(part)] for part in parts if part.kind in kinds)))

    own, combined, impression = joined("findings"), joined("combined"), joined("impression")
    pointers = [text for text in (own, impression) if _POINTER.fullmatch(text)]
    own, impression = ("" if text in pointers else text for text in (own, impression))
    result, interpretation = joined("result"), joined("interpretation")
    used = {"findings", "impression", "indication", "combined", "interpretation", "result"}
    origin: Origin = "heading" if own else ""
    findings, aside = own, ""
    if own:
        impression = " ".join(filter(None, (impression, combined, interpretation)))
        aside = result
    elif combined or result or interpretation:
        origin = "combined" if combined else "heading"
        findings = combined or result or interpretation
        rest = [result if combined else "", interpretation if combined or result else ""]
        impression = " ".join(filter(None, (impression, *rest)))
    remaining = [part for part in parts if part.kind not in used]
    pieces: dict[int, str] = {}
    if not findings:
        stand_in, origin, pieces = _stand_in(text, parts, texts, bool(impression))
        findings = stand_in
    remainder = [*pointers, aside, *(pieces.get(id(part), texts[id(part)]) for part in remaining)]
    return Sections(
        findings=findings,
        impression=impression,
        indication=joined("indication"),
        addendum=" ".join(filter(None, (texts[id(part)] for part in addenda))),
        origin=origin,
        remainder=" ".join(filter(None, remainder)),
        headings=tuple(part.name for part in sorted((*parts, *addenda), key=lambda part: part.start) if part.name),
        unknown=tuple(" ".join(part.name.split())[:LONGEST_NAME] for part in remaining if part.kind == "unknown"),
    )


def has_headings(report: str) -> bool:
    """Whether a report has a heading of a section that is kept, such as findings, impression or indication."""
    parts, _ = _parts(_lines(report))
    return any(part.kind not in ("", "other", "unknown") for part in parts)


def _lines(report: str) -> str:
    """Return the report with uniform line breaks, without invisible characters and drawn lines."""
    text = unified(report)
    if not text.isascii():
        text = text.translate(_INVISIBLE)
    if len(_SEPARATOR.findall(text)) > 1:
        text = _SEPARATOR.sub("\n", text)
    return _DRAWN.sub("", text)


def _stand_in(
    text: str, parts: list[_Part], texts: dict[int, str], has_impression: bool
) -> tuple[str, Origin, dict[int, str]]:
    """Return a text in place of findings without a heading, its origin, and the rest of its part."""
    unsigned = [part for part in parts if part.name or part.kind != "other"]  # a signature has no name
    named = [part for part in unsigned if part.name]
    preamble = [part for part in parts if not part.kind and texts[id(part)]]
    if (
        any(part.kind for part in parts)
        and preamble
        and texts[id(preamble[-1])].endswith(".")
        and len(texts[id(preamble[-1])].split()) > 1
    ):
        return texts[id(preamble[-1])], "preamble", {id(preamble[-1]): ""}
    if has_impression:
        return "", "", {}
    last = unsigned[-1]
    body = text[last.start : last.end]
    paragraphs = [paragraph for paragraph in map(one_line, _PARAGRAPH.split(body)) if paragraph or named]
    titled = bool(last.name) or (len(paragraphs) > 1 and not paragraphs[0].endswith("."))
    # a section that is kept, or that is empty or only refers to another
    if last.kind in ("indication", "findings", "impression"):
        return "", "", {}
    taken = " ".join(filter(None, paragraphs[1:] if titled else paragraphs))
    left = paragraphs[0] if titled and paragraphs else ""
    return taken, "last_paragraph" if taken else "", {id(last): left}


def _parts(text: str) -> tuple[list[_Part], list[_Part]]:
    """Split a text into its parts in order, and its addenda."""
    events = list(_events(text))
    last_final = max((number for number, event in enumerate(events) if event.kind == "final"), default=-1)
    parts, addenda = [_Part("", "", 0)], []
    current = parts[0]
    until: Literal["", "final", "end", "heading"] = ""  # what ends the open addendum
    seen = False  # whether findings or impression have started
    for number, event in enumerate(events):
        if until in ("final", "end") and event.kind not in ("final" if until == "final" else "", "addendum"):
            continue
        if event.kind in _STAYS and not until and current.kind in _STAYS[event.kind]:
            continue
        current.end = event.start
        kind = "findings" if event.kind in ("place", "study") else event.kind
        if kind == "addendum":
            until = until or ("final" if number < last_final else "end" if seen else "heading")
            current = _Part("addendum", event.name, event.end)
            addenda.append(current)
            continue
        until = ""
        kept = event.kind == "place"  # "LUNGS: ..." opens the findings, and is part of them
        opened = "" if kind in ("final", "title") else kind
        current = _Part(opened, "" if kept else event.name, event.start if kept else event.end)  # type: ignore[arg-type]
        parts.append(current)
        seen = seen or kind in ("findings", "combined", "impression", "result", "interpretation")
    current.end = len(text)
    return parts, addenda


def _events(text: str) -> Iterator[_Event]:
    """Yield the headings, titles and signatures of a text in order."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield from _line_events(text, start, end)
        start = end + 1


def _line_events(text: str, start: int, end: int) -> Iterator[_Event]:
    line = text[start:end]
    place = 0
    if title := _TITLE.match(line):
        kind = "final" if title["title"] == "FINAL REPORT" else "other" if title["title"] else "title"
        if kind == "title":
            return  # a drawn line
        yield _Event(kind, line.strip(), start, end)  # type: ignore[arg-type]
        return
    if addendum := _ADDENDUM.match(line):
        yield _Event("addendum", addendum[0].strip(" \t:"), start, start + addendum.end())
        place = addendum.end()
    elif _SIGNATURE.match(line):
        yield _Event("other", "", start, start)
        return
    elif (match := _LINE.match(line)) and (found := _heading(match["name"])):
        yield _Event(found, _numbered(match, "name"), start, start + match.end())
        place = match.end()
    elif (match := _ALONE.fullmatch(line)) and stands_alone(match["name"]):
        yield _Event(kind_of(match["name"]), _numbered(match, "name"), start, end)
        return
    elif match := _SIGNED.match(line):
        group = match.lastgroup or ""
        yield _Event(kind_of(match[group]), _numbered(match, group), start, start + match.end())
        place = match.end()
    for match in _WITHIN.finditer(line, place):
        name = match["any"] or match["caps"] or match["bare"] or match["other"]
        yield _Event(kind_of(name), name.strip(), start + match.start(match.lastgroup or 0), start + match.end())


def _numbered(match: re.Match[str], group: str) -> str:
    """Return the name of a heading with the numbers before it, so that they are not lost."""
    numbers = re.findall(r"\(?\d{1,2}[.)]", match.string[match.start() : match.start(group)])
    return " ".join((*numbers, match[group].strip()))


def _heading(name: str) -> Kind | None:
    """Return the kind of a name before a colon at the start of a line; None if it is not a heading."""
    if name.upper() == name:
        return kind_of(name) if sum(map(str.isalpha, name)) > 1 else None
    return exact_kind(name)
