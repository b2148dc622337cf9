"""Tables of clinical efficacy: each average, set of observations and convention, and each observation."""

from collections.abc import Sequence

from crossray.evaluation.metrics.clinical import (
    AVERAGES,
    CONVENTIONS,
    MEASURES,
    OBSERVATION_SETS,
    ClassScore,
    metric_name,
)
from crossray.evaluation.predictions.protocol import require_same
from crossray.evaluation.results import Result
from crossray.pages.tables import Grid, accused, ends, value

_MEASURE_HEADINGS = {"precision": "precision", "recall": "recall", "f1": "F1"}


def clinical_grid(results: Sequence[Result]) -> Grid:
    """Table of precision, recall and F1 of the first system, and F1 of the others.

    Raises:
        UserError: the results have different protocols, or there is none.
    """
    protocol = require_same(result.protocol for result in results)
    ours, *others = results
    lines = []
    for convention in CONVENTIONS:
        lines.append([f"{convention.name}:", *[""] * (len(MEASURES) + 1 + len(others))])
        for key, observations in OBSERVATION_SETS.items():
            for average in AVERAGES:
                names = [metric_name(measure, average, key, convention.suffix) for measure in MEASURES]
                f1 = names[MEASURES.index("f1")]
                lines.append(
                    [
                        f"{average}, {len(observations)}",
                        *(value(ours.scores[name]) for name in names),
                        ends(ours.scores[f1]),
                        *(value(other.scores[f1]) for other in others),
                    ]
                )
    header = ["", *_MEASURE_HEADINGS.values(), "interval", *(f"F1 of {other.system}" for other in others)]
    described = (
        f"clinical efficacy of {ours.system}: average, number of observations, and statuses that count as present; "
        f"protocol {protocol.name}, labeler {protocol.labeler}"
    )
    return Grid(accused(results, described), header, lines)


def class_grid(result: Result) -> Grid:
    """Table with one line per observation: numbers of true and generated reports with it, precision, recall and F1.

    The score of an observation that no report has is a dash; in the averages, it counts as 0.
    """
    main, other = (result.classes[convention.name] for convention in CONVENTIONS)
    lines = [
        [score.observation.replace("_", " "), *_cells(score), *_cells(uncertain_too)[0:5:4]]
        for score, uncertain_too in zip(main, other, strict=True)
    ]
    header = ["", "true", "written", *_MEASURE_HEADINGS.values(), "interval"]
    header += ["true*", "F1*"]
    described = (
        f"each observation, {result.system} (* uncertain counts too); "
        f"protocol {result.protocol.name}, labeler {result.protocol.labeler}"
    )
    return Grid(accused([result], described), header, lines)


def _cells(score: ClassScore) -> list[str]:
    """Cells for support, written, precision, recall, F1 and interval."""
    counts = [str(score.support), str(score.written)]
    if score.support + score.written == 0:
        return [*counts, "-", "-", "-", "-"]
    return [*counts, f"{score.precision:.3f}", f"{score.recall:.3f}", value(score.f1), ends(score.f1)]
