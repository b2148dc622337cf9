"""Splits a report, raw or cleaned, into sentences."""

import re

#: Words whose full stop does not end a sentence.
ABBREVIATIONS: frozenset[str] = frozenset({"dr", "mr", "mrs", "ms", "vs", "e.g", "i.e", "approx", "incl", "resp", "st"})

# Possessive quantifiers and look-behinds keep long runs of signs from costing quadratic time.
_MARKER = re.compile(r"\s*\d{1,2}[.)]++(?!\d)")
_STOP = re.compile(r"(?<![.?!])[.?!]++(?=\s|$)|(?<=[^\W\d_]{2})\.(?=[^\W\d_]{2})")


def split_sentences(report: str) -> list[str]:
    """The sentences of a report in order, without enumeration numbers and closing full stops.

    A sentence ends at a full stop, question mark or exclamation mark before white space or the end of the text, or at
    a full stop between two words ("clear.The"). Decimals ("3.5 cm"), `ABBREVIATIONS` and an enumeration number at the
    start of a sentence ("2. Lungs clear", "2) Lungs clear") do not end a sentence. White space is collapsed.

    Args:
        report: text as in the source, or cleaned by `crossray.text.cleaning.clean`.

    Returns:
        The sentences; none of them is empty.
    """
    text = " ".join(report.split())
    sentences = []
    start = 0
    while start < len(text):
        while marker := _MARKER.match(text, start):
            start = marker.end()
        end = next(
            (stop for stop in _STOP.finditer(text, start) if not _is_abbreviation(text, start, stop.start())), None
        )
        sentence = text[start : end.start() if end else len(text)].strip()
        if sentence:
            sentences.append(sentence)
        start = end.end() if end else len(text)
    return sentences


def _is_abbreviation(text: str, start: int, stop: int) -> bool:
    """Whether the last word of `text[start:stop]` is an abbreviation."""
    return text[max(text.rfind(" ", start, stop) + 1, start) : stop].lstrip("(").lower() in ABBREVIATIONS
