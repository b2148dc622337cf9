"""A family of backbones: means of the pixels of 4 x 4 fields."""

from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from crossray.models.parts.backbones import FeatureMapBackbone
from crossray.models.parts.networks import FAMILIES


class Pixels(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        fields = {"model_type": "pixels", "channels": channels}
        self.config = SimpleNamespace(**fields, to_dict=lambda: dict(fields))
        self.mean, self.mix = nn.AdaptiveAvgPool2d(4), nn.Conv2d(3, channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.mix(self.mean(images)).relu()


@FAMILIES.register("pixels")
class PixelsBackbone(FeatureMapBackbone):
    """16 tokens an image, whatever its size."""

    model_type = "pixels"

    @classmethod
    def load(cls, name: str) -> nn.Module:
        return Pixels(int(name))

    @classmethod
    def build(cls, architecture: dict[str, Any]) -> nn.Module:
        return Pixels(**architecture)

    def feature_map(self, images: Tensor) -> Tensor:
        return self.network(images)
