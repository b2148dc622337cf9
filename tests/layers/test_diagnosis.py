import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.layers.diagnosis import ALA, POSITIVE, DiagnosisBranch, base_probabilities, status_shares

IMAGE, TEXT, CLASSES = 24, 20, 5


def branch(**options: Any) -> DiagnosisBranch:
    torch.manual_seed(0)
    model = DiagnosisBranch(IMAGE, TEXT, CLASSES, width=16, heads=4, **options).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data + 0.1 * torch.randn(parameter.shape)
    return model


def inputs(studies: int = 3, reports: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.ones(studies, reports, dtype=torch.bool)
    mask[1, 3:] = False
    return (
        torch.randn(studies, IMAGE, generator=generator),
        torch.randn(studies, reports, TEXT, generator=generator),
        mask,
    )


def oracle(model: DiagnosisBranch, pooled: Tensor, retrieved: Tensor, mask: Tensor) -> Tensor:
    """DETR's Transformer from PyTorch's own layers, with the weights of ours: target zeros, one query."""
    width = model.norm.weight.shape[0]

    def attention(target: nn.MultiheadAttention, weights: Tensor, biases: Tensor, output: nn.Linear) -> None:
        target.in_proj_weight.data, target.in_proj_bias.data = weights, biases
        target.out_proj.load_state_dict(output.state_dict())

    reports = model.text(retrieved)
    for ours in model.encoder:
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True).eval()
        attention(layer.self_attn, ours.attention.project.weight, ours.attention.project.bias, ours.attention.output)
        layer.linear1.load_state_dict(ours.feedforward.expand.state_dict())
        layer.linear2.load_state_dict(ours.feedforward.contract.state_dict())
        layer.norm1.load_state_dict(ours.attention_norm.state_dict())
        layer.norm2.load_state_dict(ours.feedforward_norm.state_dict())
        reports = layer(reports, src_key_padding_mask=~mask)
    query = F.layer_norm(model.query(pooled), (width,))[:, None]
    x = torch.zeros_like(query)
    for index, ours in enumerate(model.decoder):
        own = nn.MultiheadAttention(width, 4, batch_first=True).eval()  # its queries and keys may be anything
        if index:
            own.in_proj_weight.data[2 * width :] = torch.eye(width)
            own.out_proj.load_state_dict(ours.own.state_dict())
            x = ours.own_norm(x + own(x + query, x + query, x)[0])
        else:
            own.out_proj.weight.data, own.out_proj.bias.data = torch.zeros(width, width), model.begin.data
            x = own(x + query, x + query, x)[0]  # begin is this constant
        cross = nn.MultiheadAttention(width, 4, batch_first=True).eval()
        attention(
            cross,
            torch.cat([ours.cross.query.weight, ours.cross.project.weight]),
            torch.cat([ours.cross.query.bias, ours.cross.project.bias]),
            ours.cross.output,
        )
        x = ours.cross_norm(x + cross(x + query, reports, reports, key_padding_mask=~mask)[0])
        inner = F.linear(x, ours.feedforward.expand.weight, ours.feedforward.expand.bias).relu()
        x = ours.feedforward_norm(x + F.linear(inner, ours.feedforward.contract.weight, ours.feedforward.contract.bias))
    logits = model.classify(torch.cat([pooled, model.norm(x)[:, 0]], dim=1))
    return logits.view(len(pooled), 4, CLASSES)


def test_equals_detr() -> None:
    model = branch()
    with torch.no_grad():
        logits = model(*inputs())
        assert logits.shape == (3, 4, CLASSES)
        torch.testing.assert_close(logits, oracle(model, *inputs()), atol=1e-5, rtol=1e-5)


def test_reports_have_no_order_and_masked_ones_no_influence() -> None:
    model = branch()
    pooled, retrieved, mask = inputs()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(pooled, retrieved, mask)
        torch.testing.assert_close(model(pooled, retrieved[:, order], mask[:, order]), expected)
        retrieved[1, 3:] = 100.0
        torch.testing.assert_close(model(pooled, retrieved, mask), expected)
        retrieved[1, 0] = 3.0
        assert not torch.allclose(model(pooled, retrieved, mask)[1], expected[1])


