"""Detects the language of a report by its words.

The words of a report are compared with the phrases and common words of each phrase file. Short medical texts look alike
in many languages ("Pneumothorax."), so the result is English unless another language knows more words of the text.
"""

import functools
import re
from collections.abc import Sequence

from crossray.text.labeling.lexicon import lexicon
from crossray.text.labeling.registry import ENGLISH, languages, other_languages, phrases
from crossray.text.labeling.tokens import folded

#: Results of `language_of` for a text in a language without a phrase file, and for a text without words.
OTHER, NO_WORDS = "other", ""

#: Minimum share of a text's words that its language must know.
KNOWN_SHARE = 0.4
#: Share of English words above which a text without common words of another language is taken for English.
CERTAIN_SHARE = 0.9

_UMLAUT = re.compile("([aou])e")

#: Placeholders, such as those of de-identification.
_NO_WORDS = frozenset({"xxxx", "xx", "xxx"})


def language_of(words: Sequence[str]) -> str:
    """Language of a text.

    Args:
        words: its `tokens`.

    Returns:
        Code of a phrase file; "other" for any other language, or nonsense; "" for a text without words.
    """
    spoken = [word for word in words if word[0].isalpha() and word not in _NO_WORDS]
    if not spoken:
        return NO_WORDS
    known = sum(map(_english().__contains__, spoken))
    if known >= CERTAIN_SHARE * len(spoken) and _foreign().isdisjoint(spoken):
        return ENGLISH
    return _compared([folded(word) for word in spoken])


def as_in_phrases(words: Sequence[str], language: str) -> list[str]:
    """Words in the spelling of the language's phrases: `folded` unless English; in German, "ae" for "ä" becomes "a"."""
    if language == ENGLISH:
        return list(words)
    plain = list(map(folded, words))
    if language != "de":
        return plain
    known = lexicon(language).words
    return [word if word in known else _UMLAUT.sub(r"\1", word) for word in plain]


def _compared(spoken: Sequence[str]) -> str:
    # English comes first, so it wins ties.
    order = (ENGLISH, *(code for code in languages() if code != ENGLISH))
    counts = {code: sum(map(_words(code).__contains__, spoken)) for code in order}
    best = max(counts, key=lambda code: counts[code])
    if counts[best] < KNOWN_SHARE * len(spoken):
        return OTHER
    common = sum(map(_common(best).__contains__, spoken))
    strangers = max(sum(map((words - _words(best)).__contains__, spoken)) for words in _other_languages().values())
    return OTHER if strangers and strangers >= common else best


@functools.cache
def _english() -> frozenset[str]:
    return _words(ENGLISH)


@functools.cache
def _words(language: str) -> frozenset[str]:
    """The words of a language's phrases, and its common words."""
    return lexicon(language).words | lexicon(language).spellings.keys() | _common(language)


@functools.cache
def _common(language: str) -> frozenset[str]:
    return frozenset(map(folded, phrases(language)["common"]))


@functools.cache
def _other_languages() -> dict[str, frozenset[str]]:
    return {code: frozenset(map(folded, words.split())) for code, words in other_languages().items()}


@functools.cache
def _foreign() -> frozenset[str]:
    """Common words of other languages that are not English words."""
    others = [_common(code) for code in languages() if code != ENGLISH] + list(_other_languages().values())
    return frozenset().union(*others) - _english()
