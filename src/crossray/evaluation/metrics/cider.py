"""CIDEr with one reference per study, as in MS-COCO's caption evaluation (docs/evaluation.md).

That form is CIDEr-D: counts are clipped and a Gaussian penalizes a difference in length. Two details matter when
numbers are compared: document frequencies come from the evaluated references, so a score is tied to its test set, and
the "length" of a report is its number of bigrams.
"""

import numpy as np
from numpy.typing import NDArray

from crossray.evaluation.metrics.ngrams import CodedReports, Integers, NgramCounts

#: Width of the Gaussian length penalty, in words.
SIGMA = 6.0


def cider(
    hypotheses: CodedReports, references: CodedReports, partner: Integers, documents: CodedReports | None = None
) -> NDArray[np.float64]:
    """CIDEr of each study.

    Args:
        hypotheses: coded together with `references`.
        references: one per study; document frequencies are counted in them, whatever the pairing.
        partner: (N,) the hypothesis that is compared with each reference.
        documents: reports in which document frequencies are counted instead; coded together with both sides.

    Returns:
        (N,) scores between 0 and 10; the corpus score is their mean.
    """
    studies = len(references.lengths)
    total = np.zeros(studies)
    counted = references if documents is None else documents
    for ours, theirs, known in zip(hypotheses.orders, references.orders, counted.orders, strict=True):
        inverse_frequency = _inverse_document_frequency(known, len(counted.lengths))
        our_weight = ours.count * inverse_frequency[ours.code]
        their_weight = theirs.count * inverse_frequency[theirs.code]
        here, there = ours.shared(theirs, partner)
        product = np.minimum(our_weight[here], their_weight[there]) * their_weight[there]
        similarity = np.bincount(theirs.report[there], weights=product, minlength=studies)
        our_norm = np.sqrt(np.bincount(ours.report, weights=our_weight**2, minlength=len(hypotheses.lengths)))[partner]
        their_norm = np.sqrt(np.bincount(theirs.report, weights=their_weight**2, minlength=studies))
        norms = our_norm * their_norm
        total += np.divide(similarity, norms, out=np.zeros(studies), where=norms > 0)
    bigrams = [np.maximum(0, side.lengths - 1) for side in (hypotheses, references)]
    difference = (bigrams[0][partner] - bigrams[1]).astype(np.float64)
    return total / len(references.orders) * np.exp(-(difference**2) / (2 * SIGMA**2)) * 10


def _inverse_document_frequency(references: NgramCounts, studies: int) -> NDArray[np.float64]:
    """Logarithm of studies over references that contain the n-gram; an n-gram in no reference counts as in one."""
    frequency = np.maximum(1, np.bincount(references.code, minlength=references.kinds))
    # An n-gram of every reference weighs exactly 0: rounding must not give it a weight.
    return np.where(frequency == studies, 0.0, np.log(float(max(studies, 1))) - np.log(frequency))
