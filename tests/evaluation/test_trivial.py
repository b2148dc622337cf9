"""Baselines on studies whose answers are known by construction."""

import numpy as np
import pytest

from crossray.errors import UserError
from crossray.evaluation.labelers.tags import normal_studies, study_tags
from crossray.evaluation.trivial import (
    MOST_FREQUENT,
    NEAREST_IMAGE,
    TAG_ORACLE,
    most_frequent,
    nearest_images,
    tag_oracle,
    thumbnail,
    trivial_reports,
)


def test_every_baseline_on_known_studies(make_dataset) -> None:
    dataset = make_dataset(
        [
            ("train", "Heart is normal.", 10, "normal", True),
            ("train", "Heart is big..", 100, "Cardiomegaly/mild", False),
            ("train", "heart is normal.", 50, "normal", True),
            ("train", "Left effusion.", 200, "Pleural Effusion/left", False),
            ("val", "never used", 120, "Cardiomegaly/severe", False),
            ("test", "t", 110, "Pleural Effusion/right", False),
            ("test", "t", 240, "Cardiomegaly/severe", False),
            ("test", "t", 20, "normal", True),
        ]
    )
    found = trivial_reports(dataset, dataset.rows("test"))
    normal, big, left = "heart is normal .", "heart is big .", "left effusion ."
    assert found == {
        MOST_FREQUENT: [normal] * 3,
        NEAREST_IMAGE: [big, left, normal],
        TAG_ORACLE: [left, big, normal],
    }
    np.testing.assert_array_equal(normal_studies(dataset, dataset.rows("test")), [False, False, True])


def test_a_training_study_is_not_its_own_neighbour(make_dataset) -> None:
    dataset = make_dataset([("train", "a", grey, "normal", True) for grey in (0, 100, 130)])
    rows = dataset.rows("train")
    np.testing.assert_array_equal(nearest_images(dataset, rows, rows), [1, 2, 1])


def test_without_the_section_there_is_no_baseline(make_dataset) -> None:
    dataset = make_dataset([("train", "a", 0, "normal", True), ("test", "a", 0, "normal", True)])
    with pytest.raises(UserError, match="'impression'"):
        trivial_reports(dataset, dataset.rows("test"), section="impression")


def test_most_frequent_report_takes_the_first_of_several() -> None:
    assert most_frequent(["b", "a", "a", "b", "c"]) == "b"


def test_tag_oracle_prefers_overlap_and_then_frequency() -> None:
    training = [frozenset("ab"), frozenset("a"), frozenset("a"), frozenset("c"), frozenset()]
    reports = ["both", "rare", "common", "other", "normal"]
    wanted = [frozenset("ab"), frozenset("abz"), frozenset(), frozenset("c")]
    assert tag_oracle(wanted, training, reports) == ["both", "both", "normal", "other"]
    # b alone overlaps by a half with {a, b}; nothing shared: all are equally near, and the most frequent report wins.
    assert tag_oracle([frozenset("b")], training, reports) == ["both"]
    assert tag_oracle([frozenset("z")], training, ["x", "y", "x", "z", "w"]) == ["x"]


def test_parts_of_tags_count(make_dataset) -> None:
    dataset = make_dataset([("train", "a", 0, "Opacity/lung/left;Normal", True), ("test", "a", 0, "", True)])
    assert study_tags(dataset, [0, 1]) == [
        frozenset({"opacity", "opacity/lung", "opacity/left", "opacity/lung/left", "normal"}),
        frozenset(),
    ]


def test_labels_stand_in_for_tags(make_dataset) -> None:
    dataset = make_dataset([("train", "a", 0, None, True), ("test", "a", 0, None, False)])
    assert study_tags(dataset, [1, 0]) == [frozenset({"cardiomegaly=positive"}), frozenset({"no_finding=positive"})]


def test_drawn_findings_stand_in_for_tags(make_dataset) -> None:
    dataset = make_dataset(
        [("train", "a", 0, None, True), ("test", "a", 0, None, False)], drawn=("pleural_effusion", "left", "", "mild")
    )
    assert study_tags(dataset, [1, 0]) == [
        frozenset({"pleural_effusion", "pleural_effusion/left", "pleural_effusion/mild", "pleural_effusion/left/mild"}),
        frozenset(),
    ]


@pytest.mark.parametrize("shape", [(32, 32), (64, 96), (40, 33), (8, 500)])
def test_thumbnail_is_the_mean_of_each_cell(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    found = thumbnail(pixels)
    assert found.shape == (32, 32)
    for i in range(32):
        for j in range(32):
            top, left = i * shape[0] // 32, j * shape[1] // 32
            bottom, right = (i + 1) * shape[0] // 32, (j + 1) * shape[1] // 32
            cell = pixels[top : max(bottom, top + 1), left : max(right, left + 1)]
            assert found[i, j] == pytest.approx(cell.mean())
