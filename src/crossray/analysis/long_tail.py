"""Rare observations: F1 of each, from the most to the least frequent, and the means of head, middle and tail.

A system may have several runs with different seeds; its scores are the means over them.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossray.errors import UserError
from crossray.evaluation.compare import same_protocols, same_studies, system_names
from crossray.evaluation.labelers import RULES, open_labeler
from crossray.evaluation.metrics.clinical import POSITIVE, ClinicalStatistics
from crossray.evaluation.predictions import PredictionFile
from crossray.evaluation.predictions.writing import clinical_notes
from crossray.evaluation.statistics.significance import Interval, bootstrap, paired_difference
from crossray.text.observations import CHEXPERT

#: Thirds of the observations, from the most to the least frequent.
PARTS = ("head", "middle", "tail")


@dataclass(frozen=True)
class TailStatistics:
    """Labels of N studies, from which the scores are computed (`evaluation.statistics.significance`).

    Attributes:
        runs: labels of each run of the system.
        parts: observations by part.
    """

    runs: Sequence[ClinicalStatistics]
    parts: Mapping[str, Sequence[str]]

    def __len__(self) -> int:
        """Number of studies."""
        return len(self.runs[0])

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """F1 of each observation and its mean over each part, by name: (R,) for (R, N) weights."""
        each = np.mean([run.weighted_class_f1(weights) for run in self.runs], axis=0)
        f1 = dict(zip(CHEXPERT, each.T, strict=True))
        means = {part: np.mean([f1[name] for name in names], axis=0) for part, names in self.parts.items()}
        return {name: f1[name] for names in self.parts.values() for name in names} | means

    def deviations(self) -> dict[str, float]:
        """Standard deviation of each score over the runs; empty for a single run."""
        if len(self.runs) < 2:
            return {}
        everyone = np.ones((1, len(self)))
        runs = [TailStatistics([run], self.parts).weighted_scores(everyone) for run in self.runs]
        return {name: statistics.stdev(float(run[name][0]) for run in runs) for name in runs[0]}


@dataclass(frozen=True)
class LongTail:
    """The scores of systems on the same studies.

    Attributes:
        studies: number of studies.
        labeler: labeler of the generated and true reports.
        protocol: protocol of the labeled references.
        parts: observations of "head", "middle" and "tail", most frequent first.
        support: number of true reports that call each observation positive.
        scores: F1 of each observation and its mean over each part, by system.
        differences: the same minus the scores of the first system; empty for the first system.
        deviations: standard deviation of each score over the runs of a system; empty for a single run.
    """

    studies: int
    labeler: str
    protocol: str
    parts: Mapping[str, tuple[str, ...]]
    support: Mapping[str, int]
    scores: Mapping[str, Mapping[str, Interval]]
    differences: Mapping[str, Mapping[str, Interval]]
    deviations: Mapping[str, Mapping[str, float]]


def long_tail(
    systems: Sequence[Sequence[PredictionFile]], *, labeler: str = RULES, resamples: int = 1000, seed: int = 0
) -> LongTail:
    """Score systems on rare and frequent observations.

    An observation is present if a text calls it positive, and its frequency is that in the true reports. Observations
    without a positive true report are omitted, because they have no recall. Of 14, the head has 5, the middle 5 and
    the tail 4.

    Args:
        systems: predictions of one or more systems on the same studies, for each system those of one or more runs.
        labeler: name of a labeler (`open_labeler`).
        resamples: number of bootstrap resamples of the studies.
        seed: seed of the resamples.

    Raises:
        UserError: the files contain different studies or references, most reports are in a language that the labeler
            does not read, or fewer than three observations occur.
    """
    files = [file for runs in systems for file in runs]
    system_names(files)  # raises an error for a file given twice
    names = system_names([runs[0] for runs in systems])
    aligned, _ = same_studies(files)
    protocols, _ = same_protocols(aligned)
    protocol = "full" if "full" in protocols else next(iter(protocols))
    reader = open_labeler(labeler)
    if not clinical_notes(aligned[0].references(protocol), reader)[0]:
        raise UserError(
            f"{aligned[0].path}: references: most are in a language that the labeler does not read; give studies whose "
            "reports it reads."
        )
    references = reader.label(aligned[0].references(protocol))
    labelled = [
        ClinicalStatistics.of(reader.label(file.hypotheses()), references, reader.observations) for file in aligned
    ]
    counts = POSITIVE.present_in(labelled[0].reference).sum(axis=0)
    support = {name: int(count) for name, count in zip(CHEXPERT, counts, strict=True) if count}
    if len(support) < len(PARTS):
        raise UserError(f"{aligned[0].path}: {reader.name} finds {len(support)} observations in its true reports; a "
                        "long tail needs three, so give more studies.")  # fmt: skip
    ordered = sorted(support, key=lambda name: (-support[name], CHEXPERT.index(name)))
    thirds = np.array_split(np.array(ordered), len(PARTS))
    parts = {part: tuple(map(str, third)) for part, third in zip(PARTS, thirds, strict=True)}
    rest = iter(labelled)
    tails = {name: TailStatistics([next(rest) for _ in runs], parts) for name, runs in zip(names, systems, strict=True)}
    first, *others = names
    return LongTail(
        studies=len(references),
        labeler=reader.name,
        protocol=protocol,
        parts=parts,
        support=support,
        scores={name: bootstrap(tail, resamples=resamples, seed=seed) for name, tail in tails.items()},
        differences={
            name: paired_difference(tails[name], tails[first], resamples=resamples, seed=seed) for name in others
        },
        deviations={name: tail.deviations() for name, tail in tails.items()},
    )
