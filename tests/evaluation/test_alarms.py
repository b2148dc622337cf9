"""The rules that make a result suspect: each trips on its own fault, and none on true reports."""

from dataclasses import replace

import pytest

from crossray.evaluation.alarms import Alarm, alarms
from crossray.evaluation.metrics.degeneracy import ShuffleCheck, Variety
from crossray.evaluation.statistics.significance import Interval
from crossray.evaluation.trivial import MOST_FREQUENT, NEAREST_IMAGE, TAG_ORACLE

TRUE = Variety(
    distinct_reports=0.8,
    distinct1=0.04,
    distinct2=0.15,
    distinct3=0.27,
    distinct4=0.36,
    words=32.0,
    deidentified=0.35,
    unknown=0.05,
    normal=0.6,
)
ABOVE, BELOW, TIED = Interval(0.2, 0.1, 0.3), Interval(-0.2, -0.3, -0.1), Interval(0.0, -1e-13, 1e-13)
ALL_ABOVE = {"cider": ABOVE, "ce_f1": ABOVE}


def names(found: tuple[Alarm, ...]) -> list[str]:
    return [alarm.name for alarm in found]


def of_text(**changes: float | None) -> list[str]:
    return names(alarms(replace(TRUE, **changes), TRUE, {}, None, labels_vary=True))


def test_the_true_reports_trip_nothing() -> None:
    differences = {MOST_FREQUENT: ALL_ABOVE, NEAREST_IMAGE: ALL_ABOVE}
    assert alarms(TRUE, TRUE, differences, ShuffleCheck({}, ALL_ABOVE, 5), labels_vary=True) == ()


@pytest.mark.parametrize(
    ("shares", "raised"), [((0.31, 0.03), True), ((0.1, 0.0), True), ((0.3, 0.03), False), (None, False)]
)
def test_a_sentence_that_is_written_far_too_often(shares: tuple[float, float] | None, raised: bool) -> None:
    found = alarms(TRUE, TRUE, {}, None, labels_vary=True, template=shares)
    assert names(found) == ["template"] * raised


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"distinct_reports": 0.19}, "repeated reports"),
        ({"distinct4": 0.035}, "repeated phrases"),
        ({"words": 15.9}, "length"),
        ({"words": 64.1}, "length"),
        ({"normal": 0.81}, "normal reports"),
        ({"deidentified": 0.46}, "xxxx"),
        ({"unknown": 0.16}, "<unk>"),
    ],
)
def test_each_rule_of_the_text(change: dict[str, float], name: str) -> None:
    assert of_text(**change) == [name]


@pytest.mark.parametrize(
    "change",
    [
        {"distinct_reports": 0.21},
        {"distinct4": 0.037},
        {"words": 16.0},
        {"words": 64.0},
        {"normal": 0.79},
        {"normal": 0.0},
        {"normal": None},
        {"deidentified": 0.44},
        {"unknown": 0.0},
    ],
)
def test_inside_the_bounds_there_is_no_alarm(change: dict[str, float | None]) -> None:
    assert of_text(**change) == []


def test_scores_of_shuffled_images_and_of_trivial_baselines() -> None:
    shuffle = ShuffleCheck({}, {"cider": TIED, "ce_f1": ABOVE}, 5)
    assert names(alarms(TRUE, TRUE, {}, shuffle, labels_vary=True)) == ["ignores the image"]
    shuffle = ShuffleCheck({}, {"cider": ABOVE, "ce_f1": BELOW}, 5)
    assert names(alarms(TRUE, TRUE, {}, shuffle, labels_vary=True)) == ["clinically ignores the image"]
    differences = {
        MOST_FREQUENT: {"cider": ABOVE, "ce_f1": TIED},
        NEAREST_IMAGE: {"cider": BELOW, "ce_f1": BELOW},
        TAG_ORACLE: {"cider": BELOW, "ce_f1": BELOW},
    }
    cider, clinical = alarms(TRUE, TRUE, differences, None, labels_vary=True)
    assert NEAREST_IMAGE in cider.sentence
    assert MOST_FREQUENT not in cider.sentence
    assert NEAREST_IMAGE in clinical.sentence
    assert MOST_FREQUENT in clinical.sentence
    # The oracle is told the truth: to stay below it is no fault.
    assert TAG_ORACLE not in cider.sentence + clinical.sentence


def test_clinical_rules_are_silent_where_all_references_state_the_same() -> None:
    shuffle = ShuffleCheck({}, {"cider": ABOVE, "ce_f1": TIED}, 5)
    differences = {MOST_FREQUENT: {"cider": ABOVE, "ce_f1": TIED}}
    assert alarms(TRUE, TRUE, differences, shuffle, labels_vary=False) == ()
