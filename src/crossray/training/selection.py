"""Validation metrics, and the choice of the one that selects the best model."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from statistics import fmean
from typing import Literal

from crossray.errors import UserError, choose, did_you_mean
from crossray.evaluation.metrics.family import families
from crossray.models.base import ReportModel, Trainable
from crossray.training.config import Recipe, Stage, TrainerConfig


def report_metrics() -> tuple[str, ...]:
    """Return the metrics that `TrainingModule` computes for every system that generates reports."""
    return (*(name for family in families() for name in family.validated), "distinct", "image_gain")


def known_metrics(system: type[Trainable]) -> list[str]:
    """Return the names of a system's validation metrics; a name may end in the wildcard `*`."""
    own = report_metrics() if issubclass(system, ReportModel) else ()
    losses = [*system.loss_weights, *(["supervision"] if own else [])]
    return [*own, *system.metrics, "loss", *(f"loss_{name}" for name in losses)]


def selected_by(stage: Stage, trainer: TrainerConfig) -> tuple[str, Literal["max", "min"]]:
    """Return the monitor of a stage and its mode."""
    return (stage.monitor, stage.mode) if stage.monitor else (trainer.monitor, trainer.mode)


def check_monitors(system: type[Trainable], recipe: Recipe) -> None:
    """Check before training that every monitored metric exists.

    Raises:
        UserError: a metric does not exist.
    """
    known = known_metrics(system)
    stages = [("stages.monitor", stage.monitor) for stage in recipe.stages if stage.monitor]
    for field, monitor in [("trainer.monitor", recipe.trainer.monitor), *stages]:
        for name in monitored_names(monitor):
            if not any(fnmatchcase(name, pattern) for pattern in known):
                raise UserError(
                    f"recipe field '{field}': {system.system} has no validation metric '{name}'"
                    f"{did_you_mean(name, known)}; choose one of {', '.join(known)}, or the mean of several: "
                    "cider+ce_macro_f1."
                )


def check_modes(recipe: Recipe) -> None:
    """Check before a new run that every mode fits its monitored metric.

    Raises:
        UserError: a mode would select the worst model, or a stage has a mode but no monitor.
    """
    trainer = recipe.trainer
    _check_mode("trainer", trainer.monitor, trainer.mode)
    for stage in recipe.stages:
        if stage.monitor:
            _check_mode("stages", stage.monitor, stage.mode)
        elif stage.mode == "min" != trainer.mode:
            raise UserError(
                f"recipe field 'stages.mode' is min, but a stage without 'stages.monitor' selects its best model by "
                f"'trainer.monitor' ({trainer.monitor}, {trainer.mode}); set 'stages.monitor' too, or remove the mode."
            )


def _check_mode(section: str, monitor: str, mode: Literal["max", "min"]) -> None:
    """Reject a mode that selects the worst model; of a system's own metrics, the better direction is unknown."""
    names = monitored_names(monitor)
    losses = [name == "loss" or name.startswith("loss_") for name in names]
    right = "min" if all(losses) else "max" if set(names) <= {*report_metrics()} else mode
    if mode != right:
        raise UserError(
            f"recipe field '{section}.mode' is {mode}, which selects the model with the worst {monitor}; set it to "
            f"{right}, or set '{section}.monitor' to the metric that is meant."
        )


def monitored_names(monitor: str) -> list[str]:
    """Return the metrics whose mean is the monitor."""
    return [name.strip() for name in monitor.split("+")]


def monitored(metrics: Mapping[str, float], monitor: str) -> float:
    """Return the value of a monitor: a metric, or the mean of several; NaN if one has no value in this split.

    Raises:
        UserError: the validation did not compute a metric, such as the AUROC of an observation that is always or never
            present.
    """
    for name in monitored_names(monitor):
        if name not in metrics:
            raise UserError(f"recipe field 'monitor': validation has no metric '{name}'; "
                            f"{choose(name, sorted(metrics))}.")  # fmt: skip
    return fmean(metrics[name] for name in monitored_names(monitor))
