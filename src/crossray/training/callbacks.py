"""Callbacks of the training loop: the time limit, metrics.jsonl, and a final validation."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import lightning
from lightning.pytorch.callbacks import Callback

from crossray.data.batches.batch import Batch
from crossray.files.write import write_whole
from crossray.training.device import peak_memory
from crossray.training.module import TrainingModule

#: Name of the log in the folder of a run.
METRICS = "metrics.jsonl"


class Clock(Callback):
    """Measures and limits the training time, not counting interruptions between resumed runs.

    Args:
        limit: seconds after which training ends with a validation; 0 for no limit.

    Attributes:
        over: whether the limit is reached. All processes agree, since one that went on alone would wait forever.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.over = False
        self.before = 0.0
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of training so far."""
        return self.before + time.monotonic() - self._start

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock, so that preparation does not count as training time."""
        self._start = time.monotonic()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """End the stage when the time is up."""
        self._decide(trainer)
        if self.over:
            trainer.check_val_every_n_epoch = 1  # the stage ends with a validation in any epoch
            trainer.should_stop = True

    def on_train_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Stop the clock; the next stage continues from it, unless the last validation took the rest of the time."""
        self._decide(trainer)
        self.before, self._start = self.elapsed, time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return the elapsed seconds, for the checkpoint."""
        return {"elapsed": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the elapsed seconds."""
        self.before = state_dict["elapsed"]

    def _decide(self, trainer: lightning.Trainer) -> None:
        if self.limit:
            self.over = trainer.strategy.reduce_boolean_decision(self.elapsed >= self.limit, all=False)


class MetricsLog(Callback):
    """Appends training losses and validation metrics to metrics.jsonl and to the experiment tracker of the run.

    Args:
        path: path of metrics.jsonl; `keep_until` removes the rows after the checkpoint of a resumed run.
        every: number of optimizer steps between two rows of training losses.
        clock: measures the training time, which each row contains.
    """

    def __init__(self, path: Path, every: int, clock: Clock) -> None:
        self.path = path
        self.every = every
        self.clock = clock
        self._images = 0
        self._since = time.monotonic()
        self._logged = 0

    def keep_until(self, step: int) -> None:
        """Remove the rows after `step`, because those steps are repeated, and an incomplete last row."""
        if not self.path.exists():
            return
        rows = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["step"] <= step:
                rows.append(line + "\n")
        write_whole(self.path, "".join(rows))

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the measurement of speed, and count the step of the checkpoint as logged."""
        self._images, self._since, self._logged = 0, time.monotonic(), cast(TrainingModule, pl_module).step

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        """Append a row of training losses, if one is due."""
        module = cast(TrainingModule, pl_module)
        self._images += int(batch.inputs.view_mask.sum()) * trainer.world_size
        if module.step % self.every or module.step == self._logged:
            return
        now = time.monotonic()
        rate = self._images / max(now - self._since, 1e-9)
        self._images, self._since, self._logged = 0, now, module.step
        row = {**module.train_losses, "learning_rate": module.learning_rate(), "images_per_second": round(rate, 2)}
        memory = peak_memory(module.device.type)
        if memory is not None:
            row["memory_gb"] = round(memory, 3)
        self._append(trainer, module, "train", row)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Append a row of validation metrics."""
        module = cast(TrainingModule, pl_module)
        self._append(trainer, module, "val", module.validation_metrics)
        self._images, self._since = 0, time.monotonic()

    def _append(self, trainer: lightning.Trainer, module: TrainingModule, split: str, row: Mapping[str, float]) -> None:
        if not trainer.is_global_zero:
            return
        place = {"split": split, "step": module.step, "epoch": module.epoch, "stage": module.stage_index}
        # JSON has no NaN, so a metric without a value is null
        values = {name: value if math.isfinite(value) else None for name, value in row.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**place, "seconds": round(self.clock.elapsed, 2), **values}) + "\n")
        for logger in trainer.loggers:
            known = {f"{split}/{name}": value for name, value in values.items() if value is not None}
            logger.log_metrics(known, module.step)
            logger.save()


class LastValidation(Callback):
    """Validates after the last epoch of a stage, whatever `validate_every` is."""

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        """Schedule the validation."""
        if trainer.current_epoch + 1 >= cast(TrainingModule, pl_module).epochs:
            trainer.check_val_every_n_epoch = 1
