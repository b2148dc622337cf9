"""RCAN's equations, each against what the paper or the code computes."""

import dataclasses
import math
from typing import Any

import pytest
import scipy.sparse.csgraph
import torch
import torch.nn.functional as F
from tests.models.tiny import make_batch, make_inputs, set_weights, take, tiny

from crossray.errors import UserError
from crossray.layers.contrastive import supervised_contrastive, weak_positives
from crossray.models.parts.backbones import BackboneConfig
from crossray.models.rcan import CGM, RCAN, RVE, WCL, RCANConfig
from crossray.training.recipe import load

FROZEN = BackboneConfig(name="random:resnet_tiny", trainable=False)
SMALL: dict[str, Any] = {
    "width": 16, "memory_slots": 24, "memory_heads": 2, "memory_top": 5, "dropout": 0.0, "residual_width": 4,
    "contrast_hidden": 8, "contrast_width": 6,
}  # fmt: skip


def rcan(**overrides: Any) -> RCAN:
    model = tiny("rcan", **overrides)
    assert isinstance(model, RCAN)
    return model


# --- RVE


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"residual": "wide"},
        {"residual_relu": False},
        {"spatial_attention": "shared"},
        {"attention_fusion": "code"},
        {"attention_fusion": "paper", "channel_relu": False},
    ],
    ids=str,
)
def test_rve_can_start_as_the_identity_and_leave_it(options: dict[str, Any], training: bool) -> None:
    block = RVE(12, RCANConfig(**SMALL, **options, recalibration_scale=0.0)).train(training)
    maps = torch.randn(3, 12, 4, 4)
    found = block(maps)
    assert torch.equal(found, maps)
    (found * torch.randn_like(maps)).sum().backward()
    assert block.scale.grad is not None
    assert block.scale.grad.abs() > 0


@pytest.mark.parametrize("printed", [False, True], ids=["one sigmoid", "as printed"])
def test_rve_equals_its_equations(printed: bool) -> None:
    """One sigmoid and a ReLU between the linear maps, as here, or two sigmoids and no ReLU, as eq. 5 and 7 have it."""
    recipe = load("rcan/iu_xray-paper").model if printed else RCANConfig(recalibration_scale=1.0)
    names = ("channel_relu", "attention_fusion", "recalibration_scale", "recalibration_trained")
    block = RVE(12, RCANConfig(**SMALL, **{name: getattr(recipe, name) for name in names})).eval()
    assert ("scale" in dict(block.named_parameters())) is not printed
    maps = torch.randn(3, 12, 4, 5)
    residual = block.residual(maps).clamp_min(0)  # eq. 3
    first, _, second = block.channel_attention
    pooled = residual.flatten(2).mean(2)  # eq. 4
    hidden = pooled @ first.weight.T + first.bias
    channel = (hidden if printed else hidden.clamp_min(0)) @ second.weight.T + second.bias  # eq. 5
    if printed:
        channel = 1 / (1 + torch.exp(-channel))
    padded = F.pad(residual, (1, 1, 1, 1))
    spatial = torch.zeros_like(residual) + block.spatial_attention.bias[:, None, None]  # eq. 6, channel by channel
    for row in range(3):
        for column in range(3):
            tap = block.spatial_attention.weight[:, 0, row, column, None, None]
            spatial = spatial + tap * padded[:, :, row : row + 4, column : column + 5]
    gate = 1 / (1 + torch.exp(-(channel[:, :, None, None] + spatial)))
    torch.testing.assert_close(block(maps), maps + gate * residual)  # eq. 7
    found = block.gate(residual)
    assert ((found > 0) & (found < 1)).all()


def test_rve_as_the_code_has_it() -> None:
    options: dict[str, Any] = {
        "residual": "wide", "residual_relu": False, "spatial_attention": "shared", "attention_fusion": "code",
        "recalibration_scale": 1.0,
    }  # fmt: skip
    block = RVE(12, RCANConfig(**SMALL, **options))
    maps = torch.randn(3, 12, 4, 4)
    residual = block.residual(maps)
    shared = F.conv2d(residual, block.spatial_attention.weight, padding=1)
    assert shared.shape == (3, 1, 4, 4)
    channel = block.channel_attention(residual.mean((2, 3))).sigmoid()[:, :, None, None]
    torch.testing.assert_close(block(maps), maps + residual * (channel + shared))


def test_tokens_are_read_row_by_row_and_a_class_token_is_passed_on() -> None:
    block = RVE(12, RCANConfig(**SMALL, recalibration_scale=1.0)).eval()
    maps = torch.randn(2, 12, 3, 3)
    tokens = maps.flatten(2).transpose(1, 2)
    expected = block(maps).flatten(2).transpose(1, 2)
    torch.testing.assert_close(block.tokens(tokens), expected)
    label = torch.randn(2, 1, 12)
    torch.testing.assert_close(block.tokens(torch.cat([label, tokens], 1)), torch.cat([label, expected], 1))


