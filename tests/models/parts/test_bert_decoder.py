"""BERT as a decoder: `transformers`' own is the oracle."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, BertLMHeadModel, ViTConfig

from crossray.errors import UserError
from crossray.models.parts.bert_decoder import BertDecoder, BertDecoderConfig, from_transformers
from crossray.text.tokenizer import ADDED_TOKENS

VOCABULARY, WIDTH, POSITIONS = 50, 32, 24
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 40, "max_position_embeddings": POSITIONS,
}  # fmt: skip


def decoder(**overrides: Any) -> BertDecoder:
    sizes: dict[str, Any] = {
        "vocabulary_size": VOCABULARY, "layers": 3, "width": WIDTH, "heads": 4, "feedforward": 40,
        "positions": POSITIONS, "memory_width": WIDTH,
    }  # fmt: skip
    return BertDecoder(BertDecoderConfig(**sizes | overrides)).eval()


def batch(width: int = WIDTH, studies: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, VOCABULARY, (studies, 11), generator=generator)
    mask = torch.ones(studies, 7, dtype=torch.bool)
    mask[1, 4:] = False
    return tokens, torch.randn(studies, 7, width, generator=generator), mask


def randomized(model: torch.nn.Module) -> None:
    """Weights in which every parameter shows: none 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = parameter.data + 0.2 * torch.randn(parameter.shape, generator=generator)


def test_logits_and_attention_are_those_of_transformers() -> None:
    config = BertConfig(**SIZES, is_decoder=True, add_cross_attention=True, attn_implementation="eager")
    theirs = BertLMHeadModel(config).eval()
    randomized(theirs)
    ours = decoder()
    ours.load_state_dict(from_transformers(theirs.state_dict()))
    tokens, memory, mask = batch()
    with torch.no_grad():
        expected = theirs(
            tokens, encoder_hidden_states=memory, encoder_attention_mask=mask.long(), output_attentions=True
        )
        logits, attention = ours(tokens, memory, mask, need_attention=True)
    torch.testing.assert_close(logits, expected.logits, atol=1e-4, rtol=0)
    assert attention is not None
    torch.testing.assert_close(attention, torch.stack(expected.cross_attentions, dim=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("beams", [1, 2])
def test_writing_word_by_word_equals_reading_all(beams: int) -> None:
    model = decoder(memory_width=20)
    randomized(model)
    tokens, memory, mask = batch(width=20)
    repeated = tokens.repeat_interleave(beams, dim=0)
    repeated[::beams] = repeated[::beams].flip(1)
    with torch.no_grad():
        whole, _ = model(repeated, memory.repeat_interleave(beams, dim=0), mask.repeat_interleave(beams, dim=0))
        cache = model.start(memory, mask, beams)
        parts = [model(part, memory, mask, cache)[0] for part in repeated.split([5, 1, 1, 3, 1], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=0)


def test_a_later_token_changes_nothing_before() -> None:
    model = decoder()
    tokens, memory, mask = batch()
    changed = tokens.clone()
    changed[:, 6] = (changed[:, 6] + 1) % VOCABULARY
    with torch.no_grad():
        before, after = model(tokens, memory, mask)[0], model(changed, memory, mask)[0]
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6], after[:, 6])


def test_every_parameter_has_a_gradient() -> None:
    model = decoder().train()
    tokens, memory, mask = batch()
    model(tokens, memory, mask)[0].square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.fixture(params=["safetensors", "torch"])
def released(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, BertForMaskedLM]:
    """A BERT of the released layout: not a decoder, no cross-attention."""
    model = BertForMaskedLM(BertConfig(**SIZES))
    randomized(model)
    model.tie_weights()
    model.save_pretrained(tmp_path)
    if request.param == "torch":
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    return tmp_path, model


def test_released_weights_are_taken(released: tuple[Path, BertForMaskedLM]) -> None:
    folder, theirs = released
    vocabulary = VOCABULARY + len(ADDED_TOKENS)
    model = BertDecoder(BertDecoderConfig(name=str(folder), vocabulary_size=vocabulary, memory_width=20))
    assert model.config == BertDecoderConfig(
        vocabulary_size=vocabulary, layers=3, width=WIDTH, heads=4, feedforward=40, positions=POSITIONS, memory_width=20
    )
    state = theirs.state_dict()
    torch.testing.assert_close(model.words.weight[:VOCABULARY], state["bert.embeddings.word_embeddings.weight"])
    torch.testing.assert_close(model.bias[:VOCABULARY], state["cls.predictions.bias"])
    assert float(model.words.weight.detach()[VOCABULARY:].std()) == pytest.approx(0.02, rel=0.3)
    assert float(model.stack.layers[1].cross.project.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    # with the cross-attention silenced it is the released model, read from left to right
    causal = BertLMHeadModel(BertConfig(**SIZES, is_decoder=True)).eval()
    causal.load_state_dict(state, strict=False)
    model.eval()
    for layer in model.stack.layers:
        torch.nn.init.zeros_(layer.cross.output.weight)
        layer.cross_norm = torch.nn.Identity()
    tokens, memory, mask = batch(width=20)
    with torch.no_grad():
        expected, logits = causal(tokens).logits, model(tokens, memory, mask)[0]
    torch.testing.assert_close(logits[..., :VOCABULARY], expected, atol=1e-4, rtol=0)


def test_another_vocabulary_has_random_vectors(released: tuple[Path, BertForMaskedLM]) -> None:
    folder, theirs = released
    model = BertDecoder(BertDecoderConfig(name=str(folder), vocabulary_size=70))
    assert float(model.words.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    layer = theirs.state_dict()["bert.encoder.layer.2.output.dense.weight"]
    torch.testing.assert_close(model.stack.layers[2].contract.weight, layer)


def test_what_it_cannot_begin_with(tmp_path: Path) -> None:
    for name in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match="cannot be loaded"):
            decoder(name=str(name))
    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="'vit' is not bert"):
        decoder(name=str(tmp_path))
    BertConfig(**SIZES).save_pretrained(tmp_path)
    torch.save({"cls.predictions.bias": torch.zeros(VOCABULARY)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"lack 'bert\.embeddings"):
        decoder(name=str(tmp_path))


def test_more_positions_than_it_has_are_refused() -> None:
    model = decoder()
    tokens, memory, mask = batch()
    cache = model.start(memory, mask)
    for _ in range(2):
        model(tokens, memory, mask, cache)
    with pytest.raises(UserError, match="24 positions, and 33"):
        model(tokens, memory, mask, cache)


def test_paper_size() -> None:
    with torch.device("meta"):
        model = BertDecoder(BertDecoderConfig(vocabulary_size=30527))
    # PromptMRG
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(161, abs=0.6)
