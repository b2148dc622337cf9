"""Report cleaners (docs/reference/r2gen-family.md): the published ones, bit for bit, and one without their defects.

A score is comparable with the published tables only with the published cleaner, so `legacy` (IU X-Ray) and
`legacy_mimic` (MIMIC-CXR) reproduce all its quirks: "3.5 cm" becomes "35 cm", and "L1. The" becomes "lthe".
"""

import re
from collections.abc import Callable

from crossray.errors import UserError, choose
from crossray.text.sentences import split_sentences

#: Names of the cleaners.
CLEANERS: tuple[str, ...] = ("legacy", "legacy_mimic", "fixed", "none")

# The published character class holds a range from ":" to "[" where a literal hyphen was meant: the hyphen survives,
# and the signs in the range are removed.
_LEGACY_QUOTES = str.maketrans("", "", "\"/\\'")
_LEGACY_SIGNS = str.maketrans("", "", ".,?;*!%^&_+()]{}" + "".join(map(chr, range(ord(":"), ord("[") + 1))))

# Punctuation between words becomes spaces, so "and/or" remains two words. Full stops and closing brackets may belong to
# a decimal or an enumeration, so they are handled after sentence splitting.
_FIXED_FIRST = str.maketrans(
    {**dict.fromkeys("/\\,;:", " "), **dict.fromkeys("\"'\u2018\u2019\u201c\u201d*^&_+<=>@[]{}%(", "")}
)
_FIXED_LAST = str.maketrans("", "", ")?!")
_DOTS = re.compile(r"\.{2,}")
_NO_DECIMAL_POINT = re.compile(r"(?<=[^\d\s])\.|\.(?!\d)")


def clean(report: str, cleaner: str) -> str:
    """Clean one report.

    Args:
        report: text as in the source.
        cleaner: one of `CLEANERS`. "legacy" is the cleaner of the R2Gen family for IU X-Ray and "legacy_mimic" the one
            for MIMIC-CXR, both exactly as published. "fixed" removes enumeration only at the start of a sentence, keeps
            decimals, separates words that a slash or comma joins, and drops empty sentences. "none" changes nothing.

    Returns:
        Lower-case sentences, each closed by a separate full stop: "the heart is normal . lungs clear ." ("none": the
        report itself). An empty report is " ." for the legacy cleaners and "" for the others.

    Raises:
        UserError: `cleaner` is not one of `CLEANERS`.
    """
    try:
        return _FUNCTIONS[cleaner](report)
    except KeyError:
        raise UserError(f"cleaner: {cleaner!r} does not exist; {choose(cleaner, CLEANERS)}") from None


def _legacy(report: str, dots: int = 3) -> str:
    text = _repeat(report, "..", ".", dots).replace("1. ", "")
    for before in (". ", " "):
        for number in "2345":
            text = text.replace(f"{before}{number}. ", ". ")
    pieces = text.strip().lower().split(". ")
    return (
        " . ".join(piece.translate(_LEGACY_QUOTES).strip().lower().translate(_LEGACY_SIGNS) for piece in pieces) + " ."
    )


def _legacy_mimic(report: str) -> str:
    text = _repeat(report.replace("\n", " "), "__", "_", 7)
    return _legacy(_repeat(text, "  ", " ", 6), dots=8)


def _repeat(text: str, old: str, new: str, times: int) -> str:
    for _ in range(times):
        text = text.replace(old, new)
    return text


def _fixed(report: str) -> str:
    text = _DOTS.sub(".", report.lower().translate(_FIXED_FIRST))
    pieces = (_NO_DECIMAL_POINT.sub("", piece.translate(_FIXED_LAST)) for piece in split_sentences(text))
    return " ".join(f"{piece} ." for piece in (" ".join(piece.split()) for piece in pieces) if piece)


def _none(report: str) -> str:
    return report


_FUNCTIONS: dict[str, Callable[[str], str]] = dict(zip(CLEANERS, (_legacy, _legacy_mimic, _fixed, _none), strict=True))
