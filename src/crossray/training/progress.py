"""Shows the progress of a run in the terminal."""

import time
from typing import Any, cast

import lightning
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from crossray.data.batches.batch import Batch
from crossray.training.device import peak_memory
from crossray.training.heartbeat import Heartbeat
from crossray.training.module import TrainingModule


class ProgressDisplay(Callback):
    """Shows a bar for each epoch with losses, images per second and peak memory, and a line for each validation.

    Args:
        console: console to print to; without a terminal, one line per minute replaces the bar.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, markup=False, emoji=False)
        self._bar: Progress | None = None
        self._images = 0
        self._since = 0.0
        self._beat = Heartbeat("training", self.console)
        self._validating = Heartbeat("validating", self.console)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Open the progress bar."""
        if trainer.is_global_zero:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                TextColumn("{task.fields[detail]}"), console=self.console, disable=not self.console.is_terminal,
                transient=True,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("epoch", total=int(trainer.num_training_batches), detail="")
            self._images, self._since = 0, time.monotonic()
            self._beat = Heartbeat("training", self.console)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Update the progress bar."""
        if self._bar is None:
            return
        module = cast(TrainingModule, pl_module)
        self._images += int(batch.inputs.view_mask.sum()) * trainer.world_size
        rate = self._images / max(time.monotonic() - self._since, 1e-9)
        losses = " ".join(f"{name} {value:.3f}" for name, value in module.train_losses.items())
        epoch = f"epoch {module.epoch + 1}/{self._epochs(module)}"
        detail = f"{losses}  {rate:.1f} images/s"
        memory = peak_memory(module.device.type)
        if memory is not None:
            detail += f"  {'GPU ' if module.device.type == 'cuda' else ''}memory {memory:.1f} GB"
        self._bar.update(self._task, completed=batch_idx + 1, description=epoch, detail=detail)
        batches = int(trainer.num_training_batches)
        done, total = trainer.current_epoch * batches + batch_idx + 1, module.epochs * batches
        self._beat(done, total, f"{epoch}  {detail}")

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show that validation is running."""
        if self._bar is not None:
            self._bar.update(self._task, description="validating")
            self._validating = Heartbeat("validating", self.console)

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show the progress of the validation."""
        if self._bar is not None:
            self._validating(batch_idx + 1, int(sum(trainer.num_val_batches)))

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Print one line of metrics."""
        self._images, self._since = 0, time.monotonic()
        if self._bar is None:
            return
        module = cast(TrainingModule, pl_module)
        shown = {name: value for name, value in module.validation_metrics.items() if not name.startswith("loss_")}
        metrics = "  ".join(f"{name} {value:.3f}" for name, value in shown.items())
        self.console.print(
            f"epoch {module.epoch + 1}/{self._epochs(module)}  step {module.step}  {metrics}", soft_wrap=True
        )

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Close the progress bar."""
        self._close()

    def on_exception(self, *_: Any) -> None:
        """Close the progress bar."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    @staticmethod
    def _epochs(module: TrainingModule) -> int:
        return sum(module.recipe.stage_epochs())
