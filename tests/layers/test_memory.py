"""The sparse memory against a dense masked softmax, gradients included."""

import math

import pytest
import torch

from crossray.layers.memory import CrossModalMemory, Start, largest


def dense(memory: CrossModalMemory, x: torch.Tensor) -> torch.Tensor:
    """R2GenCMN's look-up as published: all scores, those below the top masked out, softmax, product with all values."""
    heads, (slots, width) = memory.heads, memory.matrix.shape
    key_map, value_map = memory.project.weight.chunk(2)
    key_bias, value_bias = memory.project.bias.chunk(2)
    query = memory.query(x).unflatten(-1, (heads, -1)).transpose(1, 2)
    key = (memory.matrix @ key_map.T + key_bias).view(slots, heads, -1).transpose(0, 1)
    value = (memory.matrix @ value_map.T + value_bias).view(slots, heads, -1).transpose(0, 1)
    scores = query @ key.transpose(1, 2) / math.sqrt(width // heads)
    border = scores.sort(dim=-1, descending=True).values[..., memory.choice.top - 1, None]
    weights = scores.masked_fill(scores < border, -math.inf).softmax(-1)
    return memory.output((weights @ value).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(("slots", "top"), [(50, 6), (2048, 32), (7, 32)])
def test_responses_and_gradients_equal_the_dense_form(slots: int, top: int) -> None:
    memory = CrossModalMemory(slots, 32, 4, top, dropout=0.0)
    with torch.no_grad():
        memory.matrix.normal_()
    x = torch.randn(3, 5, 32, requires_grad=True)
    weight = torch.randn(3, 5, 32)
    inputs = [x, *memory.parameters()]
    expected = dense(memory, x)
    expected_gradients = torch.autograd.grad((expected * weight).sum(), inputs)
    found = memory(x, *memory.keys_values())
    gradients = torch.autograd.grad((found * weight).sum(), inputs)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for gradient, other in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("places", "count"), [(2048, 32), (1024, 100), (768, 1), (300, 7), (2048, 500)])
def test_largest_equals_sorting(places: int, count: int) -> None:
    scores = torch.randn(4, 6, places)
    found, index = largest(scores, count)
    assert torch.equal(scores.gather(-1, index), found)
    assert torch.equal(found.sort(-1, descending=True).values, scores.sort(-1, descending=True).values[..., :count])
    assert all(len(set(row.tolist())) == count for row in index.flatten(0, 1))


def test_largest_with_ties_keeps_distinct_places() -> None:
    scores = torch.zeros(2, 2048)
    scores[0, 5] = 1.0
    found, index = largest(scores, 32)
    assert 5 in index[0]
    assert len(set(index[1].tolist())) == 32
    assert found[1].sum() == 0


def test_dropout_acts_in_training_only() -> None:
    memory, x = CrossModalMemory(50, 32, 4, 6, dropout=0.5), torch.randn(1, 2, 32)
    with torch.no_grad():
        memory.matrix.normal_()
    projected = memory.keys_values()
    assert not torch.equal(memory(x, *projected), memory(x, *projected))
    memory.eval()
    assert torch.equal(memory(x, *projected), memory(x, *projected))


def test_initial_spread_of_the_matrix() -> None:
    keys, values = CrossModalMemory(2048, 512, 8, 32, 0.1).keys_values()
    assert abs(float((keys * 8).detach().std()) - 1) < 0.05
    assert abs(float(values.detach().std()) - 1) < 0.05
    assert abs(float(CrossModalMemory(2048, 512, 8, 32, 0.1, start="code").matrix.std()) * 512 - 1) < 0.02


def test_the_whole_softmax_is_no_plain_mean() -> None:
    """Queries are those of image tokens, half of whose channels are 0: their mean square is 0.6."""
    memory = CrossModalMemory(512, 128, 4, 512, 0.0)
    x = (1.1 * torch.randn(1, 64, 128)).relu()
    with torch.no_grad():
        query = memory.query(x).view(64, 4, -1).transpose(0, 1)
        rows, weights = memory.choice(query, memory.keys_values()[0])
    assert rows is None
    assert float(torch.special.entr(weights).sum(-1).exp().mean()) < 512 / 2


@pytest.mark.parametrize(("start", "constant"), [("code", True), ("unit", False)])
def test_responses_of_numbers_as_small_as_the_codes_are_a_constant(start: Start, constant: bool) -> None:
    """Between keys of entries N(0, 1 / D^2) all 2,048 scores are equal, and so are the responses to all words."""
    torch.manual_seed(0)
    memory, words = CrossModalMemory(2048, 256, 8, 32, 0.0, start), torch.randn(1, 64, 256)
    with torch.no_grad():
        keys, values = memory.keys_values()
        scores = memory.query(words).view(64, 8, -1).transpose(0, 1) @ keys
        response = memory(words, keys, values)
    perplexity = float(torch.special.entr(scores.softmax(-1)).sum(-1).exp().mean())
    dependent = float((response - response.mean(1, keepdim=True)).norm() / response.norm())
    assert (perplexity > 2047) == constant
    if constant:
        assert float(scores.std(-1).mean()) < 0.01
    else:
        assert perplexity < 0.65 * 2048
        assert dependent > 0.5
