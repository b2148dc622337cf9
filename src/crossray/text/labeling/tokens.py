"""Splits a report into words and punctuation, and these into sentences.

The text is normalized first: to Unicode NFKC without soft hyphens and zero-width characters, and with every line break
as one character. Spans refer to the original text.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import pairwise

from crossray.text import lines
from crossray.text.sentences import ABBREVIATIONS

#: Marks a line break that ends a statement. No normalized report contains it, since it is itself a kind of line break.
_STATEMENT_END = "\x1e"

#: Tokens that end a sentence; "\n" is a blank line.
SENTENCE_ENDS: frozenset[str] = frozenset((".", "!", "?", "\n", _STATEMENT_END))

#: Tokens for "-" and "+" at the end of an item ("Pneumothorax -"), and for a question mark before a word.
ABSENT, PRESENT, ASKED = "\u00ac", "\u207a", "\u00bf"

#: Longer sentences are cut after this many tokens, so that text without full stops is processed in linear time.
LONGEST_SENTENCE = 256

_NO_ABBREVIATION = "".join(rf"(?<!\b{re.escape(word)})" for word in sorted(ABBREVIATIONS))
_TOKEN = re.compile(
    r"\d++\.\d++"
    r"|[^\W_]++(?:['\u2019][^\W_]++)*+"
    rf"|{_NO_ABBREVIATION}\.(?:(?![^\W_])|(?=[^\W\d_]{{2}}))"  # neither "vs." nor the first stop of "e.g."
    r"|\([^\S\n]?[-+?\u2013\u2014]{1,3}[^\S\n]?\)"
    r"|[!?,;:()/]"
    r"|\n(?=[^\S\n]*+\n)"
    rf"|[{_STATEMENT_END}{ABSENT}{PRESENT}{ASKED}]"
    r"|(?<=\s)-(?=\s)"
    r"|(?<!\w)[-+]ve\b"
    r"|[\u2013\u2014]"
)
# Replacements of these patterns keep the length of the text, so that spans stay valid.
_ASKED = re.compile(r"(?<![^\s(/,;:])\?(?=[^\S\n]?[^\W\d_])")
_SIGN = re.compile(r"([^\W_][^\S\n]*(?::[^\S\n]*|[^\S\n]))([-+\u2013])(?=[^\S\n]*(?:[.,;\n]|$))")
_MAY_HOLD_SIGN = re.compile(r"[\s:][-+\u2013]\s*(?:[.,;\n]|$)")
_ANSWER = re.compile(r"\?(?=\s*(?:no|none|nil|negative|absent|yes|present)\s*(?:[.;,\n]|$))", re.IGNORECASE)

#: Characters that look like another one and are not mapped to it by NFKC.
_LIKE = str.maketrans({"\u2212": "-", "\u2010": "-", "\u02d7": "-", "\u3002": ".", "\u3001": ","})


def tokens(report: str) -> list[str]:
    """Lower-case words and punctuation of a text, raw or cleaned.

    A hyphen inside a word splits it in two; a dash between spaces is a token.
    """
    return _TOKEN.findall(_prepared(_normalized(report)[0]))


def token_spans(report: str) -> list[tuple[int, int]]:
    """The half-open span in `report` of each of its `tokens`."""
    text, origins = _normalized(report)
    spans = [token.span() for token in _TOKEN.finditer(_prepared(text))]
    if origins is None:
        return spans
    return [(origins[start][0], origins[end - 1][1]) for start, end in spans]


def folded(word: str) -> str:
    """A lower-case word without accents and elided article ("l'aorte"); "ß" becomes "ss"."""
    word = word.replace("\u2019", "'")
    if len(word) > 2 and word[1] == "'" and word[0] in "ldnsjc":
        word = word[2:]
    if word.isascii():
        return word
    decomposed = unicodedata.normalize("NFD", word.replace("\u00df", "ss").replace("\u0153", "oe"))
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def sentence_spans(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Half-open, non-empty ranges of sentences in `words`; of their final tokens, they include question marks only."""
    start = 0
    for place, word in enumerate(words):
        if word in SENTENCE_ENDS:
            if place > start:
                yield start, place + (word == "?")
            start = place + 1
        elif place - start == LONGEST_SENTENCE:
            yield start, place
            start = place
    if start < len(words):
        yield start, len(words)


def _prepared(text: str) -> str:
    """Lower-case a normalized text, and mark ends of statements, trailing signs and leading question marks.

    The length of the text is unchanged.
    """
    if "\n" in text:
        text = _with_statement_ends(text)
    if "?" in text:
        text = _ASKED.sub(ASKED, _ANSWER.sub(":", text))
    if _MAY_HOLD_SIGN.search(text):
        text = _SIGN.sub(lambda found: found[1] + (PRESENT if found[2] == "+" else ABSENT), text)
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(character.lower() if len(character.lower()) == 1 else character for character in text)


def _with_statement_ends(text: str) -> str:
    parts = text.split("\n")
    joined = [parts[0]]
    for before, after in pairwise(parts):
        ends = bool(before.strip()) and bool(after.strip()) and lines.ends_statement(before, after)
        joined += (_STATEMENT_END if ends else "\n", after)
    return "".join(joined)


def _normalized(report: str) -> tuple[str, list[tuple[int, int]] | None]:
    """The normalized text, and the span in `report` of each of its characters; None if the spans are unchanged."""
    if report.isascii() and not lines.may_hold_break(report):
        return report, None
    text: str = report
    origins: list[tuple[int, int]] | None = None
    if not report.isascii():
        mapped = report.translate(_LIKE)
        if not unicodedata.is_normalized("NFKC", mapped) or any(unicodedata.category(c) == "Cf" for c in set(mapped)):
            text, origins = _nfkc(mapped)
        else:
            text = mapped
    for pattern, replacement in zip(lines.breaks(), "\n ", strict=True):
        text, origins = _replaced(text, origins, pattern, replacement)
    return text, origins


def _nfkc(text: str) -> tuple[str, list[tuple[int, int]]]:
    """NFKC, applied to each character with its combining marks, and without invisible characters."""
    result: list[str] = []
    origins: list[tuple[int, int]] = []
    place = 0
    while place < len(text):
        end = place + 1
        while end < len(text) and unicodedata.combining(text[end]):
            end += 1
        cluster = "".join(c for c in text[place:end] if unicodedata.category(c) != "Cf")
        normal = unicodedata.normalize("NFKC", cluster).translate(_LIKE)
        result.append(normal)
        origins += [(place, end)] * len(normal)
        place = end
    return "".join(result), origins


def _replaced(
    text: str, origins: list[tuple[int, int]] | None, pattern: re.Pattern[str], replacement: str
) -> tuple[str, list[tuple[int, int]] | None]:
    """Replace each match by one character."""
    found = [match.span() for match in pattern.finditer(text)]
    if not found:
        return text, origins
    if all(end - start == 1 for start, end in found):
        return pattern.sub(replacement, text), origins
    origins = origins or [(place, place + 1) for place in range(len(text))]
    result: list[str] = []
    kept: list[tuple[int, int]] = []
    last = 0
    for start, end in found:
        result += (text[last:start], replacement)
        kept += (*origins[last:start], (origins[start][0], origins[end - 1][1]))
        last = end
    result.append(text[last:])
    kept += origins[last:]
    return "".join(result), kept
