"""Checks whether reports depend on the image: their variety, and scores with images shuffled between studies.

A prediction depends on its own study only. Giving each study the images of another one is therefore equivalent to
comparing each prediction with the reference of another study, and nothing has to be generated again.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crossray.evaluation.metrics.ngrams import code_reports
from crossray.evaluation.statistics.significance import (
    LEVEL,
    ROUNDING,
    Interval,
    Statistics,
    paired_difference,
    scores_of,
)
from crossray.text.sentences import split_sentences

#: The metric that decides whether a result ignores the image. BLEU and ROUGE-L hardly move for templates.
DECIDING_METRIC = "cider"

#: The same for the observations that the reports state.
CLINICAL_METRIC = "ce_f1"

#: The placeholders for removed words in IU X-Ray, and for rare words in the references of `r2gen`.
DEIDENTIFIED, UNKNOWN = "xxxx", "<unk>"

#: Lowest share and number of reports at which a sentence counts as a template.
TEMPLATE_SHARE, TEMPLATE_COUNT = 0.1, 10


@dataclass(frozen=True)
class Variety:
    """The variety of a list of reports, generated or true.

    Attributes:
        distinct_reports: distinct reports over all reports: 1/N for a system that always writes the same report.
        distinct1: distinct words over words, of all reports together; `distinct2` to `distinct4`: the same for n-grams.
            They fall as a text grows: compare them only between texts of similar length.
        words: mean number of words.
        deidentified: share of the reports with `xxxx`.
        unknown: share of the reports with `<unk>`.
        normal: share of the reports that are labeled as having no findings; None without a labeler.
    """

    distinct_reports: float
    distinct1: float
    distinct2: float
    distinct3: float
    distinct4: float
    words: float
    deidentified: float
    unknown: float
    normal: float | None = None


class Pairs(Protocol):
    """Generated reports that can be compared with other references, such as `nlg.ReportPairs`."""

    def __len__(self) -> int:
        """Number of studies."""

    def statistics(self, order: NDArray[np.int64] | None = None) -> Statistics:
        """Statistics with hypothesis `order[i]` against reference i; if None, hypothesis i."""


@dataclass(frozen=True)
class ShuffleCheck:
    """Scores with the images shuffled between studies.

    Attributes:
        scores: mean score over the shuffles for each metric except METEOR.
        differences: for each metric, true score minus shuffled score, with its paired bootstrap interval.
        shuffles: number of shuffles.
    """

    scores: dict[str, float]
    differences: dict[str, Interval]
    shuffles: int

    @property
    def ignores_image(self) -> bool:
        """Whether the lower bound of the CIDEr difference is at most 0."""
        return not_above(self.differences[DECIDING_METRIC])


def not_above(difference: Interval) -> bool:
    """Whether a difference is not significantly above 0; equal scores may differ by rounding."""
    return difference.low <= ROUNDING


def variety(reports: Sequence[str], normal: NDArray[np.bool_] | None = None) -> Variety:
    """The variety of reports; ratios are 0 if there is nothing to count.

    Args:
        reports: N reports.
        normal: (N,) whether each is labeled as having no findings.
    """
    (coded,) = code_reports(reports)
    totals = [int(order.count.sum()) for order in coded.orders]
    distinct = [
        len(np.unique(order.code)) / total if total else 0.0 for order, total in zip(coded.orders, totals, strict=True)
    ]
    different = {" ".join(report.split()) for report in reports}
    studies = max(1, len(reports))
    return Variety(
        distinct_reports=len(different) / studies,
        distinct1=distinct[0],
        distinct2=distinct[1],
        distinct3=distinct[2],
        distinct4=distinct[3],
        words=int(coded.lengths.sum()) / studies,
        deidentified=sum(DEIDENTIFIED in report.lower() for report in reports) / studies,
        unknown=sum(UNKNOWN in report for report in reports) / studies,
        normal=None if normal is None else float(normal.mean()),
    )


def template(reports: Sequence[str], references: Sequence[str]) -> tuple[float, float] | None:
    """Find the sentence that a system overuses most.

    Args:
        reports: N generated reports.
        references: the N true ones.

    Returns:
        The shares of generated and of true reports that contain it. It is the sentence with the largest ratio of these
        among those in at least `TEMPLATE_SHARE` and `TEMPLATE_COUNT` of the reports; None if there is none.
    """
    ours, theirs = (
        Counter(sentence for report in side for sentence in set(split_sentences(report)))
        for side in (reports, references)
    )
    least = max(TEMPLATE_COUNT, TEMPLATE_SHARE * len(reports))
    frequent = [sentence for sentence, count in ours.items() if count >= least]
    if not frequent:
        return None
    most = max(
        frequent, key=lambda sentence: (ours[sentence] / max(1, theirs[sentence]), ours[sentence], -theirs[sentence])
    )
    return ours[most] / len(reports), theirs[most] / len(references)


def derangement(studies: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """A random permutation of at least two studies without fixed points: a single cycle."""
    cycle = generator.permutation(studies)
    result = np.empty(studies, dtype=np.int64)
    result[cycle] = np.roll(cycle, 1)
    return result


def shuffle_check(
    pairs: Pairs,
    *,
    shuffles: int = 5,
    resamples: int = 1000,
    seed: int = 0,
    level: float = LEVEL,
) -> ShuffleCheck | None:
    """Compare predictions with themselves after shuffling the images between studies.

    Args:
        pairs: predictions and references.
        shuffles: number of random shuffles to average over.
        resamples: number of bootstrap resamples.
        seed: seed of the shuffles and resamples.
        level: share of the resamples in an interval.

    Returns:
        The check, or None for a single study, which has no other image.
    """
    if len(pairs) < 2:
        return None
    generator = np.random.default_rng(seed)
    shuffled = [pairs.statistics(derangement(len(pairs), generator)) for _ in range(shuffles)]
    scores = [scores_of(statistics) for statistics in shuffled]
    return ShuffleCheck(
        scores={name: float(np.mean([values[name] for values in scores])) for name in scores[0]},
        differences=paired_difference(pairs.statistics(), shuffled, resamples=resamples, seed=seed, level=level),
        shuffles=shuffles,
    )
