"""Report texts as a person reads them."""

import re

#: Abbreviations of chest radiology that are written in capitals.
_ABBREVIATIONS = frozenset(
    {"ap", "cabg", "chf", "copd", "ct", "cta", "ekg", "icd", "ii", "iii", "iv", "ivc", "lll", "lul", "mri", "pa",
     "picc", "rll", "rml", "rul", "svc", "tb"}
)  # fmt: skip
_VERTEBRA = re.compile(r"[ctl]\d{1,2}")
_UNKNOWN = "<unk>"


def readable(text: str) -> str:
    """Capital letters and punctuation of ordinary writing for a text in the tokenizer's form.

    For display only: predictions are stored and scored as the model wrote them. A word that the model could only
    give as unknown is shown as "[unknown]".

    Example:
        >>> readable("heart size is normal . stable change at t12 , no effusion .")
        'Heart size is normal. Stable change at T12, no effusion.'
    """
    written: list[str] = []
    begins = True
    for word in text.split():
        if word in (".", ",", ":", ";", "?", "!", ")") and written:
            written[-1] += word
        else:
            shown = _cased(word)
            written.append(shown[:1].upper() + shown[1:] if begins else shown)
        begins = word in (".", "?", "!")
    return " ".join(written).replace("( ", "(")


def _cased(word: str) -> str:
    if word == _UNKNOWN:
        return "[unknown]"
    return word.upper() if word in _ABBREVIATIONS or _VERTEBRA.fullmatch(word) else word