def test_every_parameter_has_a_gradient() -> None:
    model = DiagnosisBranch(IMAGE, TEXT, CLASSES, width=16, heads=4).train()
    F.cross_entropy(model(*inputs()), torch.randint(4, (3, CLASSES))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_the_first_layer_reads_no_plain_mean_of_the_reports(scale: float) -> None:
    """Whatever the size of the backbone's vectors; with PyTorch's and Xavier's weights it read 20.4 of 21 reports."""
    torch.manual_seed(0)
    model = DiagnosisBranch(64, 48, CLASSES, width=96).eval()
    weights: list[Tensor] = []
    cross = model.decoder[0].cross
    cross.register_forward_pre_hook(
        lambda _module, given, options: (given, {**options, "need_weights": True}), with_kwargs=True
    )
    cross.register_forward_hook(lambda _module, _given, found: weights.append(found[1]))
    with torch.no_grad():
        model(scale * torch.randn(8, 64), torch.randn(8, 21, 48), torch.ones(8, 21, dtype=torch.bool))
    (found,) = weights
    assert float(torch.special.entr(found).sum(-1).exp().mean()) < 21 / 2


@pytest.mark.parametrize(("known", "apart"), [(False, False), (True, True)])
def test_a_branch_that_begins_with_the_shares_goes_on_reading_its_reports(known: bool, apart: bool) -> None:
    """Nine of ten statuses are blank: a branch that must learn this first makes all reports alike."""
    torch.manual_seed(0)
    pooled, reports, mask = torch.randn(32, 64), torch.randn(32, 21, 48), torch.ones(32, 21, dtype=torch.bool)
    labels = torch.where(torch.rand(32, 12) < 0.1, torch.randint(4, (32, 12)), 0)
    model = DiagnosisBranch(64, 48, 12, width=64).train()
    if known:
        model.begin_with(status_shares(labels).log())
    found: list[Tensor] = []
    model.decoder[0].cross.register_forward_hook(lambda _module, _given, result: found.append(result[0]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(50):
        loss = F.cross_entropy(model(pooled, reports, mask), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    last = found[-1].detach()
    assert bool((last - last.mean(0)).norm() > 0.3 * last.norm()) == apart


def test_a_share_of_the_studies_is_classified_by_reports_alone() -> None:
    pooled, retrieved, mask = inputs(studies=400)
    mask[:] = True
    model = branch(image_dropout=0.3, dropout=0.0)
    model.classify.weight.data[:, :IMAGE] = 100.0  # no report weighs as much
    far = model(pooled, retrieved, mask).abs().amax(dim=(1, 2)) > 20
    assert far.float().mean() > 0.9, "evaluation always sees the image"
    near = model.train()(pooled, retrieved, mask).abs().amax(dim=(1, 2))[far] < 20
    assert 0.2 < near.float().mean() < 0.4


def test_shares_of_statuses() -> None:
    shares = status_shares(torch.tensor([[0, 1], [0, 2], [0, 1], [0, 1]]))
    torch.testing.assert_close(shares, torch.tensor([[5, 1], [1, 4], [1, 2], [1, 1]]) / 8)


def test_begins_undecided() -> None:
    model = DiagnosisBranch(2048, 768, 18)
    pooled, retrieved = torch.randn(2, 2048), torch.randn(2, 21, 768)
    probabilities = model(pooled, retrieved, torch.ones(2, 21, dtype=torch.bool)).softmax(1)
    assert probabilities.shape == (2, 4, 18)
    torch.testing.assert_close(probabilities, torch.full_like(probabilities, 0.25), atol=0.1, rtol=0)


def test_positive_logits_are_adjusted_in_training_only() -> None:
    adjustment = ALA(3, torch.tensor([1.0, 0.5, 0.0]))
    logits = torch.randn(2, 4, 3)
    added = adjustment.train().adjust(logits) - logits
    assert added[:, POSITIVE, :2].tolist() == [pytest.approx([0.0, math.log(0.5)], abs=1e-6)] * 2
    assert bool(torch.isfinite(added).all())
    assert added[0, POSITIVE, 2] < -5
    assert not added[:, [0, 2, 3]].any()
    assert adjustment.eval().adjust(logits) is logits


def test_priors_follow_the_definition() -> None:
    """Mean probability of the true positives, relative to the largest."""
    adjustment = ALA(4, torch.tensor([1.0, 0.5, 0.25, 1.0]), auxiliary=1)
    probabilities = torch.tensor([[0.9, 0.2, 0.7, 0.3], [0.6, 0.4, 0.1, 0.3], [0.3, 0.1, 0.2, 0.3]])
    labels = torch.tensor([[1, 0, 0, 1], [1, 1, 2, 1], [2, 1, 3, 0]])
    adjustment.observe(probabilities[:2], labels[:2])
    adjustment.observe(probabilities[2:], labels[2:])
    adjustment.update()
    # means 0.75 and 0.25; the third class had no positive study, the fourth is auxiliary
    torch.testing.assert_close(adjustment.priors, torch.tensor([1.0, 0.25 / 0.75, 0.25, 1.0]))
    adjustment.update()  # nothing was observed since
    torch.testing.assert_close(adjustment.priors, torch.tensor([1.0, 0.25 / 0.75, 0.25, 1.0]))
    adjustment.observe(torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.long))
    adjustment.update()
    assert bool(torch.isfinite(adjustment.train().adjust(torch.zeros(1, 4, 4))).all())


def test_priors_travel_with_the_weights() -> None:
    state = ALA(2, torch.tensor([1.0, 0.5])).state_dict()
    assert list(state) == ["priors"]


def test_base_probabilities() -> None:
    labels = torch.tensor([[1, 1, 0], [1, 2, 2], [1, 1, 3], [1, 0, 0]])
    assert base_probabilities(labels).tolist() == [1.0, 0.5, 0.0]
    assert base_probabilities(torch.zeros(3, 2, dtype=torch.long)).tolist() == [1.0, 1.0]
