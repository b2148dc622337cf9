"""UAR's equations, each against what the paper says."""

import copy
import dataclasses
import math
import statistics
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.models.tiny import LENGTH, SIZE, VIEWS, make_batch, make_inputs, take, tiny

from crossray.errors import UserError
from crossray.layers.orthogonal import make_basis
from crossray.models.base import Encoded
from crossray.models.pretraining.image_tokenizer import grid
from crossray.models.uar import CRA, LSU, TIR, UAR, UARConfig
from crossray.training.recipe import list_recipes, load

SMALL: dict[str, Any] = {"width": 16, "heads": 2, "basis_size": 24, "dropout": 0.0}
TOKENS = VIEWS * grid(SIZE)


def uar(**overrides: Any) -> UAR:
    model = tiny("uar", **overrides)
    assert isinstance(model, UAR)
    return model


# --- LSU


def test_every_view_becomes_its_grid_of_tokens() -> None:
    model, inputs = uar(), make_inputs()
    assert isinstance(model.visual, LSU)
    found, shares = model.visual.tokens(inputs)
    assert shares is None
    assert found.shape == (4, VIEWS, 64, 1)
    tokens = found.squeeze(3)
    expected = model.visual.tokenizer.encoder(inputs.images[0, 1:2]).argmax(1)  # row by row
    assert torch.equal(tokens[0, 1], expected[0].flatten())
    assert len(tokens[0, 0].unique()) > 3
    assert (tokens[1, 1] == 0).all()  # the study lacks that view


def test_cached_tokens_are_taken_and_small() -> None:
    model, inputs = uar(), make_inputs()
    stored = model.prepare_features(inputs.images.flatten(0, 1))["tokens"]
    assert stored.dtype == torch.int16
    other = (stored.long() + 1) % 24
    assert stored.shape == (4 * VIEWS, 64, 1)
    cached = dataclasses.replace(inputs, features={"tokens": other.unflatten(0, inputs.view_mask.shape)})
    with torch.no_grad():
        assert not torch.equal(model.encode(cached).memory, model.encode(inputs).memory)


def test_tokens_do_not_depend_on_the_precision_around_them() -> None:
    model, images = uar(), make_inputs().images.flatten(0, 1)
    plain = model.prepare_features(images)["tokens"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.prepare_features(images)["tokens"], plain)


def test_the_fingerprint_is_that_of_the_tokenizer_alone() -> None:
    model = uar()
    before = model.features_fingerprint()
    with torch.no_grad():
        model.words.weight.add_(1)
    assert model.features_fingerprint() == before
    with torch.no_grad():
        next(model.visual.tokenizer.parameters()).add_(1)  # type: ignore[union-attr]
    assert model.features_fingerprint() != before


def test_a_size_that_is_no_grid_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r"data\.image\.size.*100.*8"):
        uar(image_size=100)


# --- CRA


def test_columns_of_the_basis_are_orthonormal() -> None:
    basis = make_basis("semi", 2048, 512)
    torch.testing.assert_close(basis.T @ basis, torch.eye(512), atol=1e-5, rtol=0)
    blocks = make_basis("blocks", 64, 16)
    for block in blocks.split(16):
        torch.testing.assert_close(block @ block.T, torch.eye(16), atol=1e-5, rtol=0)
    for kind in ("uniform", "normal"):
        assert make_basis(kind, 2048, 512).square().mean() == pytest.approx(1 / 2048, rel=0.01)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="basis_size"):
        UARConfig(width=64, basis_size=32)


