"""BLEU-1 to BLEU-4 of a corpus with one reference per study, as in MS-COCO's caption evaluation."""

import numpy as np
from numpy.typing import NDArray

from crossray.evaluation.metrics.ngrams import ORDERS, CodedReports, Integers

# The two constants that MS-COCO's evaluation adds so that a corpus without matches or n-grams still has a score.
_CORRECT_OFFSET = 1e-15
_GUESSED_OFFSET = 1e-9


def clipped_matches(hypotheses: CodedReports, references: CodedReports, partner: Integers) -> Integers:
    """N-grams that each hypothesis shares with its reference, each counted at most as often as it occurs there.

    Args:
        hypotheses: coded together with `references`.
        references: one per study.
        partner: (N,) the hypothesis that is compared with each reference.

    Returns:
        (N, 4) by reference and order.
    """
    result = np.zeros((len(references.lengths), len(ORDERS)), dtype=np.int64)
    for column, (ours, theirs) in enumerate(zip(hypotheses.orders, references.orders, strict=True)):
        here, there = ours.shared(theirs, partner)
        matches = np.minimum(ours.count[here], theirs.count[there])
        result[:, column] = np.bincount(theirs.report[there], weights=matches, minlength=len(result))
    return result


def guesses(lengths: Integers) -> Integers:
    """Number of n-grams in reports of these lengths: (N, 4) by report and order."""
    return np.asarray(np.maximum(0, lengths[:, None] + 1 - np.asarray(ORDERS)), dtype=np.int64)


def corpus_bleu(
    correct: NDArray[np.float64],
    guessed: NDArray[np.float64],
    hypothesis_length: NDArray[np.float64],
    reference_length: NDArray[np.float64],
) -> NDArray[np.float64]:
    """BLEU from sums over a corpus; leading dimensions may index several corpora.

    Args:
        correct: (..., 4) clipped matches by order.
        guessed: (..., 4) n-grams of the hypotheses by order.
        hypothesis_length: (...) words of the hypotheses.
        reference_length: (...) words of the references.

    Returns:
        (..., 4): BLEU-1 to BLEU-4, the geometric mean of the precisions up to each order, times the brevity penalty.
    """
    precisions = (correct + _CORRECT_OFFSET) / (guessed + _GUESSED_OFFSET)
    means = np.cumprod(precisions, axis=-1) ** (1 / np.asarray(ORDERS))
    ratio = (hypothesis_length + _CORRECT_OFFSET) / (reference_length + _GUESSED_OFFSET)
    # exp underflows to 0 for a corpus of empty hypotheses; the penalty is then 0, as in the reference implementation.
    penalty = np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1)), 1.0)
    return np.asarray(means * penalty[..., None])
