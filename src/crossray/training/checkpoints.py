"""What a run keeps on disk: the checkpoint to continue from, and the folder of the best model."""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import lightning
from lightning.pytorch.callbacks import Callback, Checkpoint

from crossray.data.batches.batch import Batch
from crossray.errors import UserError
from crossray.files.write import replace_folder, replacing
from crossray.training.config import TrainerConfig
from crossray.training.module import TrainingModule

#: Checkpoint within the folder of a run.
LAST = "last.ckpt"


class Interrupted(Exception):  # noqa: N818 - not an error
    """Ctrl-C was pressed and the checkpoint is written."""


class BestModel(Callback):
    """Keeps the model with the best validation metric as a model folder, and ends a stage that no longer improves.

    Args:
        folder: the model folder; it is replaced as a whole.
        config: metric, mode, patience and first epoch.
        provenance: stored with the model, together with its step and metrics.
    """

    def __init__(self, folder: Path, config: TrainerConfig, provenance: Mapping[str, Any]) -> None:
        self.folder = folder
        self.config = config
        self.provenance = provenance
        self.best: float | None = None
        self.waited = 0

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Select.

        Raises:
            UserError: the validation has no metric of that name.
        """
        module = cast(TrainingModule, pl_module)
        metrics = module.validation_metrics
        if self.config.monitor not in metrics:
            raise UserError(f"recipe field 'trainer.monitor': validation has no metric '{self.config.monitor}'; "
                            f"choose one of {', '.join(sorted(metrics))}.")  # fmt: skip
        value = metrics[self.config.monitor]
        ending = trainer.should_stop or trainer.current_epoch + 1 >= module.epochs
        early = trainer.current_epoch + 1 < self.config.min_epochs and not (ending and self.best is None)
        if early:
            return
        better = self.best is None or (value > self.best if self.config.mode == "max" else value < self.best)
        if better:
            self.best, self.waited = value, 0
            self.save(trainer, module)
        else:
            self.waited += 1
            if 0 < self.config.patience <= self.waited:
                trainer.should_stop = True

    def save(self, trainer: lightning.Trainer, module: TrainingModule) -> None:
        """Write the model folder beside the old one, then put it in its place."""
        if trainer.is_global_zero:
            place = {"step": module.step, "epoch": module.epoch + 1, "stage": module.stage_index}
            validation = {"monitor": self.config.monitor, "validation": module.validation_metrics}
            replace_folder(
                self.folder,
                lambda beside: module.model.save_pretrained(beside, {**self.provenance, **place, **validation}),
            )
        trainer.strategy.barrier("best model")

    def state_dict(self) -> dict[str, Any]:
        """Best value and validations since."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.best, self.waited = state_dict["best"], state_dict["waited"]


class LastCheckpoint(Checkpoint):
    """Writes last.ckpt after every epoch, every so many steps or minutes, and on Ctrl-C.

    Args:
        path: the checkpoint; it is replaced as a whole.
        config: steps and minutes between two checkpoints.
    """

    def __init__(self, path: Path, config: TrainerConfig) -> None:
        self.path = path
        self.config = config
        self.interrupted = False
        self._saved_step = -1
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """A checkpoint inside the epoch, when it is time.

        Raises:
            Interrupted: after Ctrl-C.
        """
        step, config = trainer.global_step, self.config
        ending = batch_idx + 1 >= trainer.num_training_batches  # validation and the end of the epoch come first
        if ending or (batch_idx + 1) % config.accumulate or trainer.should_stop or step == self._saved_step:
            return
        due = config.checkpoint_steps > 0 and step % config.checkpoint_steps == 0
        due |= 0 < config.checkpoint_minutes * 60 <= time.monotonic() - self._saved_at
        if trainer.strategy.reduce_boolean_decision(due or self.interrupted, all=False):
            self.save(trainer)
        if trainer.strategy.reduce_boolean_decision(self.interrupted, all=False):
            raise Interrupted

    def on_validation_batch_end(self, *_: Any) -> None:
        """Stop at once.

        Raises:
            Interrupted: after Ctrl-C; the run continues from the last checkpoint.
        """
        if self.interrupted:
            raise Interrupted

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """A checkpoint after the epoch and its validation."""
        self.save(trainer)
        if self.interrupted:
            raise Interrupted

    def save(self, trainer: lightning.Trainer) -> None:
        """Write beside, then replace: a kill at any moment leaves a whole checkpoint."""
        with replacing(self.path) if trainer.is_global_zero else nullcontext(self.path) as beside:
            trainer.save_checkpoint(beside)
        trainer.strategy.barrier("checkpoint")
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()
