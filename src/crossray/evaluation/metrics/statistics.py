"""All metrics of several systems on the same studies, as statistics of single studies.

Every score is a function of sums over studies. Subsets of a test set, bootstrap resamples and exchanges between two
systems therefore take one matrix product and no second pass over the text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from crossray.evaluation.labelers import Labeler
from crossray.evaluation.metrics.family import (
    FAMILIES,
    FamilyStatistics,
    MeteorChoice,
    NotComputedError,
    Repaired,
    Reports,
    Setting,
    families,
)


@dataclass(frozen=True)
class StudyStatistics:
    """All metrics of one system as statistics of single studies.

    Attributes:
        families: statistics by the name of a family of metrics; families that were not computed are absent.
    """

    families: Mapping[str, FamilyStatistics]

    def __len__(self) -> int:
        """Number of studies."""
        return len(next(iter(self.families.values())))

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """(R,) scores for each metric, of resamples with (R, N) multiplicities."""
        scores: dict[str, NDArray[np.float64]] = {}
        for statistics in self.families.values():
            scores |= statistics.weighted_scores(weights)
        for family in families():
            scores |= family.derived(scores)
        return scores

    def part(self, studies: NDArray[np.bool_]) -> "StudyStatistics":
        """Statistics of the studies in a mask."""
        return StudyStatistics({name: statistics.part(studies) for name, statistics in self.families.items()})


@dataclass(frozen=True)
class Pairings:
    """One system's reports and the true ones, which can be paired with those of other studies.

    Attributes:
        studies: number of studies.
        families: a function for each family that returns the statistics of other pairs. METEOR is not included, because
            it would have to align every new pair.
    """

    studies: int
    families: Mapping[str, Repaired]

    @classmethod
    def of(cls, reports: Reports, statistics: StudyStatistics) -> "Pairings":
        """Pairings of the reports behind `statistics`."""
        ways = {name: FAMILIES.get(name).repaired(reports, one) for name, one in statistics.families.items()}
        return cls(len(reports[1]), {name: way for name, way in ways.items() if way is not None})

    def __len__(self) -> int:
        """Number of studies."""
        return self.studies

    def statistics(self, order: NDArray[np.int64] | None = None) -> StudyStatistics:
        """Statistics with hypothesis `order[i]` (N,) against reference i; if None, hypothesis i."""
        places = np.arange(self.studies) if order is None else order
        return StudyStatistics({name: repaired(places) for name, repaired in self.families.items()})


@dataclass(frozen=True)
class Measured:
    """Statistics of several systems under several protocols.

    Attributes:
        statistics: statistics by (protocol name, system name).
        labeler: name of the labeler; "" without one.
        implementations: by the name of a computed family, the package that computed it, unless it is CrossRay.
        notes: notes on metrics that were not computed.
    """

    statistics: Mapping[tuple[str, str], StudyStatistics]
    labeler: str = ""
    implementations: Mapping[str, str] = field(default_factory=dict)
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
        systems: N generated reports for each system name.
        references: N true reports for each protocol name, in the same order.
        meteor: "auto", "yes" or "no".
        labeler: labels all reports; without one, there are no clinical scores.

    Raises:
        UserError: METEOR is required and cannot be computed.
    """
    keys = [(name, system) for name in references for system in systems]
    reports = [(systems[system], references[name]) for name, system in keys]
    found: dict[tuple[str, str], dict[str, FamilyStatistics]] = {key: {} for key in keys}
    implementations, notes = {}, []
    for family in families():
        try:
            measured = family.measure(reports, Setting(labeler, meteor))
        except NotComputedError as reason:
            notes.append(str(reason))
            continue
        if measured is None:
            continue
        for key, statistics in zip(keys, measured, strict=True):
            found[key][family.name] = statistics
        if implementation := family.implementation():
            implementations[family.name] = implementation
    return Measured(
        {key: StudyStatistics(one) for key, one in found.items()},
        "" if labeler is None else labeler.name,
        implementations,
        tuple(notes),
    )


def validation_scores(hypotheses: Sequence[str], references: Sequence[str], labeler: Labeler) -> dict[str, float]:
    """The scores that training computes at every validation: those of the fast families.

    Args:
        hypotheses: N generated reports.
        references: N true reports, in the same order.
        labeler: labeler of both.

    Returns:
        The score for each metric.
    """
    scores: dict[str, float] = {}
    for family in families():
        scores |= family.validate((hypotheses, references), labeler)
    return scores
