"""What a model sees of some studies: inputs, guidance and targets (docs/architecture.md).

Shapes: B studies, V views, C channels, H x W pixels, T tokens, K observations.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Self

import torch
from torch import Tensor


class TensorRecord:
    """Moves every tensor of a dataclass at once; nested records and dicts of tensors included."""

    def apply(self, function: Callable[[Tensor], Tensor]) -> Self:
        """A copy with `function` applied to every tensor."""

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
        """A copy on `device`."""
        return self.apply(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """A copy in page-locked memory."""
        return self.apply(lambda tensor: tensor.pin_memory())


@dataclass
class Inputs(TensorRecord):
    """All that a report may be predicted from.

    Attributes:
        images: (B, V, 1, H, W) uint8 as stored, padded at right and bottom, before the transform;
            (B, V, 3, H, W) float, normalised, after it. H = W = 0 when every needed feature is cached.
        image_size: (B, V, 2) int64, height and width of each stored view inside the padding.
        view_mask: (B, V) bool, True where the study has that view. Every study has at least one.
        view_position: (B, V) int64, codes of `VIEW_POSITIONS`.
        features: what `ReportModel.prepare_features` returned for each view, (B, V, ...) each, where it was cached.
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
    """What training may know besides the targets; never tokens.

    Attributes:
        labels: (B, K, 4) float, one-hot over `STATUSES`, for the dataset's observations; None when it has none.
        study: identifiers of the studies.
        patient: identifiers of their patients.
    """

    labels: Tensor | None
    study: tuple[str, ...]
    patient: tuple[str, ...]


@dataclass
class Targets(TensorRecord):
    """The reports to be learned.

    Attributes:
        tokens: (B, T) int64: bos, the report, eos, then padding.
        mask: (B, T) bool, True on bos, report and eos. Taken from lengths, never from ids.
        report_key: (B,) int64, equal for equal cleaned reports (false negatives of contrastive losses).
        reports: the reports as the dataset holds them, for what reads more out of them than tokens.
    """

    tokens: Tensor
    mask: Tensor
    report_key: Tensor
    reports: tuple[str, ...] = ()


@dataclass
class Batch(TensorRecord):
    """Some studies, ready for a training step."""

    inputs: Inputs
    guide: Guide
    targets: Targets
