"""ROUGE-L with one reference per study, as in MS-COCO's caption evaluation (docs/evaluation.md)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Weight of recall against precision in the F measure.
BETA = 1.2


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence of two word lists.

    One row of the dynamic program is one integer: bit i is 0 if the value of the row grows at word i of `first` (H.
    Hyyrö, "Bit-parallel LCS-length computation revisited", 2004). A step takes three integer operations, whatever the
    length.
    """
    places: dict[str, int] = {}
    bit = 1
    for word in first:
        places[word] = places.get(word, 0) | bit
        bit <<= 1
    full = bit - 1
    row = full
    for word in second:
        match = row & places.get(word, 0)
        row = ((row + match) | (row - match)) & full
    return len(first) - row.bit_count()


def rouge_l(hypotheses: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]:
    """ROUGE-L of each pair.

    Words are separated by single spaces, so two spaces make an empty word, and an empty report is one empty word. The
    published numbers are computed in this way.

    Args:
        hypotheses: N generated reports.
        references: N true reports.

    Returns:
        (N,) F measures with beta 1.2.
    """
    split_hypotheses = [text.split(" ") for text in hypotheses]
    split_references = [text.split(" ") for text in references]
    common = np.array(
        [
            longest_common_subsequence(ours, theirs)
            for ours, theirs in zip(split_hypotheses, split_references, strict=True)
        ],
        dtype=np.float64,
    )
    precision = common / np.array([len(words) for words in split_hypotheses], dtype=np.float64)
    recall = common / np.array([len(words) for words in split_references], dtype=np.float64)
    weighted = recall + BETA**2 * precision
    return np.divide((1 + BETA**2) * precision * recall, weighted, out=np.zeros_like(weighted), where=weighted > 0)
