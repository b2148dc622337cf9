"""The LightningModule for every `Trainable` (docs/architecture.md): losses, schedule, validation, events."""

import copy
import dataclasses
import math
import typing
from typing import Any

import lightning
import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor

from crossray.data.batches.batch import Batch
from crossray.data.batches.module import StudyDataModule
from crossray.decoding.reports import study_seed, write_reports
from crossray.errors import UserError
from crossray.evaluation.labelers import RuleLabeler
from crossray.evaluation.metrics.statistics import validation_scores
from crossray.evaluation.utilities import utility_of
from crossray.models.base import Event, ReportModel, Trainable
from crossray.text.tokenizer import Tokenizer
from crossray.training.config import Recipe
from crossray.training.image_gain import NO_PARTNER, image_gain, partners
from crossray.training.optimizers import build_optimizer, schedule_factor
from crossray.training.reward import RewardObjective
from crossray.training.stages import StageKeeper, loss_weights
from crossray.training.supervision import Supervision


class TrainingModule(lightning.LightningModule):
    """Trains one stage of a recipe.

    The generators are seeded for every step from (recipe seed, rank, step), so a resumed run continues bit for bit
    without saved generator states.

    Args:
        model: the system to train.
        recipe: the whole recipe.
        keeper: keeper of `model`, which has entered this stage.
        stage: index of the stage in the recipe.
        steps_before: number of optimizer steps of the previous stages; `epochs_before`: their number of epochs.
        epochs: number of epochs of this stage.
        supervision: computes the loss "supervision"; needed if its weight is not 0.
        objective: computes the losses of a stage with objective reward.
    """

    def __init__(
        self,
        model: Trainable,
        recipe: Recipe,
        keeper: StageKeeper,
        *,
        stage: int = 0,
        epochs: int = 1,
        steps_before: int = 0,
        epochs_before: int = 0,
        supervision: Supervision | None = None,
        objective: RewardObjective | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe
        self.stage_index = stage
        self.stage = recipe.stages[stage]
        self.loss_weights = loss_weights(model, self.stage)
        self.epochs = epochs
        self.steps_before = steps_before
        self.epochs_before = epochs_before
        self.supervision = supervision
        self.objective = objective if self.stage.objective == "reward" else None
        self.reference: ReportModel | None = None
        if self.objective is not None and self.loss_weights["kl"]:
            self.reference = copy.deepcopy(typing.cast(ReportModel, model)).requires_grad_(False)
        self.train_losses: dict[str, float] = {}
        self.validation_metrics: dict[str, float] = {}
        self._keeper = keeper
        self._finished = False
        self._sums: dict[str, list[float]] = {}
        self._written: dict[str, tuple[str, str]] = {}
        self._partners: dict[str, int] = {}
        quick = recipe.trainer.greedy_validation
        self._decoding = dataclasses.replace(recipe.decoding, method="greedy") if quick else recipe.decoding
        self._utility = utility_of(self._decoding)

    @property
    def step(self) -> int:
        """Number of optimizer steps over all stages."""
        return self.steps_before + int(self.trainer.global_step)

    @property
    def epoch(self) -> int:
        """Number of completed epochs over all stages."""
        return self.epochs_before + int(self.trainer.current_epoch)

    @property
    def steps_per_epoch(self) -> int:
        """Number of optimizer steps per epoch of this stage."""
        return math.ceil(int(self.trainer.num_training_batches) / self.recipe.trainer.accumulate)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Create the optimizer of the stage."""
        optimizer = build_optimizer(self.model, self.recipe.optimizer, self.stage.learning_rates)
        if self.supervision is not None and self.loss_weights["supervision"]:
            rate = self.stage.learning_rates.get("", self.recipe.optimizer.learning_rate)
            parameters = list(self.supervision.parameters())
            optimizer.add_param_group({"params": parameters, "lr": rate, "base_lr": rate, "weight_decay": 0.0})
        return optimizer

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        """Clip gradients by value, then by norm, as set in the recipe."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if self.recipe.trainer.clip_value:
            torch.nn.utils.clip_grad_value_(parameters, self.recipe.trainer.clip_value)
        if self.recipe.trainer.clip_norm:
            torch.nn.utils.clip_grad_norm_(parameters, self.recipe.trainer.clip_norm)

    def on_train_start(self) -> None:
        """Set the frozen modules to eval mode, also when a run is resumed in the middle of an epoch."""
        self._keeper.train_mode()

    def on_validation_model_train(self) -> None:
        """Set the frozen modules to eval mode after a validation."""
        self._keeper.train_mode()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rates and the seed of this step."""
        seed_step(self.recipe.trainer.seed, self.global_rank, self._position(batch_idx))
        factor = schedule_factor(
            self.recipe.schedule, self.trainer.global_step, self.steps_per_epoch, self.steps_per_epoch * self.epochs
        )
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["base_lr"] * factor

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the weighted sum of the losses of a batch.

        Raises:
            UserError: the loss is not finite.
        """
        losses, measured = self._losses(batch)
        total = self._total(losses, batch)
        # a single copy to the CPU for all losses
        values = torch.stack([total.detach().float(), *(loss.detach().float() for loss in losses.values())]).tolist()
        self.train_losses = dict(zip(["loss", *(f"loss_{name}" for name in losses)], values, strict=True)) | measured
        if not math.isfinite(values[0]):
            worst = next((name for name, loss in losses.items() if not torch.isfinite(loss)), "total")
            raise UserError(
                f"training stopped at step {self.step}: loss '{worst}' is not finite; lower optimizer.learning_rate or "
                "set trainer.clip_norm, and resume from the last checkpoint or start a new run."
            )
        # Lightning divides by `accumulate` even if an epoch ends after fewer batches
        together = self.recipe.trainer.accumulate
        left = int(self.trainer.num_training_batches) - batch_idx // together * together
        return total * (together / min(together, left))

    def _losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, float]]:
        losses: dict[str, Tensor] = {}
        measured: dict[str, float] = {}
        if self.objective is None or any(self.loss_weights[name] for name in (*self.model.loss_weights, "supervision")):
            losses = self._supervised(batch)
        if self.objective is not None:
            model = typing.cast(ReportModel, self.model).eval()
            reference = None if self.reference is None else self.reference.eval()
            rewarded, measured = self.objective.losses(model, batch, reference)
            losses |= rewarded
            self._keeper.train_mode()
        return losses, measured

    def _supervised(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of the model and, if its weight is not 0, "supervision"; the batch is encoded only once."""
        if self.supervision is None or not self.loss_weights["supervision"]:
            return self.model.losses(batch)
        model = typing.cast(ReportModel, self.model)
        encoded = model.encode(batch.inputs, batch.guide)
        return {**model.losses_of(encoded, batch), "supervision": self.supervision(encoded, batch.guide)}

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Update the weights, and notify the model before anything is saved."""
        super().optimizer_step(*arguments, **options)
        self.model.advance(self._event("step", extra_steps=1))

    def on_train_epoch_end(self) -> None:
        """Notify the model of the end of an epoch and, after the last one, of the stage."""
        self.model.advance(self._event("epoch"))

    def on_validation_epoch_start(self) -> None:
        """Clear the previous results; draw partners for the image gain once, for all validations."""
        self._sums, self._written = {}, {}
        if isinstance(self.model, ReportModel) and not self._partners:
            data = self._data
            rows = data.rows("val")
            places = partners(data.report_keys(rows), self.recipe.trainer.seed)
            found = np.where(places == NO_PARTNER, NO_PARTNER, rows[places])
            self._partners = dict(zip(data.dataset.ids(rows), found.tolist(), strict=True))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Compute the losses, the model's own metrics and, if it generates reports, the reports."""
        losses = self._supervised(batch)
        tokens = float(batch.targets.mask[:, 1:].sum())
        for name, loss in losses.items():
            self._add(f"loss_{name}", float(loss), tokens if name in self.model.token_losses else batch.inputs.size)
        self.model.observe(batch)
        if isinstance(self.model, ReportModel) and self.model.tokenizer is not None:
            self._validate_reports(self.model, self.model.tokenizer, batch)

    def on_validation_epoch_end(self) -> None:
        """Compute the metrics from the results of all processes, so that each process has the same."""
        sums, written = self._sums, self._written
        if distributed.is_available() and distributed.is_initialized():
            parts: list[Any] = [None] * distributed.get_world_size()
            distributed.all_gather_object(parts, (sums, written))
            # a process whose studies have no partners has no image gain
            names = dict.fromkeys(name for part in parts for name in part[0])
            sums = {name: [sum(part[0].get(name, (0.0, 0.0))[i] for part in parts) for i in (0, 1)] for name in names}
            # a study that was repeated to fill the last batch counts only once
            written = {study: pair for part in parts for study, pair in part[1].items()}
        losses = {name: total / weight for name, (total, weight) in sums.items() if weight}
        metrics = {
            "loss": sum(weight * losses.get(f"loss_{name}", 0.0) for name, weight in self.loss_weights.items()),
            **losses,
        }
        metrics.update(self.model.summary())
        if written:
            hypotheses, references = zip(*(written[study] for study in sorted(written)), strict=True)
            metrics.update(validation_scores(hypotheses, references, RuleLabeler()))
            metrics["distinct"] = len(set(hypotheses)) / len(hypotheses)
        self.validation_metrics = metrics
        self.model.advance(self._event("validation"))

    def finish(self) -> None:
        """Notify the model of the end of the stage, and record it in the checkpoint."""
        self._finished = True
        self.model.advance(self._event("stage"))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state of the run to the Lightning checkpoint."""
        checkpoint["stage"] = self.stage_index
        checkpoint["steps_before"] = self.steps_before
        checkpoint["epochs_before"] = self.epochs_before
        checkpoint["step"] = self.step
        checkpoint["finished"] = self._finished

    def learning_rate(self) -> float:
        """Return the largest learning rate of the current step."""
        return max(float(group["lr"]) for group in self.trainer.optimizers[0].param_groups)

    @property
    def _data(self) -> StudyDataModule:
        data: StudyDataModule = self.trainer.datamodule
        return data

    def _validate_reports(self, model: ReportModel, tokenizer: Tokenizer, batch: Batch) -> None:
        encoded = model.encode(batch.inputs)
        seeds = [study_seed(self._decoding.seed, study) for study in batch.guide.study]
        written = write_reports(
            model, batch.inputs, self._decoding, encoded=encoded, seeds=seeds, utility=self._utility
        )
        references = [tokenizer.decode(row) for row in batch.targets.tokens.tolist()]
        for study, report, reference in zip(batch.guide.study, written, references, strict=True):
            self._written[study] = (report.text, reference)
        rows = np.array([self._partners[study] for study in batch.guide.study])
        known = torch.from_numpy(rows != NO_PARTNER).to(self.device)
        tokens = float((batch.targets.mask[:, 1:].sum(dim=1) * known).sum())
        if tokens:
            other = model.encode(self._data.inputs(rows.clip(0), self.device))
            gain = (image_gain(model, encoded, other, batch.targets) * known).sum()
            self._add("image_gain", float(gain) / tokens, tokens)

    def _position(self, batch_idx: int) -> int:
        # number of batches since the start of the stage; the shift separates the stages
        before = int(self.trainer.current_epoch) * int(self.trainer.num_training_batches)
        return (self.stage_index << 40) + before + batch_idx

    def _event(self, kind: Any, extra_steps: int = 0) -> Event:
        return Event(
            kind=kind, step=self.step + extra_steps, epoch=self.epoch + (kind == "epoch"), stage=self.stage_index,
            steps=self.steps_before + self.steps_per_epoch * self.epochs,
        )  # fmt: skip

    def _total(self, losses: dict[str, Tensor], batch: Batch) -> Tensor:
        total = torch.zeros((), device=batch.inputs.view_mask.device)
        for name, loss in losses.items():
            weight = self.loss_weights[name]
            if weight:
                total = total + weight * loss.float() * (
                    self._token_share(batch) if name in self.model.token_losses else 1.0
                )
        return total

    def _token_share(self, batch: Batch) -> Tensor | float:
        # gradients are averaged over processes, so for a mean over all tokens each process is weighted by its share
        if not (distributed.is_available() and distributed.is_initialized()):
            return 1.0
        own = batch.targets.mask[:, 1:].sum().float()
        everyone = own.clone()
        distributed.all_reduce(everyone)
        return own * distributed.get_world_size() / everyone.clamp_min(1)

    def _add(self, name: str, value: float, weight: float) -> None:
        total = self._sums.setdefault(name, [0.0, 0.0])
        total[0] += value * weight
        total[1] += weight


def seed_step(seed: int, rank: int, position: int) -> None:
    """Seed PyTorch's generators for one step, so that the step can be repeated exactly."""
    mixed = seed
    # splitmix64, so that adjacent seeds, ranks and positions give unrelated streams
    for part in (rank, position):
        mixed = (mixed + 0x9E3779B97F4A7C15 * (part + 1)) & 0xFFFFFFFFFFFFFFFF
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    torch.manual_seed(mixed >> 1)