def test_an_absent_view_does_not_reach_the_batch_statistics() -> None:
    model, other = rcan(backbone=FROZEN).train(), rcan(backbone=FROZEN).train()
    inputs = make_inputs()
    model.encode(inputs)
    other.encode(take(inputs, [0, 2, 3, 1]))
    exists = inputs.view_mask
    tokens, _ = model.backbone.views(inputs)
    alone = rcan(backbone=FROZEN).train().rve
    alone.tokens(tokens[exists])
    for found in (model.rve, other.rve):
        for name, value in alone.named_buffers():
            torch.testing.assert_close(dict(found.named_buffers())[name], value, atol=1e-6, rtol=1e-5, msg=name)


# --- what is left without the modules


def test_without_its_modules_it_is_the_baseline() -> None:
    check_equal("baseline", rve=False, cgm=False, wcl=False)


def test_with_an_ungated_memory_it_is_r2gencmn() -> None:
    check_equal("cmn", rve=False, wcl=False, gate_position="none")


def test_recalibration_that_has_not_begun_changes_nothing() -> None:
    check_equal("cmn", gate_position="none", recalibration_scale=0.0)


def test_a_whole_number_is_a_scale() -> None:
    assert RVE(12, RCANConfig(**SMALL, recalibration_scale=1)).scale.item() == 1.0


def check_equal(system: str, **options: Any) -> None:
    model, other, batch = rcan(**options), tiny(system), make_batch()
    weights = {name.removeprefix("cgm."): value for name, value in model.state_dict().items()}
    other.load_state_dict({name: weights[name] for name in other.state_dict()})
    with torch.no_grad():
        found = model.step(batch.targets.tokens, model.encode(batch.inputs)).logits
        expected = other.step(batch.targets.tokens, other.encode(batch.inputs)).logits
    assert torch.equal(found, expected)


# --- CGM


def gated_word(block: CGM, words: torch.Tensor) -> torch.Tensor:
    """The last word of (N, T, D) after eq. 12-15, or after what the public code computes for it word by word."""
    state_map, information_map = block.gates.weight.chunk(2)
    state_bias, information_bias = block.gates.bias.chunk(2)
    state = torch.sigmoid(words @ state_map.T + state_bias)
    information = torch.sigmoid(words @ information_map.T + information_bias)
    response = block.memory(words, *block.memory.keys_values())
    weight = (response @ block.score.weight.T).softmax(dim=1)
    if block.config.gate_position == "code":
        return state[:, -1] * words[:, -1] + information[:, -1] * (weight * words).sum(1)
    return state[:, -1] * words[:, -1] + (weight * information * words).sum(1)


@pytest.mark.parametrize("position", ["paper", "code"])
def test_every_word_is_gated_as_if_its_prefix_were_the_text(position: Any) -> None:
    block = CGM(RCANConfig(**SMALL, gate_position=position))
    words = torch.randn(3, 7, 16)
    scores = block.score(block.memory(words, *block.memory.keys_values()))
    assert 0.3 < float(scores.std()) < 3  # at birth the memory decides how much a word's context counts
    found, _ = block.text(words, *block.memory.keys_values(), past=None)
    expected = torch.stack([gated_word(block, words[:, : end + 1]) for end in range(7)], dim=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("position", ["paper", "code"])
def test_gated_image_tokens_equal_the_gated_text_where_nothing_is_later(position: Any) -> None:
    block = CGM(RCANConfig(**SMALL, gate_position=position, cgm_visual=True))
    tokens = torch.randn(3, 7, 16)
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1, 4:] = False
    keys, values = block.memory.keys_values()
    found = block.visual(tokens, mask, keys, values)
    for row, count in ((0, 7), (1, 4)):
        expected = gated_word(block, tokens[row : row + 1, :count])
        torch.testing.assert_close(found[row, count - 1], expected[0], atol=1e-5, rtol=1e-5)


def test_gates_begin_rather_open_for_the_word_and_rather_closed_for_the_context() -> None:
    block = CGM(RCANConfig(**SMALL))
    state, information = block.gates(torch.zeros(1, 16)).sigmoid().chunk(2, dim=-1)
    torch.testing.assert_close(state, torch.full((1, 16), 0.7311), atol=1e-4, rtol=0)
    torch.testing.assert_close(information, torch.full((1, 16), 0.2689), atol=1e-4, rtol=0)


def test_no_gate_but_a_gated_image_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.cgm_visual"):
        RCANConfig(gate_position="none", cgm_visual=True)
    with pytest.raises(UserError, match=r"model\.temperature"):
        RCANConfig(temperature=0.0)


# --- WCL


