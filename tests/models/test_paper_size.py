"""The configurations of the papers, built once: shapes and parameter counts."""

from collections.abc import Iterator

import pytest
import torch
from tests.models.tiny import BOS, make_inputs
from torch import nn

from crossray.models.base import ReportModel
from crossray.models.parts.backbones import BackboneConfig, build_backbone
from crossray.models.pretraining.knowledge_encoder import KnowledgeEncoderConfig
from crossray.models.rcan import RVE, WCL
from crossray.models.registry import create_model
from crossray.text.observations import OBSERVATIONS
from crossray.training.recipe import load

pytestmark = pytest.mark.slow

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
    # R2GenCMN without its words is about 15.8 M
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


def test_rcan() -> None:
    model = create_model("rcan", vocabulary_size=VOCABULARY).eval()
    shared = millions(model.backbone, model.cgm.memory) + 2 * 512 * VOCABULARY / 1e6
    added = millions(model.rve, model.cgm.gates, model.cgm.score, model.wcl)
    # everything but what RCAN adds is R2GenCMN, whose memory has 2.1 of its 15.8 M
    assert millions(model) - shared - added == pytest.approx(13.66, abs=0.02)
    squeeze = 2 * 2048 * 512 + 512 + 2048
    bottleneck = 2 * 2048 * 512 + 9 * 512 * 512 + 2 * (512 + 512 + 2048)
    assert millions(model.rve) * 1e6 == bottleneck + squeeze + 10 * 2048 + 1
    assert millions(model.cgm.gates, model.cgm.score) * 1e6 == 2 * 512 * 513 + 512
    assert millions(model.wcl) * 1e6 == 2048 * 512 + 512 * 512 + 4 * 512 + 128 * 513
    inputs = make_inputs(2, 2, size=224)
    with torch.no_grad():
        tokens, _ = model.backbone.views(inputs)
        recalibrated = model.rve.tokens(tokens.flatten(0, 1))
        encoded = model.encode(inputs)
        step = model.step(torch.full((2, 59), BOS), encoded)
    assert recalibrated.shape == (4, 49, 2048)
    assert encoded.memory.shape == (2, 98, 512)
    assert encoded.pooled.shape == (2, 2, 2048)
    assert step.logits.shape == (2, 59, VOCABULARY)


def test_rcan_blocks_of_the_code() -> None:
    config = load("rcan/iu_xray-code").model
    with torch.device("meta"):
        recalibration, contrast = RVE(2048, config), WCL(2048, config)
    # Of the two heads one is used, and only that one is built
    assert millions(recalibration) == pytest.approx(77.6, abs=0.05)
    assert millions(contrast) == pytest.approx(12.6, abs=0.05)


def test_coacl() -> None:
    model = create_model("coacl", vocabulary_size=VOCABULARY, observations=OBSERVATIONS).eval()
    tables = 2 * 512 * VOCABULARY / 1e6
    assert millions(model.backbone) == pytest.approx(85.8, abs=0.05)
    # the Transformer of the family, whose visual embedding is 768 x 512 here
    transformer = (model.visual_embedding, model.text_embedding, model.encoder, model.decoder, model.vocabulary)
    assert millions(*transformer) - tables == pytest.approx(13.66 - (2048 - 768) * 512 / 1e6, abs=0.02)
    assert millions(model.join) == pytest.approx((1536 * 768 + 768) / 1e6)
    assert millions(model.memory) == pytest.approx((90 * 512 + 512 * 513) / 1e6)
    assert millions(model.denoising) == pytest.approx((4 * 768 * 769 + 2 * 768) / 1e6)
    assert millions(model.alignment) == pytest.approx(8 * 512 * 512 / 1e6)
    assert millions(model) == pytest.approx(112.5, abs=0.1)
    inputs = make_inputs(2, 2, size=224)
    with torch.no_grad():
        encoded = model.encode(inputs)
        step = model.step(torch.full((2, 60), BOS), encoded)
        words = torch.tensor([[BOS] + [5] * 59, [BOS] + [6] * 59])
        report = model.report_encoder(words, torch.ones(2, 60, dtype=torch.bool))
        basis = model.alignment.mom.basis(encoded.aux["image"], report[:, 0])
    # 197 tokens and 14 priors, then the priors once more
    assert encoded.memory.shape == (2, 225, 512)
    assert encoded.memory_mask.all()
    assert encoded.aux["image"].shape == (2, 512)
    assert encoded.aux["labels"].shape == (2, 14)
    assert model.memory().shape == (90, 512)
    assert model.prior_selection(model._label_vectors(encoded.aux["labels"]), model.memory()).shape == (
        2, 14, 512,
    )  # fmt: skip
    assert report.shape == (2, 60, 512)
    assert basis.shape == (4, 512)
    assert step.logits.shape == (2, 60, VOCABULARY)


