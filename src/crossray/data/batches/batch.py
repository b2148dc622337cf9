"""Batches of studies: inputs, guidance and targets (docs/architecture.md).

Shapes: B studies, V views, C channels, H x W pixels, T tokens, K observations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self

import torch
from torch import Tensor


class TensorRecord:
    """Base class of dataclasses of tensors, nested records and dicts of tensors, which are moved together."""

    def apply(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return a copy with `function` applied to every tensor."""

        def convert(value: Any) -> Any:
            if isinstance(value, Tensor):
                return function(value)
            if isinstance(value, TensorRecord):
                return value.apply(function)
            if isinstance(value, dict):
                return {key: convert(item) for key, item in value.items()}
            return value

        return type(self)(**{f.name: convert(getattr(self, f.name)) for f in fields(self)})  # type: ignore[arg-type]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return a copy on `device`."""
        return self.apply(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return a copy in pinned memory."""
        return self.apply(lambda tensor: tensor.pin_memory())


@dataclass
class Inputs(TensorRecord):
    """Everything from which a model may predict a report.

    Attributes:
        images: before the transform, (B, V, 1, H, W) uint8 as stored, padded on the right and at the bottom; after it,
            (B, V, 3, H, W) float, normalized. H = W = 0 if all required features are cached.
        image_size: (B, V, 2) int64, height and width of each stored view without padding.
        view_mask: (B, V) bool, True for views that exist. Every study has at least one.
        view_position: (B, V) int64, codes of `VIEW_POSITIONS`.
        features: cached outputs of `ReportModel.prepare_features` by name, each (B, V, ...).
    """

    images: Tensor
    image_size: Tensor
    view_mask: Tensor
    view_position: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of studies B."""
        return self.view_mask.shape[0]


@dataclass
class Guide(TensorRecord):
    """Additional information for training, without tokens.

    Attributes:
        labels: (B, K, 4) float, one-hot over `STATUSES`, for the observations of the dataset; None if it has none.
        study: identifiers of the studies.
        patient: identifiers of their patients.
    """

    labels: Tensor | None
    study: tuple[str, ...]
    patient: tuple[str, ...]


def guide_of(studies: Sequence[str]) -> Guide:
    """Identify training studies outside training, so that a system does not read their own reports."""
    return Guide(None, tuple(studies), tuple(studies))


@dataclass
class Targets(TensorRecord):
    """The target reports.

    Attributes:
        tokens: (B, T) int64: bos, the report, eos, then padding.
        mask: (B, T) bool, True on bos, report and eos; computed from lengths, never from ids.
        report_key: (B,) int64, equal for equal cleaned reports, which contrastive losses must not use as negatives.
        reports: texts of the reports as stored, for uses other than tokens.
    """

    tokens: Tensor
    mask: Tensor
    report_key: Tensor
    reports: tuple[str, ...] = ()


@dataclass
class Batch(TensorRecord):
    """A batch of studies for a training step."""

    inputs: Inputs
    guide: Guide
    targets: Targets
