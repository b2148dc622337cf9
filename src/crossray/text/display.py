"""Formats report texts for reading."""

import re
from dataclasses import dataclass

#: Abbreviations of chest radiology that are written in capitals.
_ABBREVIATIONS = frozenset(
    {"ap", "cabg", "chf", "copd", "ct", "cta", "ekg", "icd", "ii", "iii", "iv", "ivc", "lll", "lul", "mri", "pa",
     "picc", "rll", "rml", "rul", "svc", "tb"}
)  # fmt: skip
_VERTEBRA = re.compile(r"[ctl]\d{1,2}")
_UNKNOWN = "<unk>"
#: Tokens that end a sentence in tokenized text.
SENTENCE_ENDS = (".", "?", "!")
_CLINGS = (*SENTENCE_ENDS, ",", ":", ";", ")")


@dataclass(frozen=True)
class ShownWord:
    """A formatted word and its position in the text.

    Attributes:
        space: the space before it, or "".
        shown: the formatted word.
        start: index of its first character in the text; `end`: index after its last one.
    """

    space: str
    shown: str
    start: int
    end: int


def shown_words(text: str) -> list[ShownWord]:
    """The words that `readable` joins, with their positions in the unformatted text."""
    words: list[ShownWord] = []
    begins = True
    for match in re.finditer(r"\S+", text):
        word = match[0]
        clings = bool(words) and (word in _CLINGS or words[-1].shown.endswith("("))
        shown = word if word in _CLINGS and words else _cased(word)
        if begins:
            shown = shown[:1].upper() + shown[1:]
        words.append(ShownWord(" " if words and not clings else "", shown, match.start(), match.end()))
        begins = word in SENTENCE_ENDS
    return words


def readable(text: str) -> str:
    """Restore capital letters and punctuation in tokenized text.

    For display only: predictions are stored and scored as the model generated them. Unknown words are shown as
    "[unknown]".

    Example:
        >>> readable("heart size is normal . stable change at t12 , no effusion .")
        'Heart size is normal. Stable change at T12, no effusion.'
    """
    return "".join(word.space + word.shown for word in shown_words(text))


def _cased(word: str) -> str:
    if word == _UNKNOWN:
        return "[unknown]"
    return word.upper() if word in _ABBREVIATIONS or _VERTEBRA.fullmatch(word) else word
