"""BLEU-1..4, ROUGE-L and CIDEr of generated reports, equal to MS-COCO's caption evaluation (docs/evaluation.md).

The scores are computed from statistics of single studies: sums of them give the scores of the corpus, of a subset, and
of thousands of bootstrap resamples. The document frequencies of CIDEr are always those of the whole set.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossray.errors import UserError
from crossray.evaluation.labelers import Labeler
from crossray.evaluation.metrics.bleu import clipped_matches, corpus_bleu, guesses
from crossray.evaluation.metrics.cider import cider
from crossray.evaluation.metrics.family import (
    Family,
    FamilyStatistics,
    Metric,
    Repaired,
    Reports,
    Setting,
    register,
    weighted_sums,
)
from crossray.evaluation.metrics.ngrams import CodedReports, Integers, code_reports
from crossray.evaluation.metrics.rouge import rouge_l

#: Names of the scores, in the order of every table.
METRICS = ("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider")

#: Version of the computation; part of a protocol.
VERSION = "1"


@dataclass(frozen=True)
class NlgStatistics:
    """Statistics of N studies whose sums give the scores.

    Attributes:
        correct: (N, 4) clipped n-gram matches by order.
        guessed: (N, 4) n-grams of the hypotheses by order.
        hypothesis_length: (N,) words.
        reference_length: (N,) words.
        rouge_l: (N,) ROUGE-L of each study.
        cider: (N,) CIDEr of each study.
    """

    correct: Integers
    guessed: Integers
    hypothesis_length: Integers
    reference_length: Integers
    rouge_l: NDArray[np.float64]
    cider: NDArray[np.float64]

    def __len__(self) -> int:
        """Number of studies."""
        return len(self.cider)

    def scores(self) -> dict[str, float]:
        """The scores of all studies together, by the names of `METRICS`."""
        return {name: float(values[0]) for name, values in self.weighted_scores(np.ones((1, len(self)))).items()}

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """Scores of R resamples of the studies.

        Args:
            weights: (R, N) how often each study occurs in each resample; every row has a positive sum.

        Returns:
            Metric name to (R,) scores: exactly those of the resampled corpus.
        """
        sums = weighted_sums(vars(self), weights)
        bleu = corpus_bleu(sums["correct"], sums["guessed"], sums["hypothesis_length"], sums["reference_length"])
        studies = np.asarray(weights).sum(axis=1)
        scores = {f"bleu{order}": bleu[:, order - 1] for order in (1, 2, 3, 4)}
        return scores | {name: sums[name] / studies for name in ("rouge_l", "cider")}

    def part(self, studies: NDArray[np.integer] | NDArray[np.bool_]) -> "NlgStatistics":
        """Statistics of some of the studies, by index or mask."""
        return NlgStatistics(
            correct=self.correct[studies],
            guessed=self.guessed[studies],
            hypothesis_length=self.hypothesis_length[studies],
            reference_length=self.reference_length[studies],
            rouge_l=self.rouge_l[studies],
            cider=self.cider[studies],
        )


class ReportPairs:
    """Hypotheses and references of the same studies, coded once so that other pairings are cheap.

    Args:
        hypotheses: N generated reports, tokens separated by blanks.
        references: N true reports, in the same order.

    Raises:
        UserError: the lists differ in length, or are empty.
    """

    def __init__(self, hypotheses: Sequence[str], references: Sequence[str]) -> None:
        if len(hypotheses) != len(references):
            raise UserError(
                f"{len(hypotheses)} hypotheses and {len(references)} references; give one reference for each hypothesis"
            )
        if len(references) == 0:
            raise UserError("there is no report to score; give at least one hypothesis with its reference")
        self._hypotheses = list(hypotheses)
        self._references = list(references)
        self._coded_hypotheses: CodedReports
        self._coded_references: CodedReports
        self._coded_hypotheses, self._coded_references = code_reports(self._hypotheses, self._references)

    def __len__(self) -> int:
        """Number of studies."""
        return len(self._references)

    def statistics(self, order: Integers | None = None) -> NlgStatistics:
        """Statistics of every study.

        Args:
            order: (N,) the hypothesis to compare with each reference; if None, its own.

        Returns:
            Statistics in the order of the references.
        """
        partner = np.arange(len(self)) if order is None else np.asarray(order, dtype=np.int64)
        ours, theirs = self._coded_hypotheses, self._coded_references
        return NlgStatistics(
            correct=clipped_matches(ours, theirs, partner),
            guessed=guesses(ours.lengths)[partner],
            hypothesis_length=ours.lengths[partner],
            reference_length=theirs.lengths,
            rouge_l=rouge_l([self._hypotheses[index] for index in partner], self._references),
            cider=cider(ours, theirs, partner),
        )


def score(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Score generated reports against one true report each.

    Args:
        hypotheses: N generated reports, tokens separated by spaces, as the text cleaners return them.
        references: N true reports, in the same order and form.

    Returns:
        `bleu1` to `bleu4` and `rouge_l` between 0 and 1, `cider` between 0 and 10.

    Raises:
        UserError: the lists differ in length, or are empty.
    """
    return ReportPairs(hypotheses, references).statistics().scores()


@register("nlg")
class Nlg(Family):
    """The metrics of MS-COCO's caption evaluation that need no Java."""

    metrics = (
        *(Metric(f"bleu{order}", f"BLEU-{order}", order) for order in (1, 2, 3, 4)),
        Metric("rouge_l", "ROUGE-L", 5),
        Metric("cider", "CIDEr-D", 7),
    )
    validated = METRICS

    def measure(self, reports: Sequence[Reports], setting: Setting) -> list[FamilyStatistics]:
        """Statistics of each pair of lists."""
        return [ReportPairs(*both).statistics() for both in reports]

    def repaired(self, reports: Reports, statistics: FamilyStatistics) -> Repaired:
        """Reports are coded once for all pairings."""
        return ReportPairs(*reports).statistics

    def validate(self, reports: Reports, labeler: Labeler) -> dict[str, float]:
        """All metrics."""
        return score(*reports)
