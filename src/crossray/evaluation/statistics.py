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
from crossray.evaluation.meteor import METRIC, MeteorStatistics, jar_sha256
from crossray.evaluation.meteor import meteor as align
from crossray.evaluation.nlg import NlgStatistics, ReportPairs

#: Whether METEOR is computed: when Java and the jar are there, always (their absence is an error), or never.
MeteorChoice = Literal["auto", "yes", "no"]


@dataclass(frozen=True)
class StudyStatistics:
    """All metrics of one system as statistics of single studies."""

    nlg: NlgStatistics
    meteor: MeteorStatistics | None = None

    def __len__(self) -> int:
        """Number of studies."""
        return len(self.nlg)

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """Metric name to (R,) scores of resamples with (R, N) multiplicities."""
        scores = self.nlg.weighted_scores(weights)
        return scores if self.meteor is None else {**scores, METRIC: self.meteor.weighted_score(weights)}

    def part(self, studies: NDArray[np.bool_]) -> "StudyStatistics":
        """Statistics of the studies in a mask."""
        return StudyStatistics(self.nlg.part(studies), None if self.meteor is None else self.meteor.part(studies))


@dataclass(frozen=True)
class Measured:
    """Statistics of several systems under several protocols.

    Attributes:
        statistics: (protocol name, system name) to the statistics of that system.
        meteor_jar_sha256: digest of METEOR's jar; None when METEOR was not computed.
        notes: what was not computed, and why.
    """

    statistics: Mapping[tuple[str, str], StudyStatistics]
    meteor_jar_sha256: str | None = None
    notes: tuple[str, ...] = ()


def measure(
    systems: Mapping[str, Sequence[str]],
    references: Mapping[str, Sequence[str]],
    *,
    meteor: MeteorChoice = "auto",
) -> Measured:
    """Compute the statistics of every system under every protocol.

    Args:
        systems: system name to N generated reports.
        references: protocol name to N true reports, in the same order.
        meteor: "auto", "yes" or "no".

    Raises:
        UserError: METEOR was demanded and cannot be computed.
    """
    aligned, digest, notes = _meteor_of_all(systems, references, meteor)
    statistics = {
        (name, system): StudyStatistics(ReportPairs(reports, true).statistics(), aligned.get((name, system)))
        for name, true in references.items()
        for system, reports in systems.items()
    }
    return Measured(statistics, digest, notes)


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
