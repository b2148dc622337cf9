"""Pretrains a vision backbone on the observations of a dataset.

Any system can use the saved folder as its backbone: `backbone.name: FOLDER`.
Shapes: B studies, V views, K observations, W words, pooled features of width P.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, ClassVar, Literal, Self

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.data.batches.batch import Batch, Inputs
from crossray.data.study import VIEW_POSITIONS
from crossray.errors import UserError
from crossray.layers.dropout import Dropout
from crossray.models.base import Trainable, TrainableConfig, register
from crossray.models.parts.backbones import BackboneConfig, build_backbone
from crossray.text.observations import STATUSES
from crossray.text.words import frequent_words, words_of

#: Minimum number of positives for an observation to count in `auroc_frequent`.
FREQUENT = 10

_BLANK, _POSITIVE, _NEGATIVE, _UNCERTAIN = range(len(STATUSES))


@dataclass(frozen=True, kw_only=True)
class VisionConfig(TrainableConfig):
    """Configuration of `Vision`.

    Attributes:
        backbone: the vision backbone to train.
        observations: names of the observations in `Guide.labels`; set from the data.
        views: maximum number of views of a study; set from the data.
        uncertain: how to treat uncertain observations: positive, negative, or ignore.
        blank: how to treat observations that a report does not mention: negative, or ignore.
        dropout: dropout before the linear map.
        lateral_apart: use a separate linear map for lateral views; otherwise all views share one.
        label_smoothing: share s of label smoothing: the target is 1 - s/2 for a positive and s/2 for a negative.
        contrast: maximum random change of each image's contrast and brightness in training, as a share.
        mixup: in training, mix the images and targets of every study with those of another one in the batch, with
            shares from Beta(mixup, mixup) (Zhang et al., 2018); 0 for no mixup.
        word_count: also predict the words that occur in at least this number of training reports and in fewer than half
            of them (Joulin et al., 2016); 0 for no words.
        words: these words; set from the data.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    observations: tuple[str, ...] = ()
    views: int = 2
    uncertain: Literal["positive", "negative", "ignore"] = "positive"
    blank: Literal["negative", "ignore"] = "negative"
    dropout: float = 0.1
    lateral_apart: bool = False
    label_smoothing: float = 0.0
    contrast: float = 0.0
    mixup: float = 0.0
    word_count: int = 0
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Reject a negative number."""
        if self.word_count < 0:
            raise UserError(f"recipe field 'model.word_count' is {self.word_count}; give 0 for none, or 1 or more.")

    def fitted(self, reports: Callable[[], Sequence[str]]) -> Self:
        """A copy with the words that are frequent enough; a small dataset may have none."""
        if not self.word_count:
            return self
        return dataclasses.replace(self, words=frequent_words(reports(), self.word_count))


@register("vision", VisionConfig)
class Vision(Trainable):
    """A backbone and a linear classifier of the mean pooled features of a study's views."""

    loss_weights: ClassVar = {"observations": 1.0, "words": 1.0}
    metrics: ClassVar = ("auroc", "auroc_*")
    config: VisionConfig

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        if not config.observations:
            raise UserError(
                "system 'vision': the dataset has no labels to learn; prepare one with labels, such as phantom."
            )
        self.backbone = build_backbone(config.backbone)
        self.config = dataclasses.replace(config, backbone=self.backbone.config)
        self.dropout = Dropout(config.dropout)
        kinds = 2 if config.lateral_apart else 1
        self.head = nn.Linear(kinds * self.backbone.width, len(config.observations) + len(config.words))
        self._scores: list[Tensor] = []
        self._truth: list[Tensor] = []

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits (B, K) of each study's observations; missing views are ignored."""
        return self.logits(inputs)[:, : len(self.config.observations)]

    def logits(self, inputs: Inputs) -> Tensor:
        """Logits (B, K + W) of each study's observations and words."""
        pooled = self.backbone.views(inputs)[1]
        kinds = [inputs.view_mask]
        if self.config.lateral_apart:
            lateral = inputs.view_position == VIEW_POSITIONS.index("lateral")
            kinds = [inputs.view_mask & ~lateral, inputs.view_mask & lateral]
        means = [mean_of(pooled, kind) for kind in kinds]
        logits: Tensor = self.head(self.dropout(torch.cat(means, dim=1)))
        return logits

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Binary cross-entropies of observations and words, averaged over studies and known entries."""
        truth, inputs = torch.cat([self.truth(batch), self.words(batch)], dim=1), batch.inputs
        known = (truth >= 0).float()
        smoothing = self.config.label_smoothing
        target = truth.clamp_min(0).float() * (1 - smoothing) + smoothing / 2
        if self.training:
            inputs, target, known = self._augmented(inputs, target, known)
        losses = known * F.binary_cross_entropy_with_logits(self.logits(inputs).float(), target, reduction="none")
        sizes = {"observations": len(self.config.observations), "words": len(self.config.words)}
        parts = zip(losses.split([*sizes.values()], dim=1), known.split([*sizes.values()], dim=1), strict=True)
        means = [part.sum() / count.sum().clamp_min(1) for part, count in parts]
        return {name: mean for (name, size), mean in zip(sizes.items(), means, strict=True) if size}

    def _augmented(self, inputs: Inputs, target: Tensor, known: Tensor) -> tuple[Inputs, Tensor, Tensor]:
        """Apply contrast, brightness and mixup; in a mixture, an observation is known if both studies' are."""
        images, strength = inputs.images, self.config.contrast
        if strength:
            factor, shift = ((2 * torch.rand(2, *images.shape[:2], 1, 1, 1) - 1) * strength).to(images)
            images = images * (1 + factor) + shift
        if self.config.mixup:
            order = torch.randperm(len(images), device=images.device)
            # Studies are only mixed if they have the same views.
            alike = (inputs.view_mask == inputs.view_mask[order]).all(1) & (
                inputs.view_position == inputs.view_position[order]
            ).all(1)
            share = torch.distributions.Beta(self.config.mixup, self.config.mixup).sample((len(images),))
            own = torch.where(alike.cpu(), torch.maximum(share, 1 - share), 1.0).to(images)
            images = torch.lerp(images[order], images, own.view(-1, 1, 1, 1, 1))
            target = torch.lerp(target[order], target, own.unsqueeze(1))
            known = torch.where(own.unsqueeze(1) < 1, known * known[order], known)
        return dataclasses.replace(inputs, images=images), target, known

    def truth(self, batch: Batch) -> Tensor:
        """Targets (B, K) int8: 1 positive, 0 negative, -1 ignored.

        Raises:
            UserError: the batch has no labels.
        """
        labels = batch.guide.labels
        if labels is None:
            raise UserError(
                "system 'vision': the dataset has no labels to learn; prepare one with labels, such as phantom."
            )
        meaning = torch.zeros(len(STATUSES), dtype=torch.int8, device=labels.device)
        meaning[_POSITIVE] = 1
        meaning[_BLANK] = {"negative": 0, "ignore": -1}[self.config.blank]
        meaning[_UNCERTAIN] = {"positive": 1, "negative": 0, "ignore": -1}[self.config.uncertain]
        # A study without labels has all zeros; its observations are unknown.
        return torch.where(labels.sum(-1) > 0, meaning[labels.argmax(-1)], -1)

    def words(self, batch: Batch) -> Tensor:
        """Whether each word occurs in the report, (B, W) int8."""
        reports = [words_of(report) for report in batch.targets.reports] if self.config.words else []
        found = [[word in report for word in self.config.words] for report in reports]
        return torch.tensor(found, dtype=torch.int8, device=batch.inputs.view_mask.device).view(batch.inputs.size, -1)

    def observe(self, batch: Batch) -> None:
        """Record the logits and targets of a validation batch."""
        self._scores.append(self(batch.inputs).float().cpu())
        self._truth.append(self.truth(batch).cpu())

    def summary(self) -> dict[str, float]:
        """`auroc_NAME` of each observation with both classes, and `auroc`, their mean.

        `auroc_frequent` is the mean over those with at least `FREQUENT` positives, which is less noisy; without any, it
        equals `auroc`.
        """
        if not self._scores:
            return {}
        scores, truth = gather_rows(torch.cat(self._scores)), gather_rows(torch.cat(self._truth))
        self._scores, self._truth = [], []
        values, frequent = {}, []
        for index, name in enumerate(self.config.observations):
            known = truth[:, index] >= 0
            positive = truth[known, index] == 1
            value = auroc(scores[known, index], positive)
            if value is not None:
                values[f"auroc_{name}"] = value
                if positive.sum() >= FREQUENT:
                    frequent.append(value)
        mean = fmean(values.values()) if values else float("nan")
        return {"auroc": mean, "auroc_frequent": fmean(frequent) if frequent else mean, **values}

    def frozen(self) -> list[str]:
        """Names of the backbone's parameters, if it is not trainable."""
        return self.backbone.frozen("backbone")


def mean_of(pooled: Tensor, chosen: Tensor) -> Tensor:
    """Mean (B, P) of the chosen (B, V) views (B, V, P); zero for a study without any."""
    weights = chosen.to(pooled.dtype).unsqueeze(-1)
    return (pooled * weights).sum(1) / weights.sum(1).clamp_min(1)


def auroc(scores: Tensor, positive: Tensor) -> float | None:
    """Area under the ROC curve: the probability that a positive scores above a negative; ties count half.

    Args:
        scores: (N,) float.
        positive: (N,) bool.

    Returns:
        The area, or None if all or none are positive.
    """
    positives = int(positive.sum())
    negatives = positive.numel() - positives
    if not positives or not negatives:
        return None
    # Mean rank of equal scores: midway between the first and the last rank of the value.
    _, group, count = scores.unique(sorted=True, return_inverse=True, return_counts=True)
    last = count.cumsum(0).double()
    ranks = (last - (count.double() - 1) / 2)[group]
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def gather_rows(rows: Tensor) -> Tensor:
    """Gather rows from all processes: (N, ...) on the CPU."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return rows
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, rows)
    return torch.cat(parts)
