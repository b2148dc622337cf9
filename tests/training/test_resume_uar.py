"""UAR's two stages, killed in either, continue bit for bit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from crossray.models.base import ReportModel
from crossray.training.config import Recipe
from crossray.training.module import TrainingModule
from crossray.training.run import resume, train


@pytest.fixture(scope="module")
def recipe(tiny: Any) -> Recipe:
    """Five steps an epoch, two epochs a stage."""
    stages = [
        {"epochs": 2, "switches": {"refine": False}},
        {"epochs": 2, "start_from": "best", "switches": {"refine": True}, "learning_rates": {"": 1e-3}},
    ]
    return tiny(
        "uar/phantom", model__image_tokenizer__name="random:tiny", model__basis_size=16, stages=stages,
        trainer__max_epochs=4, trainer__checkpoint_steps=1, trainer__threads=1,
    )  # fmt: skip


def state(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "last.ckpt", weights_only=True)["state_dict"]


def test_killed_in_either_stage(recipe: Recipe, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(recipe, blobs, tmp_path / "whole")
    expected = state(tmp_path / "whole")
    assert expected["model.tir.mask"].abs().max() > 0
    plain = TrainingModule.training_step
    for step in (7, 10, 13):

        def training_step(self: TrainingModule, batch: Any, batch_idx: int, step: int = step) -> torch.Tensor:
            if self.step == step:
                raise RuntimeError("killed")
            assert self.model.config.refine == (self.stage_index == 1)
            return plain(self, batch, batch_idx)

        out = tmp_path / f"run{step}"
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
            patch.setattr(TrainingModule, "training_step", training_step)
            train(recipe, blobs, out)
        if step == 7:
            assert (state(out)["model.tir.mask"] == 0).all()
        resume(out)
        found = state(out)
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    saved = json.loads((tmp_path / "whole" / "best" / "provenance.json").read_text())
    assert ReportModel.from_pretrained(tmp_path / "whole" / "best").config.refine == (saved["stage"] == 1)
