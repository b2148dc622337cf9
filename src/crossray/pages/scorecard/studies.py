"""The studies on a scorecard: images, reference, and the reports of all systems with marks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crossray.analysis.agreement import (
    SIGNS,
    WORDS,
    Agreement,
    Kind,
    marks_of_generated,
    marks_of_reference,
    spoken,
)
from crossray.evaluation.metrics.nlg import ReportPairs
from crossray.pages import charts
from crossray.pages.marks import marked_text
from crossray.pages.scorecard.runs import System
from crossray.text.observations import ReportLabels, label_report

if TYPE_CHECKING:
    from markupsafe import Markup

_GROUPS = {"best": "among the best", "worst": "among the worst", "random": "drawn at random"}

_KEY: tuple[tuple[Kind, str, str], ...] = (
    ("agree", "agreed", "stated in the reference and in the report"),
    ("false", "false alarm", "stated in the report only"),
    ("missed", "missed", "stated in the reference only; in a system's report: the words that deny it"),
    ("partly", "partly", "in a reference: found by some systems and missed by others"),
    ("negative", "denied", "stated to be absent; muted"),
)


@dataclass(frozen=True)
class StudyComparison:
    """One study on the page.

    Attributes:
        id: identifier of the study.
        reference: the true report.
        reference_labels: labels of the true report, with their evidence.
        reports: report by name of the system.
        labels: labels of the report by name of the system.
        cider: mean CIDEr-D of the systems on this study.
    """

    id: str
    reference: str
    reference_labels: ReportLabels
    reports: Mapping[str, str]
    labels: Mapping[str, ReportLabels]
    cider: float

    @property
    def agreements(self) -> dict[str, Agreement]:
        """Agreement with the reference by name of the system."""
        return {name: Agreement.between(self.reference_labels, labels) for name, labels in self.labels.items()}

    @property
    def balance(self) -> int:
        """Number of agreed observations minus those in one text only, summed over the systems."""
        return sum(agreement.balance for agreement in self.agreements.values())


def compare_studies(systems: Sequence[System], protocol: str) -> list[StudyComparison]:
    """Label and compare all studies, in the order of the first system's predictions."""
    reports = [{row.id: row.prediction for row in system.predictions.rows} for system in systems]
    names = [system.name for system in systems]
    first = systems[0].predictions
    references = first.references(protocol)
    cider = np.mean(
        [ReportPairs([written[row.id] for row in first.rows], references).statistics().cider for written in reports],
        axis=0,
    )
    return [
        StudyComparison(
            id=row.id,
            reference=reference,
            reference_labels=label_report(reference),
            reports=dict(zip(names, (written[row.id] for written in reports), strict=True)),
            labels=dict(zip(names, (label_report(written[row.id]) for written in reports), strict=True)),
            cider=float(score),
        )
        for row, reference, score in zip(first.rows, references, cider, strict=True)
    ]


def choose(studies: Sequence[StudyComparison], count: int, seed: int = 0) -> list[tuple[str, StudyComparison]]:
    """Choose studies: a third from the best, a third from the worst, and the rest at random from the others.

    The best studies have the highest `StudyComparison.balance`, the worst the lowest; ties are broken by mean CIDEr-D.

    Args:
        studies: the studies to choose from.
        count: number of studies to choose.
        seed: seed of the random choice.

    Returns:
        The studies with their group, in the order "best", "worst", "random".
    """
    order = sorted(studies, key=lambda study: (study.balance, study.cider), reverse=True)
    count = min(count, len(order))
    third = count // 3
    best, middle, worst = order[:third], order[third : len(order) - third], order[len(order) - third :]
    drawn = np.random.default_rng(seed).choice(len(middle), size=count - 2 * third, replace=False)
    return [
        *(("best", study) for study in best),
        *(("worst", study) for study in reversed(worst)),
        *(("random", middle[index]) for index in sorted(drawn)),
    ]


def key() -> list[dict[str, str]]:
    """The legend of the marks: a marked word and an explanation for each kind."""
    return [{"kind": kind, "word": word, "sign": SIGNS[kind], "meaning": meaning} for kind, word, meaning in _KEY]


def filters(systems: Sequence[System], chosen: Sequence[StudyComparison]) -> list[dict[str, Any]]:
    """The groups of checkboxes that filter the studies."""
    counts = Counter(name for study in chosen for name in _observations(study))
    groups: list[tuple[str, str, list[tuple[str, str]]]] = [
        ("Observation", "observation", [(name, f"{spoken(name)} ({count})") for name, count in counts.most_common()]),
        ("Marked as", "kind", [(kind, f"{SIGNS[kind]} {WORDS[kind]}") for kind in WORDS]),
    ]
    if len(systems) > 1:
        groups.append(("System", "system", [(str(number), system.name) for number, system in enumerate(systems)]))
    return [{"legend": legend, "name": name, "choices": choices} for legend, name, choices in groups if choices]


def shown_study(group: str, study: StudyComparison, images: Sequence["Markup"]) -> dict[str, Any]:
    """The template's values for one study: its views, the reference and the systems' reports."""
    agreements = study.agreements
    marks = " ".join(
        f"{number}:{kind}:{name}"
        for number, agreement in enumerate(agreements.values())
        for kind, names in _kinds(agreement).items()
        for name in names
    )
    reports = [
        {
            "system": name,
            "swatch": charts.swatch(number),
            "text": marked_text(study.reports[name], marks_of_generated(study.labels[name], agreement)),
            "chips": [
                {"kind": kind, "sign": SIGNS[kind], "name": spoken(observation), "word": WORDS[kind]}
                for kind, names in _kinds(agreement).items()
                for observation in names
            ],
        }
        for number, (name, agreement) in enumerate(agreements.items())
    ]
    return {
        "id": study.id,
        "marks": marks,
        "group": f"{_GROUPS[group]}, mean CIDEr-D {study.cider:.2f}",
        "images": images,
        "reference": marked_text(study.reference, marks_of_reference(study.reference_labels, agreements)),
        "reports": reports,
    }


def _observations(study: StudyComparison) -> set[str]:
    """Observations that at least one text of a study states."""
    return {name for agreement in study.agreements.values() for names in _kinds(agreement).values() for name in names}


def _kinds(agreement: Agreement) -> dict[Kind, Mapping[str, object]]:
    return {"agree": agreement.agreed, "false": agreement.false_alarms, "missed": agreement.missed}
