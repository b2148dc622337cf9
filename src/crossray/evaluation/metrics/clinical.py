"""Clinical efficacy: whether a generated report states the same observations as the true report.

Both reports are labeled by the same labeler, a `Convention` says which statuses count as present, and presence is
compared over the 14 observations of CheXpert or the five of its competition:

* example-based: precision, recall and F1 of each study over its observations, then the mean over studies (PromptMRG,
  REVTAF);
* micro: counts summed over studies and observations;
* macro: the mean of the scores of the single observations;
* per class: the score of a single observation.

A quotient 0/0 is 0 everywhere, as with scikit-learn's `zero_division=0`. An observation that occurs in no true report
of a resample therefore counts as 0 in the macro mean: the mean is always over 14 (or 5) observations, and macro scores
of small sets, like the lower ends of their intervals, are pessimistic.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from crossray.errors import UserError
from crossray.evaluation.labelers import Labeler
from crossray.evaluation.metrics.family import (
    Family,
    FamilyStatistics,
    Metric,
    NotComputedError,
    Repaired,
    Reports,
    Setting,
    register,
)
from crossray.evaluation.statistics.significance import Interval, interval, resamples_of
from crossray.text.observations import CHEXPERT, STATUSES

#: Version of the computation; part of a protocol.
VERSION = "1"

#: The observations of the CheXpert competition.
CHEXPERT_5 = ("atelectasis", "cardiomegaly", "consolidation", "edema", "pleural_effusion")

#: Observations that a metric covers, by the digits in its name.
OBSERVATION_SETS = {"": CHEXPERT, "5": CHEXPERT_5}

AVERAGES = ("example", "micro", "macro")
MEASURES = ("precision", "recall", "f1")

_NO_FINDING = CHEXPERT.index("no_finding")


@dataclass(frozen=True)
class Convention:
    """Which statuses of an observation count as present; all others count as absent.

    Attributes:
        name: name in tables and results.
        suffix: end of its metrics' names.
        present: statuses that count as present.
    """

    name: str
    suffix: str
    present: tuple[str, ...]

    def present_in(self, codes: NDArray[np.int8]) -> NDArray[np.bool_]:
        """Whether the observations with these status codes are present; any shape."""
        return np.asarray(np.array([status in self.present for status in STATUSES])[codes])


#: REVTAF and PromptMRG compare with "== positive"; R2GenCMN's compute_ce maps blank and uncertain to 0: the same.
POSITIVE = Convention("positive", "", ("positive",))

#: The other convention of the literature. In both, what a report does not mention counts as absent, like a negation.
POSITIVE_OR_UNCERTAIN = Convention("positive or uncertain", "_uncertain", ("positive", "uncertain"))

#: Both are always computed; the first is the main one.
CONVENTIONS = (POSITIVE, POSITIVE_OR_UNCERTAIN)


def metric_name(measure: str, average: str = "example", observations: str = "", suffix: str = "") -> str:
    """Name of a clinical metric.

    Args:
        measure: one of `MEASURES`.
        average: one of `AVERAGES`; the names of example-based scores omit it, as in REVTAF's tables.
        observations: key of `OBSERVATION_SETS`.
        suffix: suffix of the `Convention`.

    Returns:
        A name such as `ce_f1`, `ce_micro_recall` or `ce5_macro_f1_uncertain`.
    """
    kind = "" if average == "example" else f"{average}_"
    return f"ce{observations}_{kind}{measure}{suffix}"


#: Names of all clinical metrics except those of single observations.
METRICS = tuple(
    metric_name(measure, average, observations, convention.suffix)
    for convention in CONVENTIONS
    for observations in OBSERVATION_SETS
    for average in AVERAGES
    for measure in MEASURES
)

#: Metrics that validation computes during training. The example-based ones reward reports that call everyone normal.
SELECTION_METRICS = (*map(metric_name, MEASURES), metric_name("f1", "micro"), metric_name("f1", "macro"))


@dataclass(frozen=True)
class ClassScore:
    """The scores of one observation.

    Attributes:
        observation: name of the observation.
        support: number of studies whose true report states it.
        written: number of studies whose generated report states it.
        precision: share of the written ones that are true; 0 if none is written.
        recall: share of the true ones that are written; 0 if there is none.
        f1: their harmonic mean, with its bootstrap interval.
    """

    observation: str
    support: int
    written: int
    precision: float
    recall: float
    f1: Interval


@dataclass(frozen=True)
class ClinicalStatistics:
    """The labels of N studies, from which the clinical scores of any subset or resample of them are computed.

    Attributes:
        hypothesis: (N, 14) status codes of the generated reports, in the order of `CHEXPERT`.
        reference: (N, 14) status codes of the true reports.
    """

    hypothesis: NDArray[np.int8]
    reference: NDArray[np.int8]

    @classmethod
    def of(
        cls, hypothesis: NDArray[np.int8], reference: NDArray[np.int8], observations: Sequence[str]
    ) -> "ClinicalStatistics":
        """Statistics of a labeler's output.

        Args:
            hypothesis: (N, K) status codes.
            reference: (N, K) status codes.
            observations: names of the K columns.

        Raises:
            UserError: an observation of CheXpert is not among them.
        """
        missing = [name for name in CHEXPERT if name not in observations]
        if missing:
            raise UserError(f"the labeler has no column for {', '.join(missing)}; use one that labels all of CheXpert")
        columns = [list(observations).index(name) for name in CHEXPERT]
        return cls(hypothesis[:, columns], reference[:, columns])

    def __len__(self) -> int:
        """Number of studies."""
        return len(self.reference)

    @property
    def without_findings(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether each generated and each true report is labeled as having no findings: two arrays of shape (N,)."""
        ours, theirs = (POSITIVE.present_in(codes[:, _NO_FINDING]) for codes in (self.hypothesis, self.reference))
        return ours, theirs

    @property
    def references_differ(self) -> bool:
        """Whether any two true reports state different observations."""
        present = POSITIVE.present_in(self.reference)
        return bool((present != present[0]).any())

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """Scores of R resamples of the studies.

        Args:
            weights: (R, N) how often each study occurs in each resample; every row has a positive sum.

        Returns:
            (R,) scores by the names of `METRICS`: exactly those of the resampled studies.
        """
        weights = np.asarray(weights, dtype=np.float64)
        scores = {}
        for convention, counts in zip(CONVENTIONS, self._counts, strict=True):
            resampled = np.tensordot(weights, counts, axes=1)
            for key, observations in OBSERVATION_SETS.items():
                columns = [CHEXPERT.index(name) for name in observations]
                by_study = scores_of_counts(counts[:, columns].sum(axis=1))
                values = {
                    "example": weights @ by_study / weights.sum(axis=1, keepdims=True),
                    "micro": scores_of_counts(resampled[:, columns].sum(axis=1)),
                    "macro": scores_of_counts(resampled[:, columns]).mean(axis=1),
                }
                for average, measures in values.items():
                    for measure, value in zip(MEASURES, measures.T, strict=True):
                        scores[metric_name(measure, average, key, convention.suffix)] = value
        return scores

    def weighted_class_f1(
        self, weights: NDArray[np.floating], convention: Convention = POSITIVE
    ) -> NDArray[np.float64]:
        """F1 of every observation in R resamples of the studies.

        Args:
            weights: (R, N) how often each study occurs in each resample.
            convention: one of `CONVENTIONS`.

        Returns:
            (R, 14), in the order of `CHEXPERT`.
        """
        counts = self._counts[CONVENTIONS.index(convention)]
        scores = scores_of_counts(np.tensordot(np.asarray(weights, dtype=np.float64), counts, axes=1))
        return np.asarray(scores[..., MEASURES.index("f1")])

    def class_scores(self, *, resamples: int = 1000, seed: int = 0) -> dict[str, tuple[ClassScore, ...]]:
        """The scores of the single observations.

        Args:
            resamples: number of bootstrap resamples for each interval.
            seed: seed of the resamples.

        Returns:
            Scores of the 14 observations in the order of `CHEXPERT`, by the name of the convention.
        """
        result = {}
        for convention, counts in zip(CONVENTIONS, self._counts, strict=True):
            draws = resamples_of(len(self), resamples, seed)
            drawn_f1 = np.concatenate([self.weighted_class_f1(weights, convention) for weights in draws])
            sums = counts.sum(axis=0)
            result[convention.name] = tuple(
                ClassScore(
                    observation=name,
                    support=int(true_positive + false_negative),
                    written=int(true_positive + false_positive),
                    precision=float(precision),
                    recall=float(recall),
                    f1=interval(float(f1), drawn),
                )
                for name, (true_positive, false_positive, false_negative), (precision, recall, f1), drawn in zip(
                    CHEXPERT, sums, scores_of_counts(sums), drawn_f1.T, strict=True
                )
            )
        return result

    def part(self, studies: NDArray[np.integer] | NDArray[np.bool_]) -> "ClinicalStatistics":
        """Statistics of some of the studies, by index or mask."""
        return ClinicalStatistics(self.hypothesis[studies], self.reference[studies])

    def paired(self, order: NDArray[np.integer]) -> "ClinicalStatistics":
        """Statistics of other pairs: (N,) `order` is the hypothesis to compare with each reference."""
        return ClinicalStatistics(self.hypothesis[order], self.reference)

    @cached_property
    def _counts(self) -> tuple[NDArray[np.float64], ...]:
        """For each convention (N, 14, 3) true positives, false positives and false negatives."""
        result = []
        for convention in CONVENTIONS:
            ours, theirs = convention.present_in(self.hypothesis), convention.present_in(self.reference)
            result.append(np.stack([ours & theirs, ours & ~theirs, ~ours & theirs], axis=-1).astype(np.float64))
        return tuple(result)