def test_cra_equals_its_equations() -> None:
    block = CRA(UARConfig(**SMALL)).eval()
    with torch.no_grad():
        block.gain.normal_()
        block.bias.normal_()
    x = torch.randn(3, 5, 16)
    adjusted = block.gain * block.basis + block.bias
    key_map, value_map = block.attention.project.weight.chunk(2)
    query = block.attention.query(x)
    heads = []
    for part in (slice(0, 8), slice(8, 16)):
        key = (adjusted @ key_map.T)[:, part]
        value = (adjusted @ value_map.T)[:, part]
        heads.append((query[..., part] @ key.T / math.sqrt(8)).softmax(-1) @ value)
    found = block.attention.output(torch.cat(heads, -1))
    gate = block.fusion.gate
    assert gate is not None
    (input_raw, forget_raw), (input_found, forget_found) = gate.raw.weight.chunk(2), gate.attended.weight.chunk(2)
    opened = torch.sigmoid(x @ input_raw.T + found @ input_found.T)
    kept = torch.sigmoid(x @ forget_raw.T + found @ forget_found.T)
    torch.testing.assert_close(block(x), opened * torch.tanh(x + found) + kept * x + found, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fusion", ["gate", "addition", "no_gate"])
def test_cra_of_a_sequence_is_that_of_each_token(fusion: Any) -> None:
    block = CRA(UARConfig(**SMALL, fusion=fusion)).eval()
    x = torch.randn(2, 7, 16)
    each = torch.cat([block(x[:, t : t + 1]) for t in range(7)], dim=1)
    torch.testing.assert_close(block(x), each, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("visual", "spread"), [("tokens", 1.0), ("resnet", 1.0)])
def test_embeddings_and_basis_enter_the_attention_with_variance_one(visual: Any, spread: float) -> None:
    model, inputs = uar(visual=visual, width=64, basis_size=128), make_inputs()
    assert model.cra is not None
    with torch.no_grad():
        embedded = model.visual(inputs)[inputs.view_mask]
        words = model.words(torch.arange(40))
    for tensor in (embedded, words, model.cra.basis):
        assert float(tensor.square().mean()) == pytest.approx(spread, rel=0.25)


def test_the_attention_of_equation_7_has_no_biases_and_is_no_plain_mean() -> None:
    """Scores of variance 2 have a perplexity of K / e; between vectors of length 1 it was K itself."""
    block = CRA(UARConfig(width=256, heads=8, basis_size=512))
    assert not [name for name, _ in block.attention.named_parameters() if name.endswith("bias")]
    with torch.no_grad():
        _, weights = block.attention(torch.randn(1, 64, 256), *block.keys_values(), need_weights=True)
    assert weights is not None
    perplexity = torch.special.entr(weights).sum(-1).exp().mean()
    assert float(perplexity) == pytest.approx(512 / math.e, rel=0.15)


@pytest.mark.parametrize("recipe", [name for name in list_recipes() if name.startswith("uar/")])
def test_the_attention_of_equation_7_starts_below_half_of_the_basis_in_every_recipe(recipe: str) -> None:
    config = load(recipe).model
    assert isinstance(config, UARConfig)
    block = CRA(config)
    with torch.no_grad():
        _, weights = block.attention(torch.randn(1, 32, config.width), *block.keys_values(), need_weights=True)
    assert weights is not None
    assert float(torch.special.entr(weights).sum(-1).exp().mean()) < config.basis_size / 2


def test_the_token_table_starts_from_the_codebook() -> None:
    """Codes that are alike begin alike: the projection keeps cosines."""
    model = uar(width=512, heads=4, basis_size=512)
    assert isinstance(model.visual, LSU)
    codes = model.visual.tokenizer.codebook()
    centred = F.normalize(codes - codes.mean(dim=0), dim=1)
    table = F.normalize(model.visual.table.weight.detach(), dim=1)
    other = F.normalize(uar(width=512, heads=4, basis_size=512, codebook=False).visual.table.weight.detach(), dim=1)
    upper = torch.ones(len(codes), len(codes)).triu(1).bool()
    wanted = (centred @ centred.T)[upper]
    assert float(torch.corrcoef(torch.stack([wanted, (table @ table.T)[upper]]))[0, 1]) > 0.95
    assert float(torch.corrcoef(torch.stack([wanted, (other @ other.T)[upper]]))[0, 1]) < 0.3


def test_soft_codes_and_pooling_are_weighted_means_of_embeddings() -> None:
    model, inputs = uar(token_codes=3, token_pool=2), make_inputs()
    assert isinstance(model.visual, LSU)
    logits = model.visual.tokenizer.encoder(inputs.images[0, 1:2])[0]  # (K, 8, 8)
    expected = torch.zeros(4, 4, 32)
    for row in range(8):
        for column in range(8):
            scores, codes = logits[:, row, column].topk(3)
            vector = (scores.softmax(0)[:, None] * model.visual.table(codes)).sum(0)
            expected[row // 2, column // 2] += vector / 4
    with torch.no_grad():
        found = model.visual(inputs)
    assert found.shape == (4, VIEWS, 16, 32)
    torch.testing.assert_close(found[0, 1], expected.flatten(0, 1).detach(), atol=1e-5, rtol=1e-4)
    with pytest.raises(UserError, match="token_pool is 3"):
        uar(token_pool=3)


# --- L_global


def brute_force(image: torch.Tensor, report: torch.Tensor, keys: list[int], margin: float, negatives: str) -> float:
    cosine = [[float(F.cosine_similarity(i, r, dim=0)) for r in report] for i in image]
    total = 0.0
    for turned in (cosine, [list(column) for column in zip(*cosine, strict=True)]):
        losses = []
        for row, values in enumerate(turned):
            own = values[row]
            others = [value for place, value in enumerate(values) if keys[place] != keys[row]]
            if negatives == "hard":
                others = [max(others)]
            elif negatives == "semi_hard":
                below = [value for value in others if value < own]
                others = [max(below) if below else min(others)]
            losses.append(statistics.fmean(max(0.0, margin - own + other) for other in others))
        total += statistics.fmean(losses)
    return total


@pytest.mark.parametrize("negatives", ["hard", "semi_hard", "all"])
def test_triplet_equals_brute_force_without_equal_reports(negatives: str) -> None:
    model, batch = uar(negatives=negatives), make_batch(6)
    batch.targets.report_key = torch.tensor([1, 2, 1, 3, 2, 4])
    with torch.no_grad():
        encoded = model.encode(batch.inputs)
        found = model.alignment_loss(encoded, batch)
        report = model.report_vectors(batch.targets)
    mask = batch.inputs.view_mask
    image = torch.stack([encoded.pooled[row, mask[row]].mean(0) for row in range(6)])
    expected = brute_force(image, report, batch.targets.report_key.tolist(), 0.2, negatives)
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_semi_hard_negatives_do_not_reward_the_own_report_for_being_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every other report is nearer there is no semi-hard one: such a row once counted nothing."""
    model, batch = uar(negatives="semi_hard"), make_batch(3)
    batch.targets.report_key = torch.arange(3)
    monkeypatch.setattr(model, "report_vectors", lambda targets: -torch.eye(3, model.config.width))
    encoded = model.encode(batch.inputs)
    encoded.pooled = torch.eye(3, model.config.width)[:, None].expand(-1, VIEWS, -1)
    assert float(model.alignment_loss(encoded, batch)) == pytest.approx(2 * (0.2 + 1))


def test_equal_reports_are_no_negatives_of_each_other() -> None:
    model, batch = uar(), make_batch()
    with torch.no_grad():
        encoded = model.encode(batch.inputs)
        assert float(model.alignment_loss(encoded, batch)) > 0
        batch.targets.report_key[:] = 1
        assert float(model.alignment_loss(encoded, batch)) == 0


@pytest.mark.parametrize(("turned", "expected"), [(0, 0.0), (1, 2 * (0.2 + 1))])
def test_triplet_is_zero_from_the_margin_on(turned: int, expected: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = uar(), make_batch()
    image, report = torch.eye(4, 32), torch.eye(4, 32).roll(turned, 0)  # own cosine 1 and others 0, or the other way
    monkeypatch.setattr(model, "report_vectors", lambda targets: report)
    encoded = Encoded(torch.zeros(4, 1, 32), torch.ones(4, 1, dtype=torch.bool), image[:, None].repeat(1, VIEWS, 1))
    assert float(model.alignment_loss(encoded, batch)) == pytest.approx(expected)


def test_negatives_come_from_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two halves of a batch, each of which sees the other's rows, find the loss of the whole."""
    model, batch = uar(), make_batch(6)
    halves = [take(batch, [0, 1, 2]), take(batch, [3, 4, 5])]
    sent: list[list[torch.Tensor]] = [[], []]
    with torch.no_grad():
        whole = model.alignment_loss(model.encode(batch.inputs), batch)
        for half, rows in zip(halves, sent, strict=True):
            monkeypatch.setattr("crossray.models.uar.gather_ranks", lambda x, rows=rows: rows.append(x) or x)
            alone = model.alignment_loss(model.encode(half.inputs), half)
            assert not torch.allclose(alone, whole)
        both = iter([torch.cat(pair) for pair in zip(*sent, strict=True)])
        monkeypatch.setattr("crossray.models.uar.gather_ranks", lambda x: next(both))
        torch.testing.assert_close(model.alignment_loss(model.encode(halves[0].inputs), halves[0]), whole)


def test_a_report_is_the_mean_of_its_words_with_the_end_and_without_the_begin() -> None:
    model, batch = uar(), make_batch()
    with torch.no_grad():
        found = model.report_vectors(batch.targets)
        words = model.aligned(model.words(batch.targets.tokens))
    for row, mask in enumerate(batch.targets.mask):
        torch.testing.assert_close(found[row], words[row, mask][1:].mean(0), atol=1e-6, rtol=1e-5)


# --- TIR


@pytest.mark.parametrize("value", [0.0, -3.0, 5.0])
def test_a_constant_mask_leaves_stage_one_as_it_is(value: float) -> None:
    model, batch = uar(), make_batch()
    with torch.no_grad():
        assert model.tir is not None
        model.tir.mask.fill_(value)
        encoded = model.encode(batch.inputs)
        refined = model.step(batch.targets.tokens, encoded).logits
        model.switch(refine=False)
        plain = model.step(batch.targets.tokens, encoded).logits
    torch.testing.assert_close(refined, plain, atol=1e-4 if value else 0, rtol=0)


def test_a_fresh_dynamic_mask_leaves_stage_one_as_it_is() -> None:
    model, batch = uar(mask="dynamic"), make_batch()
    with torch.no_grad():
        encoded = model.encode(batch.inputs)
        refined = model.step(batch.targets.tokens, encoded).logits
        model.switch(refine=False)
        torch.testing.assert_close(refined, model.step(batch.targets.tokens, encoded).logits, atol=1e-6, rtol=0)


def test_the_mask_is_the_bias_of_equation_11() -> None:
    """Attention with the mask is attention without it, weighted by exp(k sigmoid(M) / sqrt(d)) and normalized."""
    model, batch = uar(mask_scale=20.0, layers=1), make_batch()
    tokens = batch.targets.tokens
    with torch.no_grad():
        assert model.tir is not None
        model.tir.mask.normal_()
        encoded = model.encode(batch.inputs)
        refined = model.step(tokens, encoded, need_attention=True).cross_attention
        model.switch(refine=False)
        plain = model.step(tokens, encoded, need_attention=True).cross_attention
        assert refined is not None and plain is not None
        factor = torch.exp(20.0 * model.tir.mask.sigmoid() / math.sqrt(32 // 4))
        expected = plain * factor[: tokens.shape[1]]
        torch.testing.assert_close(refined, expected / expected.sum(-1, keepdim=True), atol=1e-5, rtol=1e-4)


def test_positions_beyond_the_mask_have_none() -> None:
    block = TIR(UARConfig(**SMALL, max_length=3, views=1), length=4)
    with torch.no_grad():
        block.mask.fill_(1.0)
    encoded = Encoded(torch.zeros(2, 4, 16), torch.ones(2, 4, dtype=torch.bool), torch.zeros(2, 1, 16))
    found = block(torch.zeros(2, 6, 16), encoded, first=-2)
    assert found[0, :, 0].tolist() == [0, 0, 1, 1, 1, 0]


@pytest.mark.parametrize(("kind", "sign"), [("sparse", 1), ("literal", -1)])
def test_direction_and_size_of_the_mask_loss(kind: Any, sign: int) -> None:
    words, visible = torch.ones(2, 5, dtype=torch.bool), torch.ones(2, 6, dtype=torch.bool)
    words[1, 3:], visible[1, 4:] = False, False
    block = TIR(UARConfig(**SMALL, max_length=5, views=1, mask_loss=kind), length=6)
    loss = block.loss(block.mask[None], words, visible)
    assert float(loss.detach()) == pytest.approx(0.5)
    loss.backward()
    assert block.mask.grad is not None
    assert (sign * block.mask.grad > 0).all()
    assert float(block.mask.grad.sum()) == pytest.approx(sign * 0.25)  # whatever T x L is
    summed = TIR(UARConfig(**SMALL, max_length=5, views=1, mask_loss=kind, mask_reduction="sum"), length=6)
    assert float(summed.loss(summed.mask[None], words, visible).detach()) == pytest.approx(0.5 * (30 + 12) / 2)


def test_padding_does_not_count_in_the_mask_loss() -> None:
    model, batch = uar(), make_batch()
    with torch.no_grad():
        assert model.tir is not None
        model.tir.mask.normal_()
        whole = model.losses(batch)["mask"]
        longer = copy.deepcopy(batch)
        targets = longer.targets
        targets.tokens, targets.mask = (F.pad(x, (0, 4)) for x in (targets.tokens, targets.mask))
        torch.testing.assert_close(model.losses(longer)["mask"], whole)
        single = take(batch, [1])
        share = model.tir.mask.sigmoid()[: int(single.targets.mask.sum()) - 1, : grid(SIZE)]
        torch.testing.assert_close(model.losses(single)["mask"], share.mean())


# --- stages and options


def test_the_mask_is_a_loss_only_while_it_is_used() -> None:
    model, batch = uar(), make_batch()
    assert set(model.losses(batch)) == {"language", "global", "mask"}
    model.switch(refine=False)
    assert set(model.losses(batch)) == {"language", "global"}
    assert set(uar(mask="none", align=False).losses(batch)) == {"language"}
    with pytest.raises(UserError, match="mask"):
        model.switch(mask="none")


def test_without_its_modules_nothing_of_them_is_built() -> None:
    names = {name.split(".")[0] for name, _ in uar(visual="resnet", cra=False, mask="none").named_parameters()}
    assert names == {"visual", "words", "view", "encoder", "decoder", "vocabulary"}


def test_shape_of_the_mask() -> None:
    model = uar()
    assert model.tir is not None
    assert model.tir.mask.shape == (LENGTH, TOKENS)
