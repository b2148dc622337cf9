"""Utilities of minimum Bayes risk decoding (`crossray.decoding.risk`): the agreement between reports of one study."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from crossray.decoding.config import DecodingConfig, UtilityName
from crossray.decoding.risk import Utility
from crossray.evaluation.labelers import Labeler, RuleLabeler
from crossray.evaluation.metrics.bleu import clipped_matches, guesses
from crossray.evaluation.metrics.cider import SIGMA
from crossray.evaluation.metrics.clinical import clinical_f1
from crossray.evaluation.metrics.ngrams import ORDERS, code_reports
from crossray.text.observations import CALLED


def utility_of(config: DecodingConfig) -> Utility | None:
    """The utility named by `config.utility`; None for searches that need none."""
    if config.method != "mbr":
        return None
    labeler = RuleLabeler()
    known: dict[UtilityName, Callable[[Sequence[str]], NDArray[np.float64]]] = {
        "bleu": bleu_utility,
        "cider": cider_utility,
        "clinical": ClinicalUtility(labeler),
    }
    return Utility(known[config.utility], Findings(labeler))


def bleu_utility(reports: Sequence[str]) -> NDArray[np.float64]:
    """(K, K) sentence BLEU-4, one added to matches and n-grams of the orders 2 to 4 (Lin and Och, 2004)."""
    (coded,) = code_reports(reports)
    count = len(reports)
    smoothing = np.array([0.0, 1.0, 1.0, 1.0])
    guessed = guesses(coded.lengths)
    result = np.zeros((count, count))
    for place in range(count):
        matches = clipped_matches(coded, coded, np.full(count, place))
        precisions = (matches + smoothing) / np.maximum(guessed[place] + smoothing, 1)
        with np.errstate(divide="ignore"):
            mean = np.exp(np.log(precisions).mean(axis=1))
        brevity = np.exp(np.minimum(0.0, 1.0 - coded.lengths / max(int(coded.lengths[place]), 1)))
        result[place] = mean * brevity
    return result


def cider_utility(reports: Sequence[str]) -> NDArray[np.float64]:
    """(K, K) CIDEr-D, divided by 10, with equal weights of all n-grams, for lack of document frequencies."""
    (coded,) = code_reports(reports)
    count = len(reports)
    total = np.zeros((count, count))
    for order in coded.orders:
        dense = np.zeros((count, order.kinds))
        dense[order.report, order.code] = order.count
        norms = np.linalg.norm(dense, axis=1)
        product = np.array([(np.minimum(row, dense) * dense).sum(axis=1) for row in dense])
        scale = np.outer(norms, norms)
        total += np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
    bigrams = np.maximum(0, coded.lengths - 1)
    difference = (bigrams[:, None] - bigrams[None, :]).astype(np.float64)
    return total / len(ORDERS) * np.exp(-(difference**2) / (2 * SIGMA**2))


class Findings:
    """Which observations reports state as positive or uncertain.

    Args:
        labeler: labeler of the reports.
    """

    def __init__(self, labeler: Labeler) -> None:
        self.labeler = labeler

    def __call__(self, reports: Sequence[str], observations: Sequence[str]) -> NDArray[np.bool_]:
        """(K, O) bool; False for observations that the labeler does not know."""
        known = self.labeler.observations
        codes = np.isin(self.labeler.label(reports), CALLED)
        absent = np.zeros(len(reports), bool)
        return np.stack([codes[:, known.index(name)] if name in known else absent for name in observations], axis=1)


class ClinicalUtility:
    """F1 of the observations that two reports state.

    Args:
        labeler: labeler of the reports.
    """

    def __init__(self, labeler: Labeler) -> None:
        self.labeler = labeler

    def __call__(self, reports: Sequence[str]) -> NDArray[np.float64]:
        """(K, K) F1 of each pair."""
        codes, count = self.labeler.label(reports), len(reports)
        ours, theirs = np.repeat(codes, count, axis=0), np.tile(codes, (count, 1))
        return clinical_f1(ours, theirs, self.labeler.observations).reshape(count, count)
