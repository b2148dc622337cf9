"""N-grams as integers for BLEU and CIDEr, coded once for both sides of a comparison.

Every word has a number, and every n-gram a number made from that of its first n-1 words and its last word, so counting
and matching only sort integer arrays. No hash is involved: different n-grams never share a code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

#: The orders that BLEU and CIDEr use.
ORDERS = (1, 2, 3, 4)


@dataclass(frozen=True)
class NgramCounts:
    """How often each n-gram of one order occurs in each report; sorted by report, then by code.

    Attributes:
        report: (P,) index of the report.
        code: (P,) number of the n-gram, in [0, `kinds`).
        count: (P,) occurrences of the n-gram in the report, at least 1.
        kinds: number of distinct n-grams of this order on both sides of the comparison.
    """

    report: Integers
    code: Integers
    count: Integers
    kinds: int

    def shared(self, other: "NgramCounts", partner: Integers) -> tuple[Integers, Integers]:
        """Pair the n-grams that the reports of both sides share.

        Args:
            other: counts of the other side, coded together with these.
            partner: (N,) for each report of `other`, the report on this side that it is compared with.

        Returns:
            Positions in the arrays of this side and of the other side, (M,) each, of equal n-grams in paired reports.
        """
        here = self.report * self.kinds + self.code
        wanted = partner[other.report] * self.kinds + other.code
        if len(here) == 0:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        place = np.minimum(np.searchsorted(here, wanted), len(here) - 1)
        found = np.flatnonzero(here[place] == wanted)
        return place[found], found


@dataclass(frozen=True)
class CodedReports:
    """One side of a comparison: reports as counted n-grams.

    Attributes:
        lengths: (N,) words of each report.
        orders: counts for the orders 1 to 4.
    """

    lengths: Integers
    orders: tuple[NgramCounts, ...]


def code_reports(*sides: Sequence[str]) -> tuple[CodedReports, ...]:
    """Count the n-grams of several lists of reports with common codes.

    Words are the result of `str.split()`: any white space separates them, and two spaces make no empty word.

    Args:
        sides: lists of reports, for instance hypotheses and references.

    Returns:
        One `CodedReports` for each list, in the same order.
    """
    numbers: dict[str, int] = {}
    words: list[int] = []
    lengths_of_all: list[int] = []
    for side in sides:
        for text in side:
            split = text.split()
            words.extend([numbers.setdefault(word, len(numbers)) for word in split])
            lengths_of_all.append(len(split))
    flat = np.asarray(words, dtype=np.int64)
    lengths = np.asarray(lengths_of_all, dtype=np.int64)
    report = np.repeat(np.arange(len(lengths)), lengths)
    remaining = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(flat))

    bounds = np.cumsum([0, *(len(side) for side in sides)])
    counts: list[list[NgramCounts]] = [[] for _ in sides]
    code, position = flat, np.arange(len(flat))
    kinds = len(numbers)
    for order in ORDERS:
        if order > 1:
            kept = remaining[position] >= order
            position, code = position[kept], code[kept]
            distinct, code = np.unique(code * len(numbers) + flat[position + order - 1], return_inverse=True)
            kinds = len(distinct)
        keys, occurrences = np.unique(report[position] * kinds + code, return_counts=True)
        key_report, key_code = np.divmod(keys, max(kinds, 1))
        for side_counts, first, end in zip(counts, bounds[:-1], bounds[1:], strict=True):
            part = slice(*np.searchsorted(key_report, [first, end]))
            side_counts.append(NgramCounts(key_report[part] - first, key_code[part], occurrences[part], kinds))
    return tuple(
        CodedReports(lengths[first:end], tuple(side_counts))
        for side_counts, first, end in zip(counts, bounds[:-1], bounds[1:], strict=True)
    )
