"""Callbacks that save the checkpoint for resuming a run, and the model folder with the best validation metric."""

import math
import shutil
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint

from crossray.data.batches.batch import Batch
from crossray.decoding.settings import GenerationSettings
from crossray.errors import UserError
from crossray.files.write import replace_folder, replacing
from crossray.training.config import TrainerConfig
from crossray.training.folder import first_process
from crossray.training.mirror import Mirror
from crossray.training.module import TrainingModule
from crossray.training.selection import monitored, monitored_names, selected_by

#: Name of the checkpoint in the folder of a run.
LAST = "last.ckpt"


class Interrupted(Exception):  # noqa: N818 - not an error
    """Training was interrupted by Ctrl-C and can be resumed from the last checkpoint."""


class BestModel(Callback):
    """Saves the model with the best validation metric to a model folder, and stops a stage that no longer improves.

    Args:
        folder: path of the model folder, which is replaced atomically.
        config: trainer settings; `monitor`, `mode`, `patience` and `min_epochs` are used.
        provenance: stored with the model, together with its step and metrics.
        generation: decoding settings to save with the model; None if it does not generate reports.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainerConfig,
        provenance: Mapping[str, Any],
        generation: GenerationSettings | None = None,
    ) -> None:
        self.generation = generation
        self.folder = folder
        self.config = config
        self.provenance = provenance
        self.monitor, self.mode = config.monitor, config.mode
        self.best: float | None = None
        self.waited = 0
        self._weights: dict[str, float] = {}

    def begin(self, module: TrainingModule) -> None:
        """Prepare for a stage; the best model of earlier stages remains until a better one is found.

        If the monitored metric changes, its values are not comparable: the best model so far is copied to
        `best-stageN`, and the selection starts anew. It also starts anew if the monitor contains the total loss and the
        loss weights change.
        """
        weights, earlier = dict(module.loss_weights), self.monitor
        self.monitor, self.mode = selected_by(module.stage, self.config)
        if self.best is not None and self.monitor != earlier:
            if first_process():
                aside = self.folder.with_name(f"{self.folder.name}-stage{module.stage_index}")
                replace_folder(aside, lambda folder: shutil.copytree(self.folder, folder))
            self.best = None
        if "loss" in monitored_names(self.monitor) and self._weights not in ({}, weights):
            self.best = None
        self.waited, self._weights = 0, weights

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the model if it is the best so far.

        Raises:
            UserError: validation has no such metric.
        """
        module = cast(TrainingModule, pl_module)
        value = monitored(module.validation_metrics, self.monitor)
        ending = trainer.should_stop or trainer.current_epoch + 1 >= module.epochs
        early = trainer.current_epoch + 1 < self.config.min_epochs and not (ending and self.best is None)
        if early:
            return
        # nothing is better than a value that could not be computed, so that the latest model is kept until one can be
        best = math.nan if self.best is None else self.best
        better = math.isnan(best) or (value > best if self.mode == "max" else value < best)
        if better:
            self.best, self.waited = value, 0
            self.save(trainer, module)
        else:
            self.waited += 1
            if 0 < self.config.patience <= self.waited:
                trainer.should_stop = True

    def save(self, trainer: lightning.Trainer, module: TrainingModule) -> None:
        """Write the model to a temporary folder, then replace the old model folder."""
        if trainer.is_global_zero:
            place = {"step": module.step, "epoch": module.epoch + 1, "stage": module.stage_index}
            # JSON has no NaN, so a metric without a value is null
            found = {name: value if math.isfinite(value) else None for name, value in module.validation_metrics.items()}
            validation = {"monitor": self.monitor, "validation": found}

            def write(folder: Path) -> None:
                module.model.save_pretrained(folder, {**self.provenance, **place, **validation})
                if self.generation is not None:
                    self.generation.save(folder)

            replace_folder(self.folder, write)
        trainer.strategy.barrier("best model")

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and the number of validations since, for the checkpoint."""
        return {"best": self.best, "waited": self.waited, "weights": self._weights, "monitor": self.monitor}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value from a checkpoint."""
        self.best, self.waited = state_dict["best"], state_dict["waited"]
        self._weights = dict(state_dict["weights"])
        self.monitor = state_dict.get("monitor", self.config.monitor)  # absent in checkpoints before version 0.3


class LastCheckpoint(Checkpoint):
    """Writes last.ckpt after every epoch, at intervals of steps or minutes, and on Ctrl-C.

    Args:
        path: path of the checkpoint, which is replaced atomically.
        config: trainer settings; `checkpoint_steps`, `checkpoint_minutes`, `accumulate` and `mirror` are used.

    Raises:
        UserError: the mirror cannot be written to.
    """

    def __init__(self, path: Path, config: TrainerConfig) -> None:
        self.path = path
        self.config = config
        self.mirror = Mirror(config.mirror, path.parent) if config.mirror and first_process() else None
        self.interrupted = False
        self._saved_step = -1
        self._saved_at = time.monotonic()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write a checkpoint before the first step of a later stage.

        Such a stage may start from the weights in best/, which its first validation can replace before the first
        checkpoint after an epoch.
        """
        if cast(TrainingModule, pl_module).stage_index and trainer.global_step == 0:
            self.save(trainer)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Write a checkpoint during the epoch, if one is due.

        Raises:
            Interrupted: after Ctrl-C.
        """
        step, config = trainer.global_step, self.config
        ending = batch_idx + 1 >= trainer.num_training_batches  # validation and the end of the epoch run first
        if ending or (batch_idx + 1) % config.accumulate or trainer.should_stop or step == self._saved_step:
            return
        due = config.checkpoint_steps > 0 and step % config.checkpoint_steps == 0
        due |= 0 < config.checkpoint_minutes * 60 <= time.monotonic() - self._saved_at
        if trainer.strategy.reduce_boolean_decision(due or self.interrupted, all=False):
            self.save(trainer)
        if trainer.strategy.reduce_boolean_decision(self.interrupted, all=False):
            raise Interrupted

    def on_validation_batch_end(self, *_: Any) -> None:
        """Stop immediately after Ctrl-C.

        Raises:
            Interrupted: after Ctrl-C; the run can be resumed from the last checkpoint.
        """
        if self.interrupted:
            raise Interrupted

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write a checkpoint after the epoch and its validation."""
        self.save(trainer)
        if self.interrupted:
            raise Interrupted

    def save(self, trainer: lightning.Trainer) -> None:
        """Write a temporary file, then replace the checkpoint, so that a killed process leaves a complete one."""
        with replacing(self.path) if trainer.is_global_zero else nullcontext(self.path) as beside:
            trainer.save_checkpoint(beside)
        if self.mirror is not None:
            self.mirror.update()
        trainer.strategy.barrier("checkpoint")
        self._saved_step, self._saved_at = trainer.global_step, time.monotonic()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load the checkpoint of a run without executing code from it.

    Raises:
        UserError: the file is damaged.
    """
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        for field in ("stage", "step", "steps_before", "epochs_before", "epoch", "finished", "callbacks", "state_dict"):
            checkpoint[field]
    except Exception as error:  # PyTorch raises many types of errors for damaged files
        raise UserError(
            f"{path} is damaged ({type(error).__name__}); restore it, or delete it to start the run from the beginning."
        ) from error
    return checkpoint