def test_weak_labels_join_chains_of_nearest_neighbours() -> None:
    vectors = F.normalize(torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    similarity = vectors @ vectors.T - 2 * torch.eye(20)
    graph = F.one_hot(similarity.argmax(1), 20).numpy()
    _, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
    assert torch.equal(weak_positives(vectors), torch.from_numpy(label[:, None] == label))
    assert 1 < label.max() < 19


def test_each_view_learns_from_the_weak_labels_of_the_other() -> None:
    block = WCL(12, RCANConfig(**SMALL, temperature=0.2)).eval()
    vectors = torch.randn(9, 2, 12)
    first, second = (F.normalize(block.head(vectors[:, view]), dim=1) for view in (0, 1))
    masks = [weak_positives(view) for view in (first, second)]
    assert not torch.equal(*masks)
    expected = supervised_contrastive(first, masks[1], 0.2) + supervised_contrastive(second, masks[0], 0.2)
    torch.testing.assert_close(block(vectors, torch.ones(9, 2, dtype=torch.bool)), expected / 2)


def test_sums_and_negatives_alone_equal_the_printed_equation() -> None:
    """Eq. 19 with its minus sign, and eq. 23, by loops."""
    model, batch = rcan(loss_reduction="sum", contrast_denominator="negatives", temperature=0.5), make_batch(9)
    with torch.no_grad():
        encoded = model.encode(batch.inputs)
        losses = model.losses(batch)
        logits = model.step(batch.targets.tokens[:, :-1], encoded).logits.log_softmax(-1)
        pairs = model.wcl.pair(encoded.pooled, batch.inputs.view_mask)
        views = [F.normalize(model.wcl.head(view), dim=1) for view in pairs.unbind(1)]
    contrast, compared = 0.0, 0
    for own, other in ((0, 1), (1, 0)):
        scores, alike = views[own] @ views[own].T / 0.5, weak_positives(views[other])
        for i in range(9):
            negatives = [float(scores[i, j].exp()) for j in range(9) if not alike[i, j]]
            positives = [float(scores[i, j].exp()) for j in range(9) if alike[i, j] and j != i]
            compared += bool(negatives and positives)
            if negatives:
                terms = [-math.log(positive / sum(negatives)) for positive in positives]
                contrast += sum(terms) / len(terms) / 2
    assert compared > 9
    assert float(losses["weak_contrastive"]) == pytest.approx(contrast, rel=1e-4)
    words = [(b, t) for b in range(9) for t in range(1, batch.targets.tokens.shape[1]) if batch.targets.mask[b, t]]
    language = -sum(float(logits[b, t - 1, batch.targets.tokens[b, t]]) for b, t in words) / 9
    assert float(losses["language"]) == pytest.approx(language, rel=1e-4)


def test_a_single_study_contributes_nothing_and_breaks_nothing() -> None:
    block = WCL(12, RCANConfig(**SMALL)).train()
    before = {name: value.clone() for name, value in block.named_buffers()}
    loss = block(torch.randn(1, 2, 12), torch.ones(1, 2, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0.0
    # a gradient, though zero: DDP waits for every parameter
    assert all(parameter.grad is not None and (parameter.grad == 0).all() for parameter in block.parameters())
    assert all(torch.equal(before[name], value) for name, value in block.named_buffers())


@pytest.mark.parametrize(
    ("augmentation", "changed"), [("single", [False, True]), ("all", [True, True]), ("none", [False, False])]
)
def test_which_vectors_are_changed_at_random(augmentation: Any, changed: list[bool]) -> None:
    block = WCL(12, RCANConfig(**SMALL, contrast_augmentation=augmentation)).train()
    vectors, mask = torch.randn(2, 3, 12), torch.tensor([[True, True, True], [False, True, False]])
    plain = torch.stack([vectors[0, :2], vectors[1, [1, 1]]])
    pairs = block.pair(vectors, mask)
    assert [not torch.equal(pair, other) for pair, other in zip(pairs, plain, strict=True)] == changed
    if changed[1]:
        assert not torch.equal(pairs[1, 0], pairs[1, 1])
    assert torch.equal(block.eval().pair(vectors, mask), plain)
    assert torch.equal(block.pair(vectors[:, :1], mask[:, 1:2]), vectors[:, [0, 0]])


def test_cached_features_give_the_same_losses_and_train_the_recalibration() -> None:
    batch = make_batch()
    model = rcan(backbone=FROZEN, visual_dropout=0.0, dropout=0.0, contrast_augmentation="none").train()
    set_weights(model)
    with torch.no_grad():
        features = model.prepare_features(batch.inputs.images.flatten(0, 1))
    shape = batch.inputs.view_mask.shape
    cached = {name: value.unflatten(0, shape) for name, value in features.items()}
    inputs = dataclasses.replace(batch.inputs, images=batch.inputs.images[..., :0, :0], features=cached)
    expected, found = model.losses(batch), model.losses(dataclasses.replace(batch, inputs=inputs))
    for name in ("language", "weak_contrastive"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-5)
    found["language"].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.rve.parameters())


@pytest.mark.parametrize(("contrast", "reaches"), [("pooled", False), ("recalibrated", True)])
def test_over_a_frozen_backbone_the_contrast_reaches_what_the_decoder_reads_only_if_recalibrated(
    contrast: Any, reaches: bool
) -> None:
    model = rcan(backbone=FROZEN, contrast=contrast).train()
    set_weights(model)
    model.losses(make_batch())["weak_contrastive"].backward()
    grown = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert grown == ({"wcl", "rve"} if reaches else {"wcl"})
