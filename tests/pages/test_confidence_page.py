"""The page and tables of `crossray calibrate`, from measurements that are made up."""

from pathlib import Path

import numpy as np
import pytest

from crossray.confidence.calibration import Calibration
from crossray.confidence.calibrators import Calibrator
from crossray.confidence.check import InputChecker
from crossray.confidence.density import Density
from crossray.confidence.heads import Head
from crossray.confidence.measuring import SAMPLED, Collected, measure
from crossray.pages.confidence_page import confidence_page, write_confidence
from crossray.pages.confidence_tables import confidence_grids


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    random = np.random.default_rng(0)
    found = Collected(silent=3)
    for number in range(200):
        there = bool(random.random() < 0.3)
        for name in SAMPLED:
            found.signals[name].append(float(random.uniform(0.3, 1)))
        found.correct.append(bool(random.random() < (0.4 if there else 0.9)))
        found.patients.append(f"p{number // 4}")
        found.there.append(there)
    units = ("sentences", "observations")
    return Calibration(
        weights="", decoding={}, samples=4, rates={}, plain=dict.fromkeys(units, Calibrator({}, 0.0)),
        sampled=dict.fromkeys(units, Calibrator({}, 0.0)),
        about={"studies": 50, "split": "val", "labeler": "rules"}, measured={unit: measure(found) for unit in units},
    )  # fmt: skip


@pytest.fixture(scope="module")
def checker() -> InputChecker:
    zeros = np.zeros(2, np.float32)
    head = Head(np.zeros((2, 2), np.float32), zeros)
    return InputChecker(
        zeros, zeros + 1, Density(zeros[None], np.eye(2, dtype=np.float32)), head, head, head, None,
        limits={"unfamiliar": 1.5}, about={"images": 10, "split": "val"},
        measured={
            "false_alarms": {"unfamiliar": 0.1}, "studies_flagged": 0.2,
            "mistakes": {"inverted": {"images": 7, "auroc": 0.9, "named": 0.5, "flagged": 0.75}},
        },
    )  # fmt: skip


def test_the_last_coverage_is_the_share_of_wrong_statements(calibration: Calibration) -> None:
    ways, parts, *_ = confidence_grids(calibration)
    wrong = 1 - calibration.measured["sentences"]["right"]
    rows = [line for line in ways.lines if line[-1]]
    assert len(rows) == 5
    assert all(float(line[-1]) == pytest.approx(wrong, abs=6e-4) for line in rows)
    assert sum(int(line[1]) for line in parts.lines) == 200


def test_calibrated_parts_are_as_often_right_as_they_say_on_the_whole(calibration: Calibration) -> None:
    measured = calibration.measured["sentences"]
    means = [part["confidence"]["Platt"] * part["statements"] for part in measured["parts"].values()]
    assert sum(means) / 200 == pytest.approx(measured["right"], abs=0.02)


def test_page_and_markdown_hold_the_same_tables(
    calibration: Calibration, checker: InputChecker, tmp_path: Path
) -> None:
    html = confidence_page("model", calibration, checker)
    write_confidence("model", calibration, checker, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    for one in (html, text):
        assert "not a medical device" in one
        assert "3 sentences without an observation are left out" in one
        assert "75.0%" in one
    assert html.count("<svg") == 2 * 2 + 2 * 3  # two charts a unit, and a legend of three lines
    assert "<script" not in html
