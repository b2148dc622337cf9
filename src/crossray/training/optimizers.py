"""Optimizers with parameter groups, and the learning-rate schedule as a function of the step."""

import math
from collections.abc import Mapping

import torch
from torch import nn

from crossray.training.config import OptimizerConfig, ScheduleConfig

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._NormBase)


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, learning_rates: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """Create an optimizer for the parameters of `model` that require gradients.

    Every parameter group has an extra entry `base_lr`, which the schedule multiplies by its factor.

    Args:
        model: the model to train.
        config: optimizer and groups.
        learning_rates: learning rates of the stage; they replace the entries of `config.groups`, and "" replaces the
            default rate.
    """
    rates = {"": config.learning_rate, **config.groups, **(learning_rates or {})}
    plain = _without_decay(model) if config.weight_decay_skip else set()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            prefix = max((prefix for prefix in rates if name.startswith(prefix)), key=len)
            decay = 0.0 if name in plain else config.weight_decay
            groups.setdefault((rates[prefix], decay), []).append(parameter)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(
        [{"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": decay}
         for (rate, decay), parameters in groups.items()],
        betas=config.betas, eps=config.eps, amsgrad=config.amsgrad, fused=True,
    )  # fmt: skip


def schedule_factor(config: ScheduleConfig, step: int, steps_per_epoch: int, steps: int) -> float:
    """Return the factor on every learning rate for one optimizer step.

    Args:
        config: the schedule.
        step: number of optimizer steps of the stage so far.
        steps_per_epoch: number of optimizer steps per epoch.
        steps: total number of optimizer steps of the stage.

    Example:
        >>> config = ScheduleConfig(name="cosine", warmup_steps=2)
        >>> [round(schedule_factor(config, step, steps_per_epoch=5, steps=10), 2) for step in (0, 1, 2, 6, 10)]
        [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.name == "step":
        return float(config.gamma ** (step // steps_per_epoch // config.step_epochs))
    if config.name == "cosine":
        share = min(1.0, (step - config.warmup_steps) / max(1, steps - config.warmup_steps))
        return config.minimum + (1 - config.minimum) * 0.5 * (1 + math.cos(math.pi * share))
    return 1.0


def _without_decay(model: nn.Module) -> set[str]:
    names = {name for name, _ in model.named_parameters() if name.endswith("bias")}
    for prefix, module in model.named_modules():
        # this package's own normalization layers are recognized by their class name
        if isinstance(module, _NORMS) or type(module).__name__.endswith("Norm"):
            names.update(f"{prefix}.{name}" if prefix else name for name, _ in module.named_parameters(recurse=False))
    return names
