"""Encoder and decoder against PyTorch's own layers and R2Gen's normalization against its formula."""

import pytest
import torch
from torch import nn

from crossray.layers.embedding import PositionalEncoding, TokenEmbedding, VisualEmbedding
from crossray.layers.transformer import Decoder, Encoder, R2GenNorm, prepend_prompt

WIDTH, HEADS, HIDDEN = 16, 4, 24


def copy(target: nn.MultiheadAttention, weights: list[torch.Tensor], biases: list[torch.Tensor], output: nn.Linear):
    target.in_proj_weight.copy_(torch.cat(weights))
    target.in_proj_bias.copy_(torch.cat(biases))
    target.out_proj.load_state_dict(output.state_dict())


def randomise(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))


def test_encoder_equals_the_library() -> None:
    ours = Encoder(2, WIDTH, HEADS, HIDDEN, 0.0)
    randomise(ours)
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, 0.0, batch_first=True, norm_first=True)
    oracle = nn.TransformerEncoder(layer, 2, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
    with torch.no_grad():
        for mine, other in zip(ours.layers, oracle.layers, strict=True):
            project = mine.attention.project
            copy(other.self_attn, [project.weight], [project.bias], mine.attention.output)
            other.norm1.load_state_dict(mine.attention_norm.state_dict())
            other.norm2.load_state_dict(mine.feedforward_norm.state_dict())
            other.linear1.load_state_dict(mine.feedforward.expand.state_dict())
            other.linear2.load_state_dict(mine.feedforward.contract.state_dict())
        oracle.norm.load_state_dict(ours.norm.state_dict())
    x, valid = torch.randn(3, 6, WIDTH), torch.ones(3, 6, dtype=torch.bool)
    valid[1, 4:] = False
    torch.testing.assert_close(ours(x, valid), oracle(x, src_key_padding_mask=~valid))


def test_decoder_equals_the_library() -> None:
    ours = Decoder(2, WIDTH, HEADS, HIDDEN, 0.0)
    randomise(ours)
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, HIDDEN, 0.0, batch_first=True, norm_first=True)
    oracle = nn.TransformerDecoder(layer, 2, nn.LayerNorm(WIDTH))
    with torch.no_grad():
        for mine, other in zip(ours.layers, oracle.layers, strict=True):
            project, cross = mine.attention.project, mine.cross
            copy(other.self_attn, [project.weight], [project.bias], mine.attention.output)
            copy(
                other.multihead_attn, [cross.query.weight, cross.project.weight],
                [cross.query.bias, cross.project.bias], cross.output,
            )  # fmt: skip
            other.norm1.load_state_dict(mine.attention_norm.state_dict())
            other.norm2.load_state_dict(mine.cross_norm.state_dict())
            other.norm3.load_state_dict(mine.feedforward_norm.state_dict())
            other.linear1.load_state_dict(mine.feedforward.expand.state_dict())
            other.linear2.load_state_dict(mine.feedforward.contract.state_dict())
        oracle.norm.load_state_dict(ours.norm.state_dict())
    x, memory = torch.randn(3, 5, WIDTH), torch.randn(3, 6, WIDTH)
    valid = torch.ones(3, 6, dtype=torch.bool)
    valid[2, 1:] = False
    future = torch.ones(5, 5, dtype=torch.bool).triu(1)
    expected = oracle(x, memory, tgt_mask=future, memory_key_padding_mask=~valid)
    torch.testing.assert_close(ours(x, memory, valid)[0], expected)


def test_bias_per_position_is_the_same_word_by_word() -> None:
    # UAR adds row t of a learned mask when position t is read
    decoder, beams = Decoder(2, WIDTH, HEADS, HIDDEN, 0.0).eval(), 2
    memory, valid, bias = torch.randn(3, 6, WIDTH), torch.ones(3, 6, dtype=torch.bool), 3 * torch.randn(5, 6)
    x = torch.randn(6, 5, WIDTH)
    whole, _ = decoder(x, memory.repeat_interleave(2, 0), valid.repeat_interleave(2, 0), bias=bias[None, None])
    plain, _ = decoder(x, memory.repeat_interleave(2, 0), valid.repeat_interleave(2, 0))
    assert not torch.allclose(whole, plain, atol=1e-3)
    cache = decoder.start(memory, valid, beams)
    for place in range(5):
        row = bias[cache.length : cache.length + 1][None, None]
        one, _ = decoder(x[:, place : place + 1], memory, valid, cache, bias=row)
        torch.testing.assert_close(one[:, 0], whole[:, place], atol=1e-5, rtol=0)


def test_memory_of_another_width() -> None:
    decoder = Decoder(1, WIDTH, HEADS, HIDDEN, 0.0, memory_width=10)
    hidden, _ = decoder(torch.randn(2, 3, WIDTH), torch.randn(2, 4, 10), torch.ones(2, 4, dtype=torch.bool))
    assert hidden.shape == (2, 3, WIDTH)


def test_r2gen_normalisation_equals_its_formula() -> None:
    norm, x = R2GenNorm(8), torch.randn(3, 8, dtype=torch.float64).float()
    randomise(norm)
    values = x.double()
    mean = values.sum(-1, keepdim=True) / 8
    deviation = (((values - mean) ** 2).sum(-1, keepdim=True) / 7).sqrt()
    expected = norm.weight.double() * (values - mean) / (deviation + 1e-6) + norm.bias.double()
    torch.testing.assert_close(norm(x).double(), expected, atol=1e-6, rtol=0)
    assert not torch.allclose(norm(x), nn.functional.layer_norm(x, (8,), norm.weight, norm.bias), atol=1e-3)


@pytest.mark.parametrize("first", [0, 3, 510])
def test_position_codes_equal_their_formula(first: int) -> None:
    added = PositionalEncoding(6)(torch.zeros(1, 4, 6), first)[0].double()
    for place in range(4):
        for channel in range(6):
            angle = torch.tensor((first + place) / 10_000 ** (channel // 2 * 2 / 6), dtype=torch.float64)
            expected = angle.sin() if channel % 2 == 0 else angle.cos()
            assert abs(float(added[place, channel] - expected)) < 1e-4


def test_embeddings() -> None:
    table = TokenEmbedding(9, 16)
    torch.testing.assert_close(table(torch.tensor([[4, 2]])), 4.0 * table.table.weight[[4, 2]][None])
    visual = VisualEmbedding(5, 8, relu=True, dropout=0.0)
    assert (visual(torch.randn(2, 3, 5)) >= 0).all()
    assert (VisualEmbedding(5, 8, relu=False, dropout=0.0)(torch.randn(2, 3, 5)) < 0).any()


def test_prompt_comes_first_and_once() -> None:
    decoder = Decoder(1, WIDTH, HEADS, HIDDEN, 0.0)
    memory, valid = torch.randn(2, 3, WIDTH), torch.ones(2, 3, dtype=torch.bool)
    prompt, tokens = torch.tensor([[7, 8], [9, 10]]), torch.tensor([[1], [1], [1], [1]])
    cache = decoder.start(memory, valid, 2)
    joined, skip = prepend_prompt(tokens, prompt, cache)
    assert joined.tolist() == [[7, 8, 1], [7, 8, 1], [9, 10, 1], [9, 10, 1]]
    assert skip == 2
    cache.length = 3
    assert prepend_prompt(tokens, prompt, cache) == (tokens, 0)
    assert prepend_prompt(tokens, None, None) == (tokens, 0)