def scores_of_counts(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Precision, recall and F1.

    Args:
        counts: (..., 3) true positives, false positives and false negatives.

    Returns:
        (..., 3) in the order of `MEASURES`; 0 where nothing is counted.
    """
    true_positive, false_positive, false_negative = np.moveaxis(counts, -1, 0)
    found = np.stack([true_positive, true_positive, 2 * true_positive], axis=-1)
    written, true = true_positive + false_positive, true_positive + false_negative
    possible = np.stack([written, true, written + true], axis=-1)
    return np.asarray(np.divide(found, possible, out=np.zeros_like(found), where=possible > 0))


def clinical_f1(
    hypothesis: NDArray[np.int8],
    reference: NDArray[np.int8],
    observations: Sequence[str],
    weights: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """(N,) F1 of each report, positive only over all observations: the mean of these is `ce_f1`.

    Args:
        hypothesis: (N, K) status codes of the generated reports.
        reference: (N, K) status codes of the true reports.
        observations: names of the K columns.
        weights: (14,) weight of a hit or a miss for each observation of `CHEXPERT`; all equal if None.

    Raises:
        UserError: an observation of CheXpert is not among them.
    """
    counts = ClinicalStatistics.of(hypothesis, reference, observations)._counts[CONVENTIONS.index(POSITIVE)]
    if weights is not None:
        counts = counts * weights[None, :, None]
    return np.asarray(scores_of_counts(counts.sum(axis=1))[:, MEASURES.index("f1")])


def rarity_weights(labels: NDArray[np.int8], observations: Sequence[str], power: float) -> NDArray[np.float64]:
    """(14,) weights of the observations of `CHEXPERT`: (number of reports with it, plus one) ** -power, with mean 1.

    Args:
        labels: (N, K) status codes of the reports that are counted.
        observations: names of the K columns.
        power: 0 for equal weights, 1 for the inverse of the frequency.

    Raises:
        UserError: an observation of CheXpert is not among them.
    """
    present = ClinicalStatistics.of(labels, labels, observations)._counts[CONVENTIONS.index(POSITIVE)][:, :, 0]
    weights = (present.sum(axis=0) + 1) ** -power
    return np.asarray(weights / weights.mean())


def score(hypotheses: Sequence[str], references: Sequence[str], labeler: Labeler) -> dict[str, float]:
    """Clinical efficacy of generated reports over all observations, positive only, as used to select models.

    Args:
        hypotheses: N generated reports.
        references: N true reports, in the same order.
        labeler: labeler of both.

    Returns:
        The metrics of `SELECTION_METRICS`, between 0 and 1.
    """
    labels = labeler.label(hypotheses), labeler.label(references)
    scores = ClinicalStatistics.of(*labels, labeler.observations).weighted_scores(np.ones((1, len(references))))
    return {name: float(scores[name][0]) for name in SELECTION_METRICS}


_HEADINGS = {"ce_precision": "CE precision", "ce_recall": "CE recall", "ce_f1": "CE F1"}


@register("clinical")
class Clinical(Family):
    """Clinical efficacy. Its main columns are REVTAF's: example-based, over 14 observations, positive only."""

    metrics = (
        *(Metric(name, heading, place) for place, (name, heading) in enumerate(_HEADINGS.items(), start=8)),
        *(Metric(name) for name in METRICS if name not in _HEADINGS),
    )
    validated = SELECTION_METRICS

    def measure(self, reports: Sequence[Reports], setting: Setting) -> list[FamilyStatistics]:
        """Labels of all reports. Equal reports are labeled once: baselines and protocols share most of them."""
        labeler = setting.labeler
        if labeler is None:
            raise NotComputedError("clinical efficacy not computed: left out on request")
        texts = dict.fromkeys(report for both in reports for side in both for report in side)
        place = {text: row for row, text in enumerate(texts)}
        codes = labeler.label(list(texts))
        coded = [[codes[[place[report] for report in side]] for side in both] for both in reports]
        return [ClinicalStatistics.of(ours, theirs, labeler.observations) for ours, theirs in coded]

    def repaired(self, reports: Reports, statistics: FamilyStatistics) -> Repaired:
        """Labels move with their reports."""
        assert isinstance(statistics, ClinicalStatistics)
        return statistics.paired

    def validate(self, reports: Reports, labeler: Labeler) -> dict[str, float]:
        """The metrics that validation selects models by."""
        return score(*reports, labeler)


def clinical_statistics(families: Mapping[str, FamilyStatistics]) -> ClinicalStatistics | None:
    """The clinical statistics among those of all families; None without a labeler."""
    found = families.get(Clinical.name)
    return found if isinstance(found, ClinicalStatistics) else None
