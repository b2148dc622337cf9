"""Weight averaging: validation and the saved model use a running average of the weights instead of the last ones."""

from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from crossray.training.module import TrainingModule


class WeightAverage(Callback):
    """Keeps an exponential moving average of the trained parameters, which replaces them during every validation.

    Add it after the callbacks that save the model at the end of a validation. Buffers, such as the running statistics
    of batch normalization, are not averaged. Every stage starts a new average.

    Args:
        decay: weight of the previous average in each update, from 0 to below 1; smaller in the first steps (Tarvainen
            and Valpola 2017).
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._average: dict[str, Tensor] = {}
        self._own: dict[str, Tensor] = {}
        self._steps = 0
        self._restored = False

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start from the current weights, unless an average was restored from a checkpoint."""
        if not self._restored:
            self._average = {name: p.detach().clone() for name, p in _trained(pl_module).items()}
            self._steps = 0
        self._restored = False

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        """Update the average with the weights of this step."""
        if trainer.global_step == self._steps:  # no optimizer step: gradients are being accumulated
            return
        self._steps = trainer.global_step
        decay = min(self.decay, (1 + self._steps) / (10 + self._steps))
        for name, parameter in _trained(pl_module).items():
            average = self._average[name] = self._average[name].to(parameter.device)
            average.lerp_(parameter.detach(), 1 - decay)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Replace the weights with the average."""
        self._own = {name: parameter.detach().clone() for name, parameter in _trained(pl_module).items()}
        _put(pl_module, self._average)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Restore the weights."""
        _put(pl_module, self._own)
        self._own = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the average, for the checkpoint."""
        return {"average": self._average, "steps": self._steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the average from a checkpoint."""
        self._average, self._steps = dict(state_dict["average"]), int(state_dict["steps"])
        self._restored = True


def _trained(module: lightning.LightningModule) -> dict[str, torch.nn.Parameter]:
    model = cast(TrainingModule, module).model
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _put(module: lightning.LightningModule, weights: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in _trained(module).items():
            parameter.copy_(weights[name])
