"""Backbones by the output of their network: a feature map, patch tokens, or the tokens of any other Transformer.

Shapes: N images, B studies, V views, S tokens per image, C channels of the backbone.
"""

import contextlib
import inspect
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from crossray.models.parts.backbone import Backbone, BackboneConfig


class FeatureMapBackbone(Backbone):
    """Uses the last feature map of a convolutional network, in row-major order; the pooled vector is its mean."""

    def __init__(self, network: nn.Module, config: BackboneConfig) -> None:
        super().__init__(network, config)
        self.channels_last = config.channels_last and not any(map(_writes_outside, network.modules()))
        if self.channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def width(self) -> int:
        """Channels of the feature map."""
        return measured(self, natural_size(self.network))[1]

    def tokens(self, size: int) -> int:
        """One token per cell of the last feature map."""
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
    """Whether oneDNN's backward pass of this strided 1 x 1 convolution (channels last) writes outside its buffers."""
    if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1) or module.stride == (1, 1):
        return False
    return bool(module.in_channels % 16 or module.out_channels % 16)


class ResNetBackbone(FeatureMapBackbone):
    """A ResNet: its sizes are known without running it, and its first stages can be checkpointed."""

    @property
    def width(self) -> int:
        """Channels of the last stage."""
        return int(self.network.config.hidden_sizes[-1])

    def tokens(self, size: int) -> int:
        """One token per cell of the last feature map."""
        # The stem halves the size twice, each stage after the first once; each halving rounds up.
        for _ in range(len(self.network.config.depths) + 1):
            size = (size + 1) // 2
        return size * size

    def feature_map(self, images: Tensor) -> Tensor:
        """Run stem and stages, with checkpointing as configured."""
        x: Tensor = self.network.embedder(images)
        for index, stage in enumerate(self.network.encoder.stages):
            if index < self.config.checkpoint and torch.is_grad_enabled():
                x = checkpoint(stage, x, use_reentrant=False, context_fn=partial(_contexts, stage))
            else:
                x = stage(x)
        return x


class PatchBackbone(Backbone):
    """Uses the patch tokens of a ViT or DINOv2 after its last normalization; the pooled vector is its class token."""

    @property
    def width(self) -> int:
        """Channels of every layer."""
        return int(self.network.config.hidden_size)

    def tokens(self, size: int) -> int:
        """One token per patch, and the class token if configured."""
        return (size // int(self.network.config.patch_size)) ** 2 + int(self.config.cls_token)

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Run all layers and the last normalization."""
        # DINOv2 always interpolates its position codes to the image size, ViT only on request.
        options = {"interpolate_pos_encoding": True} if self.network.config.model_type == "vit" else {}
        x = self.network(images, **options).last_hidden_state
        return x if self.config.cls_token else x[:, 1:], x[:, 0]


class TokenBackbone(Backbone):
    """Uses the tokens of any other Transformer; the pooled vector is its class token, or the mean if it has none.

    Tokens before the patch tokens (class token, registers, distillation token) are identified by their number. A
    network that merges patches, such as Swin, has none.
    """

    @property
    def width(self) -> int:
        """Channels of a token."""
        return measured(self, natural_size(self.network))[1]

    def tokens(self, size: int) -> int:
        """One token per cell, and the class token if configured and available."""
        return measured(self, size)[0]

    def extract(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The last output of the network."""
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


def natural_size(network: Any) -> int:
    """Side length of the test image that determines a network's output: the size it was trained with, if known.

    Swin cannot process images whose last feature map is smaller than its windows.
    """
    size = getattr(network.config, "image_size", None) or 128
    return int(size[0] if isinstance(size, list | tuple) else size)


def measured(backbone: Backbone, size: int) -> tuple[int, int]:
    """Run a network once to determine the tokens S and channels C that it returns for size x size pixels."""
    known: dict[int, tuple[int, int]] = backbone.__dict__.setdefault("_measured", {})
    if size not in known:
        with torch.no_grad(), evaluated(backbone):
            tokens, _ = backbone.extract(blank(backbone.network, size))
        known[size] = (tokens.shape[1], tokens.shape[2])
    return known[size]


def idle_parameters(backbone: Backbone) -> list[str]:
    """Names of the parameters that do not affect the output of a backbone, such as a mask token."""
    named = list(backbone.named_parameters())
    with torch.enable_grad(), evaluated(backbone):
        tokens, pooled = backbone.extract(blank(backbone.network, natural_size(backbone.network)))
        total = tokens.float().sum() + pooled.float().sum()
        gradients = torch.autograd.grad(total, [parameter for _, parameter in named], allow_unused=True)
    return [name for (name, _), gradient in zip(named, gradients, strict=True) if gradient is None]


def blank(network: nn.Module, size: int) -> Tensor:
    """One black image (1, 3, size, size) on the device of the network."""
    parameter = next(network.parameters())
    return torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype)


@contextlib.contextmanager
def evaluated(module: nn.Module) -> Iterator[None]:
    """Context in evaluation mode; the mode of every submodule is restored afterwards."""
    before = [(part, part.training) for part in module.modules()]
    for part, _ in before:
        part.training = False
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


def _contexts(
    stage: nn.Module,
) -> tuple[contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]]:
    return contextlib.nullcontext(), _still_statistics(stage)


@contextlib.contextmanager
def _still_statistics(stage: nn.Module) -> Iterator[None]:
    """Prevent the second forward pass of a checkpoint from updating the running statistics again."""
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
