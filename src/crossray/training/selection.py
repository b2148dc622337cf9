"""By which validation metric the best model is chosen, and which metrics there are to choose from."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from statistics import fmean
from typing import Literal

from crossray.errors import UserError
from crossray.evaluation.metrics.family import families
from crossray.models.base import ReportModel, Trainable
from crossray.training.config import Recipe, Stage, TrainerConfig


def report_metrics() -> tuple[str, ...]:
    """What `TrainingModule` measures of every system that writes reports."""
    return (*(name for family in families() for name in family.validated), "distinct", "image_gain")


def known_metrics(system: type[Trainable]) -> list[str]:
    """Names of a system's validation metrics; one that ends in * stands for several."""
    own = report_metrics() if issubclass(system, ReportModel) else ()
    losses = [*system.loss_weights, *(["supervision"] if own else [])]
    return [*own, *system.metrics, "loss", *(f"loss_{name}" for name in losses)]


def selected_by(stage: Stage, trainer: TrainerConfig) -> tuple[str, Literal["max", "min"]]:
    """The monitor of a stage, and its mode."""
    return (stage.monitor, stage.mode) if stage.monitor else (trainer.monitor, trainer.mode)


def check_monitors(system: type[Trainable], recipe: Recipe) -> None:
    """Find out before anything is trained that a metric does not exist.

    Raises:
        UserError: naming those that do.
    """
    known = known_metrics(system)
    stages = [("stages.monitor", stage.monitor) for stage in recipe.stages if stage.monitor]
    for field, monitor in [("trainer.monitor", recipe.trainer.monitor), *stages]:
        for name in monitored_names(monitor):
            if not any(fnmatchcase(name, pattern) for pattern in known):
                raise UserError(
                    f"recipe field '{field}': {system.system} has no validation metric '{name}'; choose one of "
                    f"{', '.join(known)}, or the mean of several: cider+ce_macro_f1."
                )


def monitored_names(monitor: str) -> list[str]:
    """The metrics whose mean a monitor states."""
    return [name.strip() for name in monitor.split("+")]


def monitored(metrics: Mapping[str, float], monitor: str) -> float:
    """The value of a monitor: a metric, or the mean of several.

    Raises:
        UserError: the validation does not have one of them, for instance the AUROC of an observation that is always
            or never there.
    """
    for name in monitored_names(monitor):
        if name not in metrics:
            raise UserError(f"recipe field 'monitor': validation has no metric '{name}'; choose one of "
                            f"{', '.join(sorted(metrics))}.")  # fmt: skip
    return fmean(metrics[name] for name in monitored_names(monitor))
