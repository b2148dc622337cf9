"""Stages of training: frozen parameters, switches, loss weights and initial weights (docs/architecture.md)."""

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from crossray.errors import UserError, choose
from crossray.files.folders import find_model
from crossray.models.base import ReportModel, Trainable
from crossray.training.config import OptimizerConfig, Recipe, Stage

#: Factor on the default weights of a system's own losses in a stage with objective reward; these losses keep the
#: generated language close to the true reports.
ANCHOR = 0.1


def loss_weights(system: type[Trainable] | Trainable, stage: Stage) -> dict[str, float]:
    """Return the weight of every loss in a stage: the one that the stage sets, or else the system's default.

    Raises:
        UserError: the stage names a loss that the system does not have, or leaves none to train on.
    """
    kind = system if isinstance(system, type) else type(system)
    weights = dict(kind.loss_weights)
    if stage.objective == "reward":
        weights = {"reward": 1.0, "kl": 0.0, **{name: ANCHOR * weight for name, weight in weights.items()}}
    if issubclass(kind, ReportModel):
        weights["supervision"] = 0.0
    elif stage.objective == "reward":
        raise UserError(
            f"recipe field 'stages.objective': {system.system} generates no reports to reward; use likelihood."
        )
    unknown = sorted(set(stage.loss_weights) - set(weights))
    if unknown:
        raise UserError(
            f"recipe field 'stages.loss_weights': {system.system} has no loss '{unknown[0]}' in this stage; "
            f"{choose(unknown[0], weights)}."
        )
    weights |= stage.loss_weights
    if not any(weights.values()):
        raise UserError("recipe field 'stages.loss_weights' is 0 for every loss; give one of them a weight.")
    return weights


class StageKeeper:
    """Freezes and switches a model for each stage, independently of the previous stages.

    Args:
        model: model with initial weights; its `requires_grad`, and its `frozen()` in each stage, define which
            parameters can be trained.
    """

    def __init__(self, model: Trainable) -> None:
        self.model = model
        self._trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        self._still: list[nn.Module] = []

    def check(self, stages: Sequence[Stage], optimizer: OptimizerConfig) -> None:
        """Check all stages without entering them, because an error in a later stage would end a run of days.

        Raises:
            UserError: a prefix of `optimizer.groups`, or of a stage's `freeze` or `learning_rates`, matches no
                parameter, a field cannot be switched, or a stage trains nothing.
        """
        self._match("optimizer.groups", optimizer.groups)
        switched = copy.copy(self.model)  # a shallow copy: the model itself is not switched
        for stage in stages:
            self._match("stages.freeze", stage.freeze)
            self._match("stages.learning_rates", stage.learning_rates)
            switched.switch(**stage.switches)
            if all(name.startswith(stage.freeze) for name in self._trained - set(switched.frozen())):
                raise UserError("recipe field 'stages.freeze' leaves no parameter to train; freeze less.")

    def _match(self, field: str, prefixes: Iterable[str]) -> None:
        names = [name for name, _ in self.model.named_parameters()]
        for prefix in prefixes:
            if not any(name.startswith(prefix) for name in names):
                first = ", ".join(sorted({name.split(".")[0] for name in names}))
                raise UserError(
                    f"recipe field '{field}': no parameter's name begins with '{prefix}'; they begin with {first}."
                )

    def enter(self, stage: Stage) -> None:
        """Freeze parameters and apply switches as in `stage`; switches of earlier stages remain in effect."""
        parameters = dict(self.model.named_parameters())
        if stage.switches:
            self.model.switch(**stage.switches)
        frozen = set(self.model.frozen())  # may depend on the switches
        for name, parameter in parameters.items():
            trained = name in self._trained and name not in frozen
            parameter.requires_grad_(trained and not name.startswith(tuple(stage.freeze)))
        # the dot is part of the names of a module's parameters, and of prefixes such as "encoder."
        self._still = [
            module for name, module in self.model.named_modules() if f"{name}.".startswith(tuple(stage.freeze))
        ]

    def train_mode(self) -> None:
        """Set train mode, except for frozen modules: in eval mode, they have no dropout and fixed batch statistics."""
        self.model.train()
        for module in self._still:
            module.eval()


def first_model(recipe: Recipe) -> Path | None:
    """Return the model folder from which the first stage starts; None for new weights.

    Raises:
        UserError: the model does not exist, or a later stage names a folder.
    """
    names = [stage.start_from for stage in recipe.stages]
    for name in names[1:]:
        if name not in ("last", "best"):
            raise UserError(f"recipe field 'stages.start_from' is '{name}'; a later stage starts from last or best.")
    if names[0] in ("last", "best"):
        return None
    return find_model(names[0], "recipe field 'stages.start_from'", "name the folder of a saved model or of a run")


def weights_from(model: Trainable, folder: Path) -> None:
    """Load the weights of a saved model folder into `model`.

    Raises:
        UserError: the model is of another system or other sizes.
    """
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"recipe field 'stages.start_from': the weights in {folder} do not fit this recipe ({reason}); use the "
            "system and the model section that they were trained with."
        ) from error
