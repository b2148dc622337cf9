"""All metrics of several systems on the same studies, as statistics of single studies.

Every score is a function of sums over studies, so that parts of a test set, bootstrap resamples and exchanges between
two systems cost a matrix product and no second pass over the text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crossray.errors import UserError
from crossray.evaluation.labelers import Labeler
from crossray.evaluation.metrics.clinical import ClinicalStatistics
from crossray.evaluation.metrics.meteor import METRIC, MeteorStatistics, jar_sha256
from crossray.evaluation.metrics.meteor import meteor as align
from crossray.evaluation.metrics.nlg import NlgStatistics, ReportPairs

#: REVTAF's last column, the mean of its other nine; it exists where all nine do.
AVERAGE = "avg"
AVERAGED = ("bleu1", "bleu2", "bleu3", "bleu4", METRIC, "rouge_l", "ce_precision", "ce_recall", "ce_f1")

#: Whether METEOR is computed: when Java and the jar are there, always (their absence is an error), or never.
MeteorChoice = Literal["auto", "yes", "no"]


@dataclass(frozen=True)
class StudyStatistics:
    """All metrics of one system as statistics of single studies.

    Attributes:
        nlg: of BLEU, ROUGE-L and CIDEr.
        meteor: of METEOR; None when it was not computed.
        clinical: of clinical efficacy; None without a labeler.
    """

    nlg: NlgStatistics
    meteor: MeteorStatistics | None = None
    clinical: ClinicalStatistics | None = None

    def __len__(self) -> int:
        """Number of studies."""
        return len(self.nlg)

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """Metric name to (R,) scores of resamples with (R, N) multiplicities."""
        scores = self.nlg.weighted_scores(weights)
        if self.meteor is not None:
            scores[METRIC] = self.meteor.weighted_score(weights)
        if self.clinical is not None:
            scores |= self.clinical.weighted_scores(weights)
        if all(name in scores for name in AVERAGED):
            scores[AVERAGE] = np.mean([scores[name] for name in AVERAGED], axis=0)
        return scores

    def part(self, studies: NDArray[np.bool_]) -> "StudyStatistics":
        """Statistics of the studies in a mask."""
        return StudyStatistics(
            nlg=self.nlg.part(studies),
            meteor=None if self.meteor is None else self.meteor.part(studies),
            clinical=None if self.clinical is None else self.clinical.part(studies),
        )


@dataclass(frozen=True)
class Pairings:
    """One system's reports against the true ones, ready to be put against those of other studies.

    METEOR has no part in it: it would have to align every new pair.

    Attributes:
        pairs: the reports.
        clinical: their labels; None without a labeler.
    """

    pairs: ReportPairs
    clinical: ClinicalStatistics | None = None

    def __len__(self) -> int:
        """Number of studies."""
        return len(self.pairs)

    def statistics(self, order: NDArray[np.int64] | None = None) -> StudyStatistics:
        """Statistics with hypothesis `order[i]` (N,) against reference i; each its own when None."""
        clinical = self.clinical
        if clinical is not None and order is not None:
            clinical = clinical.paired(order)
        return StudyStatistics(self.pairs.statistics(order), clinical=clinical)


@dataclass(frozen=True)
class Measured:
    """Statistics of several systems under several protocols.

    Attributes:
        statistics: (protocol name, system name) to the statistics of that system.
        labeler: name of the labeler; "" without one.
        meteor_jar_sha256: digest of METEOR's jar; None when METEOR was not computed.
        notes: what was not computed, and why.
    """

    statistics: Mapping[tuple[str, str], StudyStatistics]
    labeler: str = ""
    meteor_jar_sha256: str | None = None
    notes: tuple[str, ...] = ()


def measure(
    systems: Mapping[str, Sequence[str]],
    references: Mapping[str, Sequence[str]],
    *,
    meteor: MeteorChoice = "auto",
    labeler: Labeler | None = None,
) -> Measured:
    """Compute the statistics of every system under every protocol.

    Args:
        systems: system name to N generated reports.
        references: protocol name to N true reports, in the same order.
        meteor: "auto", "yes" or "no".
        labeler: labels all these reports; without one there are no clinical scores.

    Raises:
        UserError: METEOR was demanded and cannot be computed.
    """
    aligned, digest, notes = _meteor_of_all(systems, references, meteor)
    labelled = {} if labeler is None else _clinical_of_all(systems, references, labeler)
    statistics = {
        (name, system): StudyStatistics(
            ReportPairs(reports, true).statistics(), aligned.get((name, system)), labelled.get((name, system))
        )
        for name, true in references.items()
        for system, reports in systems.items()
    }
    return Measured(statistics, "" if labeler is None else labeler.name, digest, notes)


def _clinical_of_all(
    systems: Mapping[str, Sequence[str]], references: Mapping[str, Sequence[str]], labeler: Labeler
) -> dict[tuple[str, str], ClinicalStatistics]:
    """Labels by protocol and system. Equal reports are labelled once: baselines and protocols share most of them."""
    texts = [*systems.values(), *references.values()]
    distinct = {text: row for row, text in enumerate(dict.fromkeys(report for reports in texts for report in reports))}
    codes = labeler.label(list(distinct))
    return {
        (name, system): ClinicalStatistics.of(
            codes[[distinct[report] for report in reports]],
            codes[[distinct[report] for report in true]],
            labeler.observations,
        )
        for name, true in references.items()
        for system, reports in systems.items()
    }


def _meteor_of_all(
    systems: Mapping[str, Sequence[str]], references: Mapping[str, Sequence[str]], choice: MeteorChoice
) -> tuple[dict[tuple[str, str], MeteorStatistics], str | None, tuple[str, ...]]:
    """METEOR's counts by protocol and system, the jar's digest, and notes. Java starts once: that takes seconds."""
    if choice == "no":
        return {}, None, (f"{METRIC} not computed: left out on request",)
    keys = [(name, system) for name in references for system in systems]
    try:
        everything = align(
            [report for _, system in keys for report in systems[system]],
            [report for name, _ in keys for report in references[name]],
        )
    except UserError as error:
        if choice == "yes":
            raise
        return {}, None, (f"{METRIC} not computed: {error}",)
    parts = np.split(np.arange(len(everything)), len(keys))
    return {key: everything.part(part) for key, part in zip(keys, parts, strict=True)}, jar_sha256(), ()
