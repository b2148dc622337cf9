"""A run that was killed, interrupted or broken at any moment continues bit for bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from crossray.errors import UserError
from crossray.training.checkpoints import LastCheckpoint
from crossray.training.config import Recipe
from crossray.training.module import TrainingModule
from crossray.training.recipe import load, to_yaml
from crossray.training.run import resume, train


class Killed(Exception):  # noqa: N818
    """Stands for a kill inside this process."""


def kill_at(monkeypatch: pytest.MonkeyPatch, step: int, action: Any) -> None:
    plain = TrainingModule.training_step

    def training_step(self: TrainingModule, batch: Any, batch_idx: int) -> Any:
        if self.step == step:
            action()
        return plain(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", training_step)


def die() -> None:
    raise Killed


def checkpoint(out: Path) -> dict[str, Any]:
    return torch.load(out / "last.ckpt", weights_only=True)


def losses(out: Path) -> list[dict[str, Any]]:
    changing = ("seconds", "images_per_second", "memory_gb")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in changing} for row in rows]


def assert_same_run(one: Path, other: Path) -> None:
    first, second = checkpoint(one), checkpoint(other)
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for name, tensor in first["state_dict"].items():
        assert torch.equal(tensor, second["state_dict"][name]), name
    for left, right in zip(first["optimizer_states"], second["optimizer_states"], strict=True):
        assert left["param_groups"] == right["param_groups"]
        for index, state in left["state"].items():
            assert all(torch.equal(value, right["state"][index][key]) for key, value in state.items())
    assert first["step"] == second["step"]
    assert losses(one) == losses(other)
    for file in ("config.json", "tokenizer.json", "model.safetensors"):
        assert (one / "best" / file).read_bytes() == (other / "best" / file).read_bytes()


@pytest.fixture(scope="module")
def recipe(tiny: Any) -> Recipe:
    """Five steps an epoch, three epochs, a checkpoint every second step; dropout and random crops on."""
    return tiny(trainer__max_epochs=3, trainer__checkpoint_steps=2, trainer__threads=1)


@pytest.fixture(scope="module")
def whole(recipe: Recipe, blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    train(recipe, blobs, out)
    return out


def test_a_run_is_a_function_of_its_recipe(recipe: Recipe, whole: Path, blobs: Path, tmp_path: Path) -> None:
    train(recipe, blobs, tmp_path / "run")
    assert_same_run(whole, tmp_path / "run")


@pytest.mark.parametrize("step", [0, 3, 5, 6, 13])
def test_killed_before_a_step(
    step: int, recipe: Recipe, whole: Path, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, step, die)
        train(recipe, blobs, tmp_path / "run")
    resume(tmp_path / "run")
    assert_same_run(whole, tmp_path / "run")


def test_killed_in_validation(
    recipe: Recipe, whole: Path, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def validation_step(self: TrainingModule, *_: Any) -> None:
        if self.epoch == 1:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        plain = TrainingModule.validation_step
        patch.setattr(
            TrainingModule, "validation_step",
            lambda self, *arguments: validation_step(self) or plain(self, *arguments),
        )  # fmt: skip
        train(recipe, blobs, tmp_path / "run")
    resume(tmp_path / "run")
    assert_same_run(whole, tmp_path / "run")


def test_killed_while_the_checkpoint_is_written(
    recipe: Recipe, whole: Path, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    plain = LastCheckpoint.save

    def save(self: LastCheckpoint, trainer: Any) -> None:
        if trainer.global_step == 8:
            monkeypatch.setattr(type(trainer), "save_checkpoint", lambda _, path: path.write_bytes(b"half") and die())
        plain(self, trainer)

    with pytest.raises(Killed):
        monkeypatch.setattr(LastCheckpoint, "save", save)
        train(recipe, blobs, out)
    monkeypatch.undo()
    assert not list(out.glob(".last.ckpt.*")), "what was half written is gone"
    assert checkpoint(out)["step"] == 6
    resume(out)
    assert_same_run(whole, out)


def test_ctrl_c_saves_and_says_how_to_continue(
    recipe: Recipe, whole: Path, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background may have it ignored
    out = tmp_path / "run"
    with (
        monkeypatch.context() as patch,
        pytest.raises(KeyboardInterrupt, match="continue with `crossray train --resume"),
    ):
        kill_at(patch, 6, lambda: signal.raise_signal(signal.SIGINT))
        train(recipe, blobs, out)
    assert checkpoint(out)["step"] == 7
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resume(out)
    assert_same_run(whole, out)


def test_a_run_from_before_the_check_of_modes(
    recipe: Recipe, whole: Path, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mode without a monitor had no effect, and may stand in the recipe of an old run; a new run refuses it."""
    with monkeypatch.context() as patch:
        kill_at(patch, 6, die)
        with pytest.raises(Killed):
            train(recipe, blobs, tmp_path / "run")
    stored = tmp_path / "run" / "recipe.yaml"
    values = yaml.safe_load(stored.read_text())
    values["stages"][0]["mode"] = "min"
    stored.write_text(yaml.safe_dump(values))
    assert recipe.trainer.mode == "max"
    resume(tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)
    with pytest.raises(UserError, match=r"stages\.mode' is min"):
        load(str(stored))


@pytest.mark.slow
def test_kill_9_in_the_middle_of_an_epoch(recipe: Recipe, whole: Path, blobs: Path, tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from crossray.training.module import TrainingModule\n"
        "from crossray.training.recipe import load\n"
        "from crossray.training.run import train\n"
        "plain = TrainingModule.training_step\n"
        "def training_step(self, batch, batch_idx):\n"
        "    if self.step == 8:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return plain(self, batch, batch_idx)\n"
        "TrainingModule.training_step = training_step\n"
        "train(load(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))\n"
    )
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    out = tmp_path / "run"
    command = [sys.executable, str(script), str(tmp_path / "recipe.yaml"), str(blobs), str(out)]
    ended = subprocess.run(command, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    resume(out)
    assert_same_run(whole, out)


def test_a_finished_run_is_left_as_it_is(recipe: Recipe, whole: Path) -> None:
    before = (whole / "last.ckpt").read_bytes()
    resume(whole)
    assert (whole / "last.ckpt").read_bytes() == before


def test_used_and_foreign_folders_are_refused(recipe: Recipe, whole: Path, blobs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--resume"):
        train(recipe, blobs, whole)
    with pytest.raises(UserError, match="not the folder of a training run"):
        resume(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_changed_dataset_is_refused(recipe: Recipe, whole: Path, tmp_path: Path) -> None:
    for name in ("recipe.yaml", "provenance.json"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    text = (tmp_path / "provenance.json").read_text()
    sha256 = json.loads(text)["data"]["sha256"]
    (tmp_path / "provenance.json").write_text(text.replace(sha256, "0" * 64))
    with pytest.raises(UserError, match="sha256"):
        resume(tmp_path)


def test_a_run_follows_its_dataset(
    recipe: Recipe, whole: Path, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, run = tmp_path / "moved", tmp_path / "run"
    shutil.copytree(blobs, moved)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 6, die)
        train(recipe, moved, run)
    moved.rename(tmp_path / "there")
    with pytest.raises(UserError, match=r"moved: the dataset of this run is not there; name its"):
        resume(run)
    with pytest.raises(UserError, match=r"dataset\.json is missing"):
        resume(run, tmp_path)
    resume(run, tmp_path / "there")
    assert json.loads((run / "provenance.json").read_text())["data"]["path"] == str(tmp_path / "there")
    assert_same_run(whole, run)
