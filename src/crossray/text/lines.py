"""Line breaks in reports: decides which of them end a statement, and joins lines into one.

Some reports are wrapped at a fixed width; others list one statement per line, without full stops. A break before a
capital letter or a list marker ends a statement; a break before a lower-case letter does not.
"""

import re

#: Representations of line breaks: HL7 escape sequences, HTML elements, escaped and other line ends.
_BREAK = re.compile(
    r"\\\.(?:br|sp|in|ce)\\|\\x0[ad]\\(?:\\x0a\\)?|<\s*/?\s*(?:br|p|div|li|ul|ol|tr|td|h[1-6])\b[^<>]{0,80}>|\\r\\n|\\n|\\r"
    r"|_x000d_|&#0*1[03];|&#x0*[ad];|\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]",
    re.IGNORECASE,
)
#: HTML spaces, and HTML elements within a line.
_SPACE = re.compile(
    r"&nbsp;|&#160;|&#xa0;|<\s*/?\s*(?:b|strong|i|em|u|span|font|small|big|code|pre|sup|sub|center)\b[^<>]{0,80}>",
    re.IGNORECASE,
)

#: Text that may contain such a break.
_MAY_HOLD_BREAK = re.compile(r"[\\<&\r\v\f\x1c-\x1e\x85\u2028\u2029]|_x000d_", re.IGNORECASE)

#: Markers of list items: signs, "o" before a capital letter, and numbers.
LIST_MARK = re.compile(r"(?:[-*+>\u2022\u2023\u25aa\u25cf\u00b7\u2013\u2014]++|o(?=\s+[A-Z])|\(?\d{1,2}[.)])(?=\s)")
_SIGNS = re.compile(r"(?:[-*+>\u2022\u2023\u25aa\u25cf\u00b7\u2013\u2014]++\s++)++")

#: Words that never end a statement: it continues on the next line, even before a capital letter.
_OPEN_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "but",
        "by",
        "for",
        "from",
        "has",
        "have",
        "in",
        "into",
        "is",
        "its",
        "may",
        "no",
        "non",
        "nor",
        "not",
        "of",
        "on",
        "or",
        "per",
        "that",
        "the",
        "their",
        "there",
        "this",
        "to",
        "via",
        "was",
        "were",
        "which",
        "with",
        "without",
        "e",
        "ni",
        "o",
        "y",
        "con",
        "sin",
        "de",
        "del",
        "la",
        "el",
        "los",
        "las",
        "un",
        "una",
        "der",
        "die",
        "das",
        "ein",
        "eine",
        "kein",
        "keine",
        "und",
        "oder",
        "mit",
        "ohne",
        "von",
        "im",
        "am",
        "zum",
        "zur",
        "et",
        "ou",
        "le",
        "les",
        "des",
        "du",
        "sans",
        "avec",
        "pas",
        "aucun",
        "aucune",
        "une",
    ]
)

#: Capitalized names that may start a continuation line.
_NAMES = frozenset(
    {"dr", "swan", "kerley", "dobbhoff", "dobhoff", "hickman", "port", "january", "february", "march", "april", "june"}
    | {"july", "august", "september", "october", "november", "december", "monday", "tuesday", "wednesday", "thursday"}
    | {"friday", "saturday", "sunday"}
)

#: Minimum length of a line that may be wrapped before an abbreviation or a name ("... and the right / PICC line").
_WRAPPED = 55

_FIRST_WORD = re.compile(r"[^\W_]+")
_LAST_WORD = re.compile(r"[^\W\d_]+$")


def unified(text: str) -> str:
    r"""The text with every representation of a line break replaced by "\n", and HTML spaces by " "."""
    if not _MAY_HOLD_BREAK.search(text):
        return text
    return _SPACE.sub(" ", _BREAK.sub("\n", text))


def breaks() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """The patterns that `unified` replaces: by a line break, and by a space."""
    return _BREAK, _SPACE


def may_hold_break(text: str) -> bool:
    r"""Whether the text may contain a line break other than "\n"."""
    return _MAY_HOLD_BREAK.search(text) is not None


def ends_statement(before: str, after: str) -> bool:
    """Whether a statement ends between two consecutive lines.

    Args:
        before: the line before the break.
        after: the line after it.
    """
    before, after = before.strip(), after.strip()
    if not before or not after:
        return True
    if before[-1] in ",;:(/-&":
        return False
    if LIST_MARK.match(after):
        return True
    first = _FIRST_WORD.search(after)
    if first is None or not first[0][0].isupper():
        return False
    last = _LAST_WORD.search(before)
    if last is not None and last[0].lower() in _OPEN_WORDS and len(last[0]) < len(before):
        return False
    return len(before) < _WRAPPED or not (
        (first[0].isupper() and len(first[0]) > 1) or first[0].lower() in _NAMES or first[0][-1].isdigit()
    )


def one_line(text: str) -> str:
    """Join a report into one line.

    White space is collapsed, and a line break that ends a statement without a full stop becomes one. Bullets at the
    beginning of a line are removed; item numbers are kept.
    """
    text = unified(text)
    if "\n" not in text:
        return " ".join(text.split())
    before = ""
    parts: list[str] = []
    for line in text.split("\n"):
        line = " ".join(line.split())
        if not line:
            continue
        bare = _SIGNS.sub("", line, count=1) if _SIGNS.match(line) else line
        if before and ends_statement(before, line) and before[-1] not in ".!?:;,":
            parts.append(".")
        parts.append(f" {bare}" if parts else bare)
        before = line
    return "".join(parts).strip()
