"""Words and signs of a report, their places, and the sentences that they form."""

import re
from collections.abc import Iterator, Sequence

from crossray.text.sentences import ABBREVIATIONS

#: Tokens that end a sentence; "\n" is a blank line.
SENTENCE_ENDS: frozenset[str] = frozenset(".!?\n")

#: A sentence is cut after this many tokens, so that text without full stops costs linear time.
LONGEST_SENTENCE = 256

_NO_ABBREVIATION = "".join(rf"(?<!\b{re.escape(word)})" for word in sorted(ABBREVIATIONS))
_TOKEN = re.compile(
    r"\d++\.\d++"
    r"|[^\W_]++(?:['\u2019][^\W_]++)*+"
    rf"|{_NO_ABBREVIATION}\.(?:(?![^\W_])|(?=[^\W\d_]{{2}}))"  # neither "vs." nor the first stop of "e.g."
    r"|[!?,;:()/]"
    r"|\n(?=[^\S\n]*+\n)"
    r"|(?<=\s)-(?=\s)"
    r"|[\u2013\u2014]"
)


def tokens(report: str) -> list[str]:
    """Lower-case words and signs of a text, raw or cleaned.

    A hyphen inside a word parts it in two; a dash between blanks is a sign.
    """
    return _TOKEN.findall(_lower(report))


def token_spans(report: str) -> list[tuple[int, int]]:
    """The half-open span in `report` of each of its `tokens`."""
    return [token.span() for token in _TOKEN.finditer(_lower(report))]


def sentence_spans(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Half-open ranges of `words` that are sentences, without what ends them; none is empty."""
    start = 0
    for place, word in enumerate(words):
        if word in SENTENCE_ENDS:
            if place > start:
                yield start, place
            start = place + 1
        elif place - start == LONGEST_SENTENCE:
            yield start, place
            start = place
    if start < len(words):
        yield start, len(words)


def _lower(text: str) -> str:
    """Lower case without a change of length, so that places stay those of `text`."""
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    return "".join(character.lower() if len(character.lower()) == 1 else character for character in text)