def test_uar() -> None:
    model = create_model("uar", vocabulary_size=VOCABULARY).eval()
    # The frozen encoder, gain and bias of the basis
    assert millions(model.visual.tokenizer) * 1e6 == 53_786_240
    assert model.cra.gain.shape == model.cra.bias.shape == model.cra.basis.shape == (2048, 512)
    cra = 2 * 2048 * 512 + 4 * 512 * 512 + 4 * 512 * 512  # the linear maps of eq. 7 have no bias
    assert millions(model.cra) * 1e6 == cra
    assert model.tir.mask.shape == (60, 392)
    tables = (8192 + 2 * VOCABULARY) * 512 + VOCABULARY
    encoder = 3 * (4 * 512 * 513 + 2 * 512 * 2048 + 2048 + 512 + 4 * 512) + 2 * 512
    decoder = 3 * (8 * 512 * 513 + 2 * 512 * 2048 + 2048 + 512 + 6 * 512) + 2 * 512
    expected = 53_786_240 + cra + 60 * 392 + tables + encoder + decoder + 2 * 512
    assert millions(model) * 1e6 == expected
    inputs = make_inputs(2, 2, size=112)
    tokens = torch.randint(0, 8192, (2, 2, 196), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert model.visual.tokenizer(inputs.images[:1, 0]).shape == (1, 196)
    inputs.features["tokens"] = tokens.to(torch.int16)
    encoded = model.encode(inputs)
    step = model.step(torch.full((2, 60), BOS), encoded)
    assert encoded.memory.shape == (2, 392, 512)
    assert encoded.memory_mask.sum(1).tolist() == [392, 196]
    assert encoded.pooled.shape == (2, 2, 512)
    assert step.logits.shape == (2, 60, VOCABULARY)


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


def test_revtaf() -> None:
    model = create_model(
        "revtaf", vocabulary_size=30527, observations=OBSERVATIONS, views=1,
        knowledge=KnowledgeEncoderConfig(name="random:medklip"),
    ).eval()  # fmt: skip
    assert millions(model.backbone) == pytest.approx(42.5, abs=0.05)
    # PromptMRG's decoder, LRE and MPSA
    assert millions(model.decoder) == pytest.approx(161, abs=1)
    assert millions(model.lre.network) * 1e6 == 75 * 512 + 512 * 513 + 512
    mpsa = 4 * 1024 * 1025 + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024
    assert millions(model.fvtaf) * 1e6 == mpsa + 2049 * 1024 + 2 * 769 * 1024
    inputs = make_inputs(2, 1, size=224)
    with torch.no_grad():
        encoded = model.encode(inputs)
        step = model.step(torch.full((2, 5), BOS), encoded)
        points = model.lre.network(encoded.aux["entities"])
    # Without a database there is no sentence yet
    assert encoded.memory.shape == (2, 49, 2048)
    assert encoded.pooled.shape == (2, 1, 2048)
    assert encoded.aux["entities"].shape == (2, 75)
    assert points.shape == (2, 512)
    assert encoded.aux["statuses"].shape == (2, 4, 18)
    assert encoded.aux["phrase_maps"].shape == (2, 1, 49, 75)
    assert encoded.prompt.shape == (2, 18)
    assert step.logits.shape == (2, 5, 30527)
