"""Averaged weights: the recursion by hand, what is saved as best, and a run that was killed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.training.test_resume import Killed, assert_same_run, kill_at

from crossray.errors import UserError
from crossray.training.module import TrainingModule
from crossray.training.run import resume, train


def test_the_best_model_is_the_average(tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny(trainer__average=0.5, trainer__max_epochs=1, trainer__checkpoint_steps=2)
    history: list[dict[str, torch.Tensor]] = []
    plain = TrainingModule.training_step

    def training_step(self: TrainingModule, batch: Any, batch_idx: int) -> Any:
        history.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
        return plain(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", training_step)
        train(recipe, blobs, tmp_path / "run")
    last = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["state_dict"]
    history.append({name.removeprefix("model."): tensor for name, tensor in last.items()})
    best = load_file(tmp_path / "run" / "best" / "model.safetensors")
    name = "vocabulary.weight"
    average = history[0][name]
    for step, weights in enumerate(history[1:], start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weights[name]
    torch.testing.assert_close(best[name], average)
    assert not torch.equal(best[name], history[-1][name])

    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 3, lambda: (_ for _ in ()).throw(Killed))
        train(recipe, blobs, tmp_path / "killed")
    resume(tmp_path / "killed")
    assert_same_run(tmp_path / "run", tmp_path / "killed")
    with pytest.raises(UserError, match=r"trainer\.average"):
        tiny(trainer__average=1.0)
