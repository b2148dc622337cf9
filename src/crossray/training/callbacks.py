"""What happens beside the training loop: the clock, metrics.jsonl, and the last validation."""

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
from crossray.training.module import TrainingModule

#: Log within the folder of a run.
METRICS = "metrics.jsonl"


class Clock(Callback):
    """Seconds of training so far, interruptions not counted, and the limit on them.

    Args:
        limit: seconds after which training ends with a validation; 0: none.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.before = 0.0
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of training."""
        return self.before + time.monotonic() - self._start

    @property
    def over(self) -> bool:
        """Whether the limit is reached."""
        return 0 < self.limit <= self.elapsed

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start counting: preparation is not training."""
        self._start = time.monotonic()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """End the stage when time is over; processes decide together."""
        if self.limit and trainer.strategy.reduce_boolean_decision(self.over, all=False):
            trainer.check_val_every_n_epoch = 1  # the stage ends with a validation, whatever epoch this is
            trainer.should_stop = True

    def on_train_end(self, *_: Any) -> None:
        """Keep what was counted: the next stage continues from it."""
        self.before, self._start = self.elapsed, time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Seconds so far."""
        return {"elapsed": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.before = state_dict["elapsed"]


class MetricsLog(Callback):
    """Appends rows to metrics.jsonl and the run's tracker: training losses every `log_every` steps, every validation.

    Args:
        path: the file; rows later than the checkpoint are removed when a run continues, see `keep_until`.
        every: optimiser steps between two rows of training losses.
        clock: seconds of training, for the rows.
    """

    def __init__(self, path: Path, every: int, clock: Clock) -> None:
        self.path = path
        self.every = every
        self.clock = clock
        self._images = 0
        self._since = time.monotonic()
        self._logged = -1

    def keep_until(self, step: int) -> None:
        """Remove the rows of steps after `step`, which will be taken again, and a row that was cut off."""
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

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Batch, *_: Any
    ) -> None:
        """A row of training losses."""
        module = cast(TrainingModule, pl_module)
        self._images += int(batch.inputs.view_mask.sum()) * trainer.world_size
        if module.step % self.every or module.step == self._logged:
            return
        now = time.monotonic()
        rate = self._images / max(now - self._since, 1e-9)
        self._images, self._since, self._logged = 0, now, module.step
        row = {**module.train_losses, "learning_rate": module.learning_rate(), "images_per_second": round(rate, 2)}
        self._append(trainer, module, "train", row)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """A row of validation metrics."""
        module = cast(TrainingModule, pl_module)
        self._append(trainer, module, "val", module.validation_metrics)
        self._images, self._since = 0, time.monotonic()

    def _append(self, trainer: lightning.Trainer, module: TrainingModule, split: str, row: Mapping[str, float]) -> None:
        if not trainer.is_global_zero:
            return
        place = {"split": split, "step": module.step, "epoch": module.epoch, "stage": module.stage_index}
        # JSON has no NaN: a metric without a value is null
        values = {name: value if math.isfinite(value) else None for name, value in row.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**place, "seconds": round(self.clock.elapsed, 2), **values}) + "\n")
        for logger in trainer.loggers:
            known = {f"{split}/{name}": value for name, value in values.items() if value is not None}
            logger.log_metrics(known, module.step)
            logger.save()


class LastValidation(Callback):
    """The last epoch of a stage is always validated, whatever `validate_every` says."""

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        """Ask for it."""
        if trainer.current_epoch + 1 >= cast(TrainingModule, pl_module).epochs:
            trainer.check_val_every_n_epoch = 1
