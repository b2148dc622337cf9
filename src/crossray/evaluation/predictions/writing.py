"""Notes on differences in style between predictions and true reports, and on reports that cannot be labeled."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from crossray.text.missing import is_missing
from crossray.text.observations import language_notes, readable_by_rules, report_language

_ATTACHED_STOP = re.compile(r"\w[.,;:](?:\s|$)")
_CAPITAL = re.compile(r"[A-Z\u00c0-\u00de]")
_SPACELESS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]")

#: Shares of reports above which a side has a style of writing, and below which it does not.
MOST, FEW = 0.5, 0.1


def writing_notes(predictions: Sequence[str], references: Sequence[str]) -> list[str]:
    """Sentences on differences in style between the two sides; empty if there are none.

    Args:
        predictions: N generated reports.
        references: N true reports.
    """
    notes = []
    if differing := differences(predictions, references):
        notes.append(
            f"predictions and references are written differently ({differing} on one side only), so that "
            "equal words count as errors: clean both sides alike with --cleaner"
        )
    if max(_share(predictions, _SPACELESS), _share(references, _SPACELESS)) > MOST:
        notes.append(
            "the reports are written without blanks between words: scores count each run of characters as one word"
        )
    for side, texts in (("predictions", predictions), ("references", references)):
        if empty := sum(map(is_missing, texts)):
            notes.append(f"{empty} of {len(texts)} {side} are empty or a word such as nan; they are scored as they are")
    return notes


def differences(reports: Sequence[str], others: Sequence[str]) -> str:
    """What only one of two sides uses, such as "capital letters"; "" if both are written alike."""
    return " and ".join(
        name
        for name, pattern in (("capital letters", _CAPITAL), ("full stops attached to words", _ATTACHED_STOP))
        if _differ(_share(reports, pattern), _share(others, pattern))
    )


def clinical_notes(references: Sequence[str], labeler: object = None) -> tuple[bool, list[str]]:
    """Whether clinical scores are meaningful, and sentences on the language of the true reports.

    A labeler of another package can say with `reads(report)` which reports it reads; others read what the rules do.
    """
    reads: Callable[[str], bool] = getattr(labeler, "reads", readable_by_rules)
    notes = language_notes(Counter(map(report_language, references)))
    told = [reference for reference in references if not is_missing(reference)]
    readable = sum(map(reads, told)) >= MOST * len(told) if told else True
    if not readable:
        notes.append(
            "clinical efficacy not computed: most true reports are in a language that the labeler does not read"
        )
    return readable, notes


def _share(texts: Sequence[str], pattern: re.Pattern[str]) -> float:
    told = [text for text in texts if text.strip()]
    return sum(bool(pattern.search(text)) for text in told) / len(told) if told else 0.0


def _differ(first: float, second: float) -> bool:
    return min(first, second) <= FEW and max(first, second) >= MOST
