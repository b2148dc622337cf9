"""Trackers receive what metrics.jsonl holds."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from crossray.errors import UserError
from crossray.training.config import Recipe
from crossray.training.loggers import build_logger
from crossray.training.run import resume, train


def rows(run: Path, split: str) -> list[dict[str, float]]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row for row in lines if row["split"] == split]


def test_tensorboard_reads_the_rows_of_the_log(tiny: Callable[..., Recipe], blobs: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "run"
    stages = [{"epochs": 1}, {"epochs": 1}]
    train(tiny(stages=stages, trainer__max_epochs=0, trainer__logger="tensorboard", trainer__log_every=1), blobs, run)
    events = accumulator.EventAccumulator(str(run / "logs")).Reload()
    for split, name in (("train", "loss"), ("val", "loss_language"), ("val", "image_gain")):
        seen = [(event.step, event.value) for event in events.Scalars(f"{split}/{name}")]
        known = [(row["step"], row[name]) for row in rows(run, split)]
        assert [step for step, _ in seen] == [step for step, _ in known]
        assert [value for _, value in seen] == pytest.approx([value for _, value in known], rel=1e-6)


def test_csv_needs_nothing(tiny: Callable[..., Recipe], blobs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny(trainer__max_epochs=1, trainer__logger="csv"), blobs, run)
    with (run / "logs" / "version_0" / "metrics.csv").open(newline="") as file:
        seen = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert seen == pytest.approx([row["loss"] for row in rows(run, "val")])
    resume(run)  # a finished run stays as it is


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("no wandb")

    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger", missing)
    with pytest.raises(UserError, match=r"pip install 'crossray\[wandb\]'"):
        build_logger("wandb", tmp_path)
    assert build_logger("none", tmp_path) is None
