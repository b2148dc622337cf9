"""The words of reports as classes, which an image encoder can learn to predict without a labeler."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence


def words_of(report: str) -> set[str]:
    """The words of a report in lower case, without numbers and punctuation.

    A word is a run of letters. Scripts that write vowels as marks (Hindi) or no spaces (Chinese) are not split well.

    >>> sorted(words_of("Lungs are clear. No effusion."))
    ['are', 'clear', 'effusion', 'lungs', 'no']
    """
    return set(re.findall(r"[^\W\d_]+", unicodedata.normalize("NFC", report.lower())))


def frequent_words(reports: Sequence[str], least: int) -> tuple[str, ...]:
    """Words that occur in at least `least` reports and in fewer than half of them, in alphabetical order.

    >>> frequent_words(["clear lungs", "small effusion", "large effusion", "large heart", "clear"], 2)
    ('clear', 'effusion', 'large')
    """
    totals = Counter(word for report in reports for word in words_of(report))
    return tuple(sorted(word for word, total in totals.items() if least <= total < len(reports) / 2))
