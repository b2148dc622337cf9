"""Attention against PyTorch's own module and against plain formulas."""

import math

import torch
from torch import nn

from crossray.layers.attention import CrossAttention, SelfAttention, attend


def reference(x: torch.Tensor, memory: torch.Tensor, weights: list[torch.Tensor], biases: list[torch.Tensor], **given):
    """`nn.MultiheadAttention` with the given query, key, value and output maps."""
    width = x.shape[-1]
    oracle = nn.MultiheadAttention(width, 4, batch_first=True)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat(weights[:3]))
        oracle.in_proj_bias.copy_(torch.cat(biases[:3]))
        oracle.out_proj.weight.copy_(weights[3])
        oracle.out_proj.bias.copy_(biases[3])
    return oracle(x, memory, memory, average_attn_weights=False, **given)


def test_self_attention_equals_the_library() -> None:
    layer, x = SelfAttention(16, 4, 0.0), torch.randn(3, 5, 16)
    valid = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]).bool()
    weights = [*layer.project.weight.chunk(3), layer.output.weight]
    biases = [*layer.project.bias.chunk(3), layer.output.bias]
    expected, _ = reference(x, x, weights, biases, key_padding_mask=~valid)
    torch.testing.assert_close(layer(x, mask=valid[:, None, None]), expected)
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    expected, _ = reference(x, x, weights, biases, attn_mask=future)
    torch.testing.assert_close(layer(x, causal=True), expected)


def test_cross_attention_equals_the_library_for_every_beam() -> None:
    layer, beams = CrossAttention(16, 4, 0.0), 3
    memory, x = torch.randn(2, 7, 16), torch.randn(2 * beams, 5, 16)
    valid = torch.ones(2, 7, dtype=torch.bool)
    valid[1, 4:] = False
    weights = [layer.query.weight, *layer.project.weight.chunk(2), layer.output.weight]
    biases = [layer.query.bias, *layer.project.bias.chunk(2), layer.output.bias]
    bias = torch.randn(6, 4, 5, 7)
    for added in (None, bias, bias[:1, :1]):
        floats = None if added is None else added.expand(6, 4, 5, 7).flatten(0, 1)
        hidden = ~valid.repeat_interleave(beams, 0)
        padding = hidden if floats is None else torch.zeros(6, 7).masked_fill(hidden, -math.inf)
        expected, maps = reference(
            x, memory.repeat_interleave(beams, 0), weights, biases, key_padding_mask=padding, attn_mask=floats
        )
        keys, values = layer.keys_values(memory)
        for asked in (False, True):
            given, found = layer(x, keys, values, mask=valid[:, None, None], bias=added, need_weights=asked)
            torch.testing.assert_close(given, expected)
        torch.testing.assert_close(found, maps)


def test_weights_do_not_change_the_result() -> None:
    query, key, value = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 8)
    quick, none = attend(query, key, value, causal=True)
    slow, weights = attend(query, key, value, causal=True, need_weights=True)
    assert none is None
    torch.testing.assert_close(quick, slow)
    assert weights is not None
    assert (weights.triu(1) == 0).all()


def test_dropout_acts_in_training_only() -> None:
    layer, x = SelfAttention(16, 4, 0.5), torch.randn(2, 5, 16)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_projections_start_as_separate_xavier_maps() -> None:
    layer = SelfAttention(256, 4, 0.0)
    bound = math.sqrt(6 / (256 + 256))
    for weight in layer.project.weight.chunk(3):
        assert weight.abs().max() <= bound
        assert abs(float(weight.detach().std()) - bound / math.sqrt(3)) < 0.002
