"""Uses the classifier of a pretrained image encoder as the diagnosis of a system.

Shapes: B studies, V views, C backbone channels, K observations, D width.
"""

import contextlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.data.store import Dataset
from crossray.data.study import VIEW_POSITIONS
from crossray.errors import UserError
from crossray.files.folders import model_folder
from crossray.models.base import Trainable
from crossray.models.pretraining.vision import Vision, mean_of
from crossray.text.observations import CALLED


class EncoderDiagnosis(nn.Module):
    """The frozen linear classifier of a `vision` encoder, and an embedding of each observation's two answers.

    Args:
        channels: number C of backbone channels.
        width: width D of the prompts.
        classes: number K of observations.
    """

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.thresholds: Tensor
        self.register_buffer("weight", torch.zeros(classes, 3 * channels))
        self.register_buffer("bias", torch.zeros(classes))
        self.register_buffer("thresholds", torch.zeros(classes))
        self.statuses = nn.Parameter(torch.randn(classes, 2, width))

    def forward(self, pooled: Tensor, views: Tensor, positions: Tensor) -> Tensor:
        """Logits (B, K) minus the thresholds: positive numbers call an observation positive.

        Args:
            pooled: (B, V, C), as the encoder computes them, without standardization.
            views: (B, V) bool, True for existing views.
            positions: (B, V) int, positions of the views.
        """
        lateral = positions == VIEW_POSITIONS.index("lateral")
        means = [mean_of(pooled.to(self.weight.dtype), kind) for kind in (views, views & ~lateral, views & lateral)]
        with torch.autocast(pooled.device.type, enabled=False):
            return F.linear(torch.cat(means, dim=1), self.weight, self.bias) - self.thresholds

    def prompts(self, positive: Tensor) -> Tensor:
        """Prompts (B, K, D) for observations that are called positive or not, (B, K) bool."""
        return torch.where(positive[..., None], self.statuses[:, 1], self.statuses[:, 0])

    def learn(self, encoder: Vision) -> None:
        """Copy the classifier of an encoder."""
        classes, channels = len(self.bias), self.weight.shape[1] // 3
        head = encoder.head.weight.detach()[:classes]
        self.weight.zero_()
        if encoder.config.lateral_apart:
            self.weight[:, channels:] = head
        else:
            self.weight[:, :channels] = head
        self.bias.copy_(encoder.head.bias.detach()[:classes])

    def set_thresholds(self, logits: Tensor, shares: Tensor) -> None:
        """Call as large a share of the studies positive as are expected to be.

        Args:
            logits: (N, K), results of `forward`, with the current thresholds.
            shares: (K,), expected share of positive studies.
        """
        cuts = [column.quantile(1 - float(share)) for column, share in zip(logits.T, shares, strict=True)]
        self.thresholds += torch.stack(cuts)


def read_encoder(name: str, observations: tuple[str, ...]) -> Vision:
    """The encoder in the folder `name`.

    Raises:
        UserError: the folder is no encoder of `crossray pretrain vision`, or it knows other observations.
    """
    encoder = None
    with contextlib.suppress(UserError):
        encoder = Trainable.from_pretrained(model_folder(name)) if Path(name).is_dir() else None
    if not isinstance(encoder, Vision) or encoder.config.observations != observations:
        raise UserError(
            f"recipe field 'model.encoder_diagnosis': backbone '{name}' is no encoder that `crossray pretrain vision` "
            "trained on the observations of this dataset; name one in 'model.backbone.name', or set the field to false."
        )
    return encoder


def shares_called(dataset: Dataset) -> Tensor:
    """Share of the labeled training studies in which each observation is positive or uncertain, (K,).

    Raises:
        UserError: no training study has labels.
    """
    labels = np.asarray(dataset.labels)[dataset.rows("train")]
    labels = labels[(labels >= 0).all(axis=1)]
    if not len(labels):
        raise UserError(
            f"{dataset.path}: no training study has labels, which 'model.encoder_diagnosis' needs; prepare it again."
        )
    return torch.from_numpy(np.isin(labels, CALLED).mean(axis=0))
