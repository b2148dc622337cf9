"""Warnings about a result: collapsed reports, and scores that a system reaches without looking at the image.

Every rule compares the generated reports with the true ones, with a trivial baseline or with themselves, so it means
the same on every dataset. The true reports, scored as predictions, raise no alarm.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from crossray.evaluation.metrics.degeneracy import (
    CLINICAL_METRIC,
    DECIDING_METRIC,
    DEIDENTIFIED,
    UNKNOWN,
    ShuffleCheck,
    Variety,
    not_above,
)
from crossray.evaluation.metrics.family import headings
from crossray.evaluation.statistics.significance import Interval
from crossray.evaluation.trivial import TRIVIAL

IGNORES_IMAGE = "ignores the image"

#: Lowest ratio of distinct reports, relative to that of the true reports.
LEAST_DISTINCT_REPORTS = 1 / 4

#: Lowest distinct-4, relative to that of the true reports. Beam search always repeats itself more than people do.
LEAST_DISTINCT_PHRASES = 1 / 10

#: Lowest and highest ratio of generated to true words.
LENGTHS = (1 / 2, 2.0)

#: Lowest share of abnormal reports, relative to that of the true reports.
LEAST_ABNORMAL = 1 / 2

#: How many times more often than people a system may write a frequent sentence.
MOST_TEMPLATE = 10.0

#: How much more often than in the true reports a placeholder may occur in a report.
MOST_PLACEHOLDERS = 0.1


@dataclass(frozen=True)
class Alarm:
    """A rule that a result breaks.

    Attributes:
        name: name of the rule.
        sentence: description of the result, with numbers.
    """

    name: str
    sentence: str


def alarms(
    generated: Variety,
    true: Variety,
    differences: Mapping[str, Mapping[str, Interval]],
    shuffle: ShuffleCheck | None,
    *,
    labels_vary: bool,
    template: tuple[float, float] | None = None,
) -> tuple[Alarm, ...]:
    """Check all rules, and return those that a result breaks.

    Args:
        generated: variety of the generated reports.
        true: variety of the references.
        differences: for each baseline and metric, the score minus the baseline's score.
        shuffle: scores with images shuffled between studies; None for a single study.
        labels_vary: whether the references differ in their observations. If they do not, no clinical score can depend
            on the image, and the clinical rules are skipped.
        template: shares of the generated and of the true reports that contain the most overused sentence.
    """
    judged = (DECIDING_METRIC, CLINICAL_METRIC) if labels_vary else (DECIDING_METRIC,)
    shown = headings()
    metrics = {name: shown[name] for name in judged}
    return (
        *_of_shuffle(shuffle, metrics), *_of_baselines(differences, metrics), *_of_text(generated, true),
        *_of_template(template),
    )  # fmt: skip


def _of_shuffle(shuffle: ShuffleCheck | None, metrics: Mapping[str, str]) -> Iterator[Alarm]:
    if shuffle is None:
        return
    for metric, heading in metrics.items():
        difference = shuffle.differences.get(metric)
        if difference is not None and not_above(difference):
            clinically = "" if metric == DECIDING_METRIC else "clinically "
            yield Alarm(
                f"{clinically}{IGNORES_IMAGE}",
                f"{clinically}{IGNORES_IMAGE}: {heading} is no better than with images shuffled between studies "
                f"({signed(difference)})",
            )


def _of_baselines(differences: Mapping[str, Mapping[str, Interval]], metrics: Mapping[str, str]) -> Iterator[Alarm]:
    for metric, heading in metrics.items():
        beaten_by = [
            f"{baseline} ({signed(differences[baseline][metric])})"
            for baseline in TRIVIAL
            if metric in differences.get(baseline, {}) and not_above(differences[baseline][metric])
        ]
        if beaten_by:
            yield Alarm(
                f"trivial {heading}", f"{heading} is no better than that of a trivial baseline: {', '.join(beaten_by)}"
            )


def _of_text(generated: Variety, true: Variety) -> Iterator[Alarm]:
    if generated.distinct_reports < LEAST_DISTINCT_REPORTS * true.distinct_reports:
        yield Alarm(
            "repeated reports",
            f"the same reports again and again: {generated.distinct_reports:.1%} of them are different, "
            f"and {true.distinct_reports:.1%} of the true ones",
        )
    if generated.distinct4 < LEAST_DISTINCT_PHRASES * true.distinct4:
        yield Alarm(
            "repeated phrases",
            f"the same phrases again and again: {generated.distinct4:.1%} of all four-word phrases are different, "
            f"and {true.distinct4:.1%} of those in the true reports",
        )
    low, high = LENGTHS
    if not low * true.words <= generated.words <= high * true.words:
        yield Alarm(
            "length", f"the reports have {generated.words:.1f} words on average, the true ones {true.words:.1f}"
        )
    if generated.normal is not None and true.normal is not None:
        abnormal, truly_abnormal = 1 - generated.normal, 1 - true.normal
        if abnormal < LEAST_ABNORMAL * truly_abnormal:
            yield Alarm(
                "normal reports",
                f"{abnormal:.1%} of the reports state an abnormality, {truly_abnormal:.1%} of the true ones",
            )
    for token, share, true_share in (
        (DEIDENTIFIED, generated.deidentified, true.deidentified),
        (UNKNOWN, generated.unknown, true.unknown),
    ):
        if share > true_share + MOST_PLACEHOLDERS:
            yield Alarm(token, f"{share:.1%} of the reports have {token} in them, {true_share:.1%} of the true ones")


def _of_template(template: tuple[float, float] | None) -> Iterator[Alarm]:
    if template is not None and template[0] > MOST_TEMPLATE * template[1]:
        yield Alarm(
            "template",
            f"one sentence is in {template[0]:.1%} of the reports and in {template[1]:.1%} of the true ones",
        )


def signed(difference: Interval) -> str:
    """Format a difference with its interval."""
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
