"""Placeholders for missing reports in tables."""

import re
import unicodedata

_MISSING = re.compile(
    r"[\s\[\](){}<>\"'#_.?*=/\\-]*"
    r"(?:(?:nan|none|null|nil|n/?a|n\.a|nat|missing|empty|blank|undefined|unavailable|void"
    r"|not[ _]?(?:available|applicable|provided|found|reported)"
    r"|no[ _](?:report|text|data|findings? section|value)|name\?|value!|ref!|div/0!|tbd"
    r"|to follow"
    r"|report (?:not available|to follow|pending)|pending)(?:[\s\[\](){}<>\"'#_.?*=/\\-]*))?",
    re.IGNORECASE,
)


def is_missing(text: str) -> bool:
    """Whether a text is a placeholder: white space or punctuation only, or a word such as "nan", "None" or "N/A"."""
    # A longer text is a report; the bound keeps the check fast.
    return len(text) < 64 and _MISSING.fullmatch(unicodedata.normalize("NFKC", text)) is not None


def or_empty(text: str) -> str:
    """The text, or "" if it `is_missing`."""
    return "" if is_missing(text) else text
