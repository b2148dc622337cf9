"""A kill in any gap between two writes of a run with two stages: it continues bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.training.conftest import TINY
from tests.training.test_resume import Killed, assert_same_run

from crossray.errors import UserError
from crossray.training.callbacks import MetricsLog
from crossray.training.config import Recipe
from crossray.training.recipe import load
from crossray.training.run import resume, train

pytestmark = pytest.mark.slow


class Writes:
    """Counts what changes the folder of a run - renames and new rows - and dies before one of them."""

    def __init__(self, patch: pytest.MonkeyPatch, last: int | None = None) -> None:
        self.count, self.last = 0, last
        for kind, name in ((Path, "replace"), (Path, "rename"), (MetricsLog, "_append")):
            patch.setattr(kind, name, self._counted(getattr(kind, name)))

    def _counted(self, plain: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            if self.count == self.last:
                raise Killed
            self.count += 1
            return plain(*arguments, **options)

        return counted


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """The first stage ends with what is best for it; the second begins with that and selects by another metric."""
    second = {
        "epochs": 2,
        "start_from": "best",
        "learning_rates": {"": 3e-3},
        "monitor": "loss_language",
        "mode": "min",
    }
    stages = [{"epochs": 1}, second]
    return load("baseline/phantom", {**TINY, "trainer.max_epochs": 0, "trainer.threads": 1, "trainer.log_every": 100,
                                     "stages": stages, "trainer.monitor": "loss", "trainer.mode": "min"})  # fmt: skip


def test_every_gap_between_two_writes(recipe: Recipe, blobs: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        writes = Writes(patch)
        train(recipe, blobs, tmp_path / "whole")
    assert writes.count > 10
    for gap in range(writes.count):
        out = tmp_path / str(gap)
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
            Writes(patch, gap)
            train(recipe, blobs, out)
        if (out / "recipe.yaml").exists():
            resume(out)
        else:
            train(recipe, blobs, out)
        assert_same_run(tmp_path / "whole", out)
        first, second = (run / "best-stage1" / "model.safetensors" for run in (tmp_path / "whole", out))
        assert first.read_bytes() == second.read_bytes()


def test_a_stage_with_its_own_metric_begins_its_own_best(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    import json

    # steps of the second stage are far too large, and its metric still chooses among its own models
    stages = [{"epochs": 1}, {"epochs": 2, "learning_rates": {"": 3.0}, "monitor": "loss", "mode": "min"}]
    recipe = tiny(stages=stages, trainer__max_epochs=0, trainer__monitor="loss_language", trainer__mode="min")
    train(recipe, blobs, tmp_path / "run")
    best, aside = (
        json.loads((tmp_path / "run" / name / "provenance.json").read_text()) for name in ("best", "best-stage1")
    )
    assert (best["stage"], best["monitor"]) == (1, "loss")
    assert (aside["stage"], aside["monitor"]) == (0, "loss_language")
    assert aside["validation"]["loss_language"] < best["validation"]["loss_language"]


def test_a_later_stage_replaces_the_best_only_by_a_better(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    import json

    # the second stage's steps are far too large
    stages = [{"epochs": 2}, {"epochs": 2, "learning_rates": {"": 3.0}}]
    recipe = tiny(stages=stages, trainer__max_epochs=0, trainer__monitor="loss_language", trainer__mode="min")
    train(recipe, blobs, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["split"] == "val"]
    best = min(rows, key=lambda row: row["loss_language"])
    assert best["stage"] == 0 and rows[-1]["loss_language"] > best["loss_language"]
    assert json.loads((tmp_path / "run" / "best" / "provenance.json").read_text())["step"] == best["step"]


def test_damage_and_ends_are_said(tiny: Any, blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    train(tiny(trainer__max_epochs=1), blobs, out)
    capsys.readouterr()
    assert resume(out) == out / "best"
    assert f"Finished at epoch 1 of 1; the best model is in {out / 'best'}" in capsys.readouterr().err
    whole = (out / "last.ckpt").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", bytes(9999)):
        (out / "last.ckpt").write_bytes(damaged)
        with pytest.raises(UserError, match=r"last\.ckpt is damaged"):
            resume(out)
    (out / "last.ckpt").write_bytes(whole)
    for name, texts in (("provenance.json", ("{}", "[]", "3", '{"data": 1}')), ("recipe.yaml", ("", "[]"))):
        before = (out / name).read_text()
        for text in texts:
            (out / name).write_text(text)
            with pytest.raises(UserError, match="not the folder of a training run"):
                resume(out)
        (out / name).write_text(before)
    (out / "best").rename(out / "gone")
    with pytest.raises(UserError, match="best/ is missing"):
        resume(out)


def test_a_folder_is_written_by_one_process(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    from crossray.files.lock import locked

    out = tmp_path / "run"
    out.mkdir()
    with locked(out / ".lock", "busy"), pytest.raises(UserError, match="another process is writing this run"):
        train(tiny(trainer__max_epochs=1), blobs, out)
