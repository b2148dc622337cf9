"""Weight files in torchvision's layout, written from a ResNet that is put together here of PyTorch's modules alone."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from crossray.errors import UserError
from crossray.models.parts.backbones import BackboneConfig, build_backbone

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


class Block(nn.Module):
    """torchvision's BasicBlock and Bottleneck (the stride in the 3 x 3 convolution), by its names."""

    def __init__(self, channels: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        out = 4 * width if bottleneck else width
        basic = [(channels, width, 3), (width, width, 3)]
        shapes = [(channels, width, 1), (width, width, 3), (width, out, 1)] if bottleneck else basic
        for place, (inner, outer, kernel) in enumerate(shapes, start=1):
            step = stride if place == (2 if bottleneck else 1) else 1
            self.add_module(f"conv{place}", nn.Conv2d(inner, outer, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{place}", nn.BatchNorm2d(outer))
        self.places = len(shapes)
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        else:
            self.downsample = None

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for place in range(1, self.places + 1):
            y = getattr(self, f"bn{place}")(getattr(self, f"conv{place}")(y))
            y = y if place == self.places else F.relu(y)
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        bottleneck = name != "resnet18"
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for stage, depth in enumerate(DEPTHS[name]):
            blocks = []
            for place in range(depth):
                blocks.append(Block(channels, width << stage, 2 if stage and not place else 1, bottleneck))
                channels = (width << stage) * (4 if bottleneck else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in (1, 2, 3, 4):
            x = getattr(self, f"layer{stage}")(x)
        return x


def made(name: str, width: int = 16) -> ResNet:
    """With batch statistics and gains that are not those of a fresh network."""
    network = ResNet(name, width).eval()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor, low in ((norm.running_mean, -0.2), (norm.running_var, 0.8), (norm.weight.data, 0.4)):
                nn.init.uniform_(tensor, low, low + 0.4)
    return network


def check(network: ResNet, path: Path) -> None:
    backbone = build_backbone(BackboneConfig(name=str(path), trainable=False, standardize=False))
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        expected = network(images)
        tokens, pooled = backbone(images)
    assert expected.std() > 1e-3
    torch.testing.assert_close(tokens, expected.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(pooled, expected.mean((2, 3)), atol=1e-5, rtol=1e-4)
    assert backbone.width == expected.shape[1]


@pytest.mark.parametrize("name", DEPTHS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_feature_map_is_that_of_the_network_in_the_file(name: str, suffix: str, tmp_path: Path) -> None:
    network = made(name)
    path = tmp_path / f"{name}{suffix}"
    if suffix == ".safetensors":
        save_file(network.state_dict(), path)
    else:
        torch.save(network.state_dict(), path)
    check(network, path)


def test_the_sizes_of_the_published_networks(tmp_path: Path) -> None:
    """With 64 channels in the stem, as the published files have, it is the architecture of random:resnet50."""
    torch.save(ResNet("resnet50", 64).state_dict(), tmp_path / "resnet50.pth")
    ours = build_backbone(BackboneConfig(name=str(tmp_path / "resnet50.pth")))
    random = build_backbone(BackboneConfig(name="random:resnet50"))
    assert ours.config.architecture == random.config.architecture


def test_checkpoints_of_trainers(tmp_path: Path) -> None:
    """Weights in an entry, saved from within DataParallel, by a PyTorch that did not count batches."""
    network = made("resnet18")
    weights = OrderedDict(
        (f"module.{name}", tensor)
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    )
    torch.save({"epoch": 3, "state_dict": weights}, tmp_path / "checkpoint.pth")
    check(network, tmp_path / "checkpoint.pth")


def refused(content: Any, path: Path) -> str:
    torch.save(content, path)
    with pytest.raises(UserError) as error:
        build_backbone(BackboneConfig(name=str(path)))
    return str(error.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path, state = tmp_path / "weights.pth", made("resnet18").state_dict()
    assert "0 tensors named layer1.0.conv1.weight" in refused({"weight": torch.zeros(3)}, path)
    assert "layer4" in refused({name: tensor for name, tensor in state.items() if "layer4" not in name}, path)
    assert "not the weights of a ResNet" in refused(state | {"layer1.0.conv2.weight": torch.zeros(16, 16, 1, 1)}, path)
    assert "more than weights" in refused(nn.Linear(2, 2), path)
    # the three convolutions of a deep stem, as resnet50d has them
    deep = {"conv1.0.weight" if name == "conv1.weight" else name: tensor for name, tensor in state.items()}
    assert "conv1.weight" in refused(deep, path)
    with pytest.raises(UserError, match="cannot be read"):
        build_backbone(BackboneConfig(name=str(tmp_path / "absent.pth")))
