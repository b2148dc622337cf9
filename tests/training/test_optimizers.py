"""Parameter groups and schedules, against PyTorch's own schedulers."""

import math

import pytest
import torch
from torch import nn

from crossray.training.config import OptimizerConfig, ScheduleConfig
from crossray.training.optimizers import build_optimizer, schedule_factor


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.head = nn.Linear(2, 3)
        self.norm = nn.LayerNorm(3)


def groups_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["base_lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_the_longest_beginning_decides_the_rate_and_the_stage_has_the_last_word() -> None:
    model = Small()
    config = OptimizerConfig(learning_rate=1.0, groups={"backbone.": 0.1, "backbone.0": 0.2}, weight_decay=0.5)
    found = groups_of(model, build_optimizer(model, config, {"head": 7.0}))
    assert {name: rate for name, (rate, _) in found.items()} == {
        "backbone.0.weight": 0.2, "backbone.0.bias": 0.2, "backbone.1.weight": 0.1, "backbone.1.bias": 0.1,
        "head.weight": 7.0, "head.bias": 7.0, "norm.weight": 1.0, "norm.bias": 1.0,
    }  # fmt: skip
    assert {decay for _, decay in found.values()} == {0.5}


def test_biases_and_norms_can_be_left_without_decay() -> None:
    model = Small()
    found = groups_of(model, build_optimizer(model, OptimizerConfig(weight_decay=0.5, weight_decay_skip=True)))
    assert {name for name, (_, decay) in found.items() if decay} == {"backbone.0.weight", "head.weight"}


def test_frozen_parameters_stay_out() -> None:
    model = Small()
    model.backbone.requires_grad_(False)
    assert set(groups_of(model, build_optimizer(model, OptimizerConfig()))) == {
        "head.weight", "head.bias", "norm.weight", "norm.bias",
    }  # fmt: skip


def test_the_published_optimiser() -> None:
    config = OptimizerConfig(amsgrad=True, betas=(0.9, 0.98), eps=1e-9)
    optimizer = build_optimizer(Small(), config)
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["amsgrad"] and optimizer.defaults["betas"] == (0.9, 0.98)
    assert optimizer.defaults["eps"] == 1e-9
    assert type(build_optimizer(Small(), OptimizerConfig(name="adamw"))) is torch.optim.AdamW


def torch_factors(make: object, count: int, every: int = 1) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)  # type: ignore[operator]
    factors = []
    for step in range(count):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % every == 0:
            scheduler.step()
    return factors


def test_step_equals_steplr() -> None:
    config = ScheduleConfig(name="step", step_epochs=2, gamma=0.8)
    expected = torch_factors(lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.8), 40, every=5)
    assert [schedule_factor(config, step, 5, 40) for step in range(40)] == pytest.approx(expected)


def test_cosine_equals_cosineannealing_after_a_linear_rise() -> None:
    config = ScheduleConfig(name="cosine", warmup_steps=4, minimum=0.1)
    expected = torch_factors(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20, eta_min=0.1), 20)
    found = [schedule_factor(config, step, 6, 24) for step in range(24)]
    assert found[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert found[4:] == pytest.approx(expected)
    assert schedule_factor(config, 1000, 6, 24) == pytest.approx(0.1)


def test_constant_is_constant_and_a_warm_up_as_long_as_the_stage_is_finite() -> None:
    assert {schedule_factor(ScheduleConfig(), step, 3, 9) for step in range(9)} == {1.0}
    long = ScheduleConfig(name="cosine", warmup_steps=9)
    assert all(math.isfinite(schedule_factor(long, step, 3, 9)) for step in range(12))
