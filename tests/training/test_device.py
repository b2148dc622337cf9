"""Device and precision of a training."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.test_resume import Killed, die, kill_at
from tests.training.test_run import rows_of

from crossray.errors import UserError
from crossray.models.base import Trainable
from crossray.training.config import TrainerConfig
from crossray.training.device import choose_device, choose_precision
from crossray.training.run import resume, train

COMPUTES = "crossray.training.device.computes_bf16"


def test_a_gpu_that_is_required_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(TrainerConfig(accelerator="auto")) == "cpu"
    with pytest.raises(UserError, match=r"trainer\.accelerator"):
        choose_device(TrainerConfig(accelerator="gpu"))


@pytest.mark.parametrize("computes", [True, False])
def test_bf16_where_the_machine_computes_in_it(
    computes: bool, tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(COMPUTES, lambda device: computes)
    seen: set[torch.dtype] = set()
    linear = torch.nn.functional.linear

    def watched(*arguments: Any) -> torch.Tensor:
        result = linear(*arguments)
        seen.add(result.dtype)
        return result

    monkeypatch.setattr(torch.nn.functional, "linear", watched)
    train(tiny(trainer__precision="bf16", trainer__max_epochs=1), blobs, tmp_path / "run")
    assert (torch.bfloat16 in seen) == computes
    assert ("Training in float32" in capsys.readouterr().err) != computes
    assert all(math.isfinite(row["loss"]) for row in rows_of(tmp_path / "run", "train"))
    model = Trainable.from_pretrained(tmp_path / "run" / "best")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    used = ["bf16-mixed" if computes else "32-true"]
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["precisions"] == used
    assert json.loads((tmp_path / "run" / "best" / "provenance.json").read_text())["precisions"] == used


def test_a_run_that_is_resumed_elsewhere_has_both_precisions(
    tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(COMPUTES, lambda device: False)
    with monkeypatch.context() as killing:
        kill_at(killing, 7, die)
        with pytest.raises(Killed):
            train(tiny(trainer__precision="bf16", trainer__max_epochs=2), blobs, tmp_path / "run")
    monkeypatch.setattr(COMPUTES, lambda device: True)
    resume(tmp_path / "run")
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    assert provenance["precisions"] == ["32-true", "bf16-mixed"]


def test_float32_stays_float32() -> None:
    assert choose_precision(TrainerConfig(precision="32"), "cpu") == "32-true"
