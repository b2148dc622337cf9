"""Backbones: where their weights come from, and what padding, freezing and checkpoints must not change."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.models.tiny import make_batch, make_inputs, tiny
from transformers import (
    CONFIG_MAPPING,
    AutoModel,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
)

from crossray.errors import UserError
from crossray.models.base import ReportModel
from crossray.models.parts.backbones import BackboneConfig, build_backbone, join_views

TINY = ["random:resnet_tiny", "random:vit_tiny", "random:dinov2_tiny"]


def small_vit() -> ViTConfig:
    return ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=16, intermediate_size=40
    )


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("size", [64, 80, 100])
@pytest.mark.parametrize("name", TINY)
def test_announced_sizes_are_true(name: str, size: int, class_token: bool) -> None:
    backbone = build_backbone(BackboneConfig(name=name, cls_token=class_token)).eval()
    with torch.no_grad():
        tokens, pooled = backbone(torch.randn(2, 3, size, size))
    assert tokens.shape == (2, backbone.tokens(size), backbone.width)
    assert pooled.shape == (2, backbone.width)
    extra = int(class_token and name != "random:resnet_tiny")
    assert backbone.tokens(64) == (4 if "resnet" in name else 16) + extra


def test_resnet_tokens_are_the_feature_map_row_by_row() -> None:
    backbone = build_backbone(BackboneConfig(name="random:resnet_tiny")).eval()
    images = torch.randn(2, 3, 64, 128)
    with torch.no_grad():
        tokens, pooled = backbone(images)
        expected = backbone.network(images)
    for row in range(2):
        for column in range(4):
            torch.testing.assert_close(tokens[:, row * 4 + column], expected.last_hidden_state[:, :, row, column])
    torch.testing.assert_close(pooled, expected.pooler_output[:, :, 0, 0])


def test_folder_in_the_format_of_the_hub(tmp_path: Path) -> None:
    images = torch.randn(2, 3, 64, 64)
    network = ViTForImageClassification(small_vit()).eval()
    network.save_pretrained(tmp_path / "vit")
    backbone = build_backbone(BackboneConfig(name=str(tmp_path / "vit"), cls_token=True)).eval()
    with torch.no_grad():
        torch.testing.assert_close(backbone(images)[0], network.vit(images).last_hidden_state)
    dino = Dinov2Model(Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=56)).eval()
    dino.save_pretrained(tmp_path / "dino")
    backbone = build_backbone(BackboneConfig(name=str(tmp_path / "dino"))).eval()
    with torch.no_grad():
        expected = dino(images[..., :56, :56]).last_hidden_state
        tokens, pooled = backbone(images[..., :56, :56])
    torch.testing.assert_close(tokens, expected[:, 1:])
    torch.testing.assert_close(pooled, expected[:, 0])


def test_folder_that_crossray_saved_gives_its_backbone(tmp_path: Path) -> None:
    model = tiny("baseline", backbone=BackboneConfig(name="random:vit_tiny"))
    model.save_pretrained(tmp_path / "run" / "best")
    images = torch.randn(2, 3, 64, 64)
    for folder in (tmp_path / "run" / "best", tmp_path / "run"):
        backbone = build_backbone(BackboneConfig(name=str(folder), trainable=False))
        with torch.no_grad():
            torch.testing.assert_close(backbone(images), model.backbone(images))


def test_saved_model_needs_the_original_folder_no_longer(tmp_path: Path) -> None:
    network = ResNetModel(ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic"))
    network.save_pretrained(tmp_path / "resnet")
    model = tiny("baseline", backbone=BackboneConfig(name=str(tmp_path / "resnet"), trainable=False))
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "resnet").rename(tmp_path / "gone")
    loaded = ReportModel.from_pretrained(tmp_path / "model")
    inputs = make_inputs()
    assert torch.equal(loaded.encode(inputs).memory, model.encode(inputs).memory)
    assert loaded.features_fingerprint() == model.features_fingerprint()


def test_fingerprint_follows_the_weights() -> None:
    torch.manual_seed(3)
    config = BackboneConfig(name="random:resnet_tiny", trainable=False)
    backbone = build_backbone(config)
    first = backbone.fingerprint()
    assert first == backbone.fingerprint()
    with torch.no_grad():
        next(backbone.parameters()).add_(1e-3)
    assert backbone.fingerprint() != first
    assert build_backbone(BackboneConfig(name="random:resnet_tiny")).fingerprint() is None


def test_a_backbone_that_is_not_trained_stays_as_it_is() -> None:
    model = tiny("baseline", backbone=BackboneConfig(name="random:resnet_tiny", trainable=False)).train()
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    sum(model.losses(make_batch()).values()).backward()
    assert not model.backbone.training
    assert model.encoder.training
    assert set(model.frozen()) == {f"backbone.{name}" for name, _ in model.backbone.named_parameters()}
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.backbone.state_dict().items())


def test_missing_views_do_not_reach_batch_statistics() -> None:
    inputs = make_inputs(4)
    torch.manual_seed(0)
    one = build_backbone(BackboneConfig(name="random:resnet_tiny")).train()
    torch.manual_seed(0)
    other = build_backbone(BackboneConfig(name="random:resnet_tiny")).train()
    tokens, pooled = one.views(inputs)
    other(inputs.images[inputs.view_mask])
    for name, buffer in one.named_buffers():
        torch.testing.assert_close(buffer, dict(other.named_buffers())[name])
    assert (tokens[~inputs.view_mask] == 0).all()
    assert (pooled[~inputs.view_mask] == 0).all()


def test_checkpoints_change_neither_gradients_nor_statistics() -> None:
    images, results = torch.randn(3, 3, 64, 64), []
    for stages in (0, 3):
        torch.manual_seed(0)
        backbone = build_backbone(BackboneConfig(name="random:resnet_tiny", checkpoint=stages)).train()
        tokens, pooled = backbone(images)
        (tokens.square().sum() + pooled.sum()).backward()
        results.append((backbone, [parameter.grad for parameter in backbone.parameters()]))
    (plain, gradients), (checked, recomputed) = results
    for gradient, other in zip(gradients, recomputed, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-5, rtol=1e-4)
    for name, buffer in plain.named_buffers():
        assert torch.equal(buffer, dict(checked.named_buffers())[name]), name


def test_views_are_joined_in_order() -> None:
    tokens = torch.arange(12.0).view(1, 2, 3, 2)
    joined, mask = join_views(tokens, torch.tensor([[True, False]]))
    assert torch.equal(joined, torch.arange(12.0).view(1, 6, 2))
    assert mask.tolist() == [[True] * 3 + [False] * 3]


def test_wrong_names_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"random:resnet102.*resnet101"):
        build_backbone(BackboneConfig(name="random:resnet102"))
    with pytest.raises(UserError, match="cannot be loaded"):
        build_backbone(BackboneConfig(name=str(tmp_path / "nowhere")))
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="model type 'bert' is not supported"):
        build_backbone(BackboneConfig(name=str(tmp_path / "bert")))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    ViTForImageClassification(small_vit()).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    missing = next(name for name in weights if "attention" in name and name.endswith("weight"))
    kept = {name: tensor for name, tensor in weights.items() if name != missing}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model\.safetensors lacks"):
        build_backbone(BackboneConfig(name=str(tmp_path)))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    network = ViTForImageClassification(small_vit())
    network.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        build_backbone(BackboneConfig(name=str(tmp_path)))


def test_damaged_crossray_folder_is_refused(tmp_path: Path) -> None:
    tiny("baseline").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="no fitting backbone"):
        build_backbone(BackboneConfig(name=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"format": 1, "system": "other", "config": {}}')
    with pytest.raises(UserError, match="has no backbone"):
        build_backbone(BackboneConfig(name=str(tmp_path)))


def test_architecture_is_json_ready() -> None:
    config = build_backbone(BackboneConfig(name="random:resnet_tiny")).config
    again = build_backbone(dataclasses.replace(config, name="gone"))
    assert again.config.architecture == config.architecture


SMALL = {"image_size": 64, "patch_size": 16, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
#: Model type to the fields that make it small, and its places of 96 x 96 pixels and channels.
OTHERS: dict[str, tuple[dict[str, Any], int, int]] = {
    "convnext": (STAGES, 9, 32),
    "efficientnet": ({"width_coefficient": 0.1, "depth_coefficient": 0.1, "hidden_dim": 128}, 9, 128),
    "regnet": (STAGES | {"embedding_size": 8, "groups_width": 8}, 9, 32),
    "swin": (
        {"image_size": 96, "window_size": 3, "embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2]},
        9,
        64,
    ),
    "siglip_vision_model": (SMALL | {"intermediate_size": 40}, 36, 32),
    "deit": (SMALL | {"intermediate_size": 40}, 36, 32),
    "dinov2_with_registers": (SMALL | {"mlp_ratio": 2, "num_register_tokens": 3}, 36, 32),
    "dinov3_vit": (SMALL | {"intermediate_size": 40, "num_register_tokens": 2}, 36, 32),
}


@pytest.mark.parametrize("model_type", OTHERS)
def test_any_vision_model_of_transformers(model_type: str, tmp_path: Path) -> None:
    """From a folder in the format of the hub: places in order, weights as saved, gradients for all that is trained."""
    fields, places, width = OTHERS[model_type]
    network = AutoModel.from_config(CONFIG_MAPPING[model_type](**fields)).eval()
    network.save_pretrained(tmp_path / "saved")
    backbone = build_backbone(BackboneConfig(name=str(tmp_path / "saved"))).eval()
    images = torch.randn(2, 3, 96, 96)
    tokens, pooled = backbone(images)
    assert tokens.shape == (2, places, width)
    assert (backbone.tokens(96), backbone.width, pooled.shape) == (places, width, (2, width))
    known = {"interpolate_pos_encoding": True} if model_type in ("siglip_vision_model", "deit") else {}
    with torch.no_grad():
        whole = network(images, **known).last_hidden_state
    expected = whole.flatten(2).transpose(1, 2) if whole.dim() == 4 else whole[:, -places:]
    torch.testing.assert_close(tokens, expected, atol=1e-4, rtol=1e-4)
    (tokens.square().sum() + pooled.square().sum()).backward()
    trained = {name for name, parameter in backbone.named_parameters() if parameter.grad is not None}
    assert trained | set(backbone.idle) == {name for name, _ in backbone.named_parameters()}
    assert not trained & set(backbone.idle)
    again = build_backbone(dataclasses.replace(backbone.config, name="gone"))
    again.load_state_dict(backbone.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(images)[0], tokens.detach())


def test_image_part_of_a_model_of_images_and_texts(tmp_path: Path) -> None:
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vision = SMALL | {"intermediate_size": 40}
    model = SiglipModel(SiglipConfig(text_config=text | {"vocab_size": 9}, vision_config=vision)).eval()
    model.save_pretrained(tmp_path)
    backbone = build_backbone(BackboneConfig(name=str(tmp_path), trainable=False, standardize=False))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = model.vision_model(images).last_hidden_state
        tokens, pooled = backbone(images)
    torch.testing.assert_close(tokens, expected)
    torch.testing.assert_close(pooled, expected.mean(1))


def test_a_system_trains_over_any_of_them(tmp_path: Path) -> None:
    """What no loss depends on is named as frozen, so that nothing waits for its gradient."""
    network = AutoModel.from_config(CONFIG_MAPPING["dinov3_vit"](**OTHERS["dinov3_vit"][0]))
    network.save_pretrained(tmp_path)
    model = tiny("baseline", backbone=BackboneConfig(name=str(tmp_path))).train()
    sum(model.losses(make_batch()).values()).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == set(model.frozen()) == {"backbone.network.embeddings.mask_token"}
