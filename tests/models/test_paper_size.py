"""The configurations of the papers, built once: shapes and parameter counts (SPEC 10.2, 10.3)."""

from collections.abc import Iterator

import pytest
import torch
from tests.models.tiny import BOS, make_inputs
from torch import nn

from crossray.models.backbones import BackboneConfig, build_backbone
from crossray.models.base import ReportModel
from crossray.models.registry import create_model

VOCABULARY = 761


def millions(*modules: nn.Module) -> float:
    return sum(p.numel() for module in modules for p in module.parameters()) / 1e6


@pytest.fixture(scope="module", params=["baseline", "cmn"])
def model(request: pytest.FixtureRequest) -> Iterator[ReportModel]:
    yield create_model(request.param, vocabulary_size=VOCABULARY).eval()


def test_parameter_counts(model: ReportModel) -> None:
    assert millions(model.backbone) == pytest.approx(42.5, abs=0.05)
    words = 2 * 512 * VOCABULARY / 1e6
    memory = {"baseline": 0.0, "cmn": (2048 * 512 + 4 * 512 * 513) / 1e6}[model.system]
    # SPEC 10.3: R2GenCMN without its words is about 15.8 M
    assert millions(model) - millions(model.backbone) - words == pytest.approx(13.66 + memory, abs=0.02)
    if model.system == "cmn":
        assert millions(model) - millions(model.backbone) - words == pytest.approx(15.8, abs=0.05)


def test_shapes(model: ReportModel) -> None:
    inputs = make_inputs(2, 2, size=224)
    with torch.no_grad():
        encoded = model.encode(inputs)
        step = model.step(torch.full((2, 59), BOS), encoded)
    assert encoded.memory.shape == (2, 98, 512)
    assert encoded.memory_mask.sum(1).tolist() == [98, 49]
    assert encoded.pooled.shape == (2, 2, 2048)
    assert step.logits.shape == (2, 59, VOCABULARY)


@pytest.mark.parametrize(
    ("name", "width", "tokens", "size", "parameters"),
    [
        ("resnet18", 512, 49, 224, 11.18),
        ("resnet50", 2048, 49, 224, 23.51),
        ("vit_b16", 768, 196, 224, 85.8),
        ("rad_dino", 768, 1369, 518, 86.6),
    ],
)
def test_backbones(name: str, width: int, tokens: int, size: int, parameters: float) -> None:
    with torch.device("meta"):
        backbone = build_backbone(BackboneConfig(name=f"random:{name}"))
    assert backbone.width == width
    assert backbone.tokens(size) == tokens
    assert millions(backbone) == pytest.approx(parameters, abs=0.1)
