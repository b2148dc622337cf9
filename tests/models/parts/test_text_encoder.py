"""Text encoders: our own over hashed words, and models of `transformers` from a folder."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from crossray.errors import UserError
from crossray.models.parts.text_encoder import PretrainedTextEncoder, TextEncoderConfig, build_text_encoder

TEXTS = ["The heart is enlarged.", "no effusion", "", "Small left pleural effusion , and the heart is normal ."]


def bert_folder(folder: Path, width: int = 16) -> Path:
    """A small BERT with random weights and a tokenizer, saved by `transformers` itself."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "heart", "is", "enlarged", "no", "effusion", "left", "it"]
    library = Tokenizer(models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer()
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=library, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(words), hidden_size=width, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_a_text_has_one_vector_whatever_stands_beside_it() -> None:
    torch.manual_seed(0)
    encoder = build_text_encoder(TextEncoderConfig(width=16, layers=2, heads=2, buckets=64)).eval()
    with torch.no_grad():
        together = encoder(TEXTS)
        alone = torch.cat([encoder([text]) for text in TEXTS])
    assert together.shape == (4, 16) and encoder.width == 16 and encoder.trainable
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_words_do_not_depend_on_case_or_process() -> None:
    torch.manual_seed(0)
    encoder = build_text_encoder(TextEncoderConfig(width=16, layers=1, heads=2)).eval()
    with torch.no_grad():
        upper, lower, other, order = encoder(["HEART NORMAL", "heart normal", "heart enlarged", "normal heart"])
    assert torch.equal(upper, lower)
    assert not torch.allclose(lower, other, atol=1e-3) and not torch.allclose(lower, order, atol=1e-5)


def test_a_long_text_is_cut() -> None:
    torch.manual_seed(0)
    encoder = build_text_encoder(TextEncoderConfig(width=16, layers=1, heads=2, max_length=4)).eval()
    with torch.no_grad():
        long, short = encoder(["one two three four five", "one two three four"])
    torch.testing.assert_close(long, short)


def test_every_part_of_our_own_learns() -> None:
    encoder = build_text_encoder(TextEncoderConfig(width=16, layers=1, heads=2, max_length=8))
    encoder(TEXTS).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in encoder.parameters())


def test_a_model_of_transformers_gives_its_first_token(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path)
    encoder = build_text_encoder(TextEncoderConfig(name=str(folder)))
    assert isinstance(encoder, PretrainedTextEncoder) and not encoder.trainable and encoder.width == 16
    ids = torch.tensor([[2, 4, 5, 6, 7, 1, 3]])  # the . is unknown
    expected = BertModel.from_pretrained(folder).eval()(input_ids=ids).last_hidden_state[:, 0]
    found = encoder(TEXTS)
    torch.testing.assert_close(found[:1], expected, atol=1e-5, rtol=1e-5)
    assert not found.requires_grad and not encoder.train().training


def test_the_architecture_is_enough_to_rebuild_it(tmp_path: Path) -> None:
    encoder = build_text_encoder(TextEncoderConfig(name=str(bert_folder(tmp_path))))
    config = TextEncoderConfig(**json.loads(json.dumps(asdict(encoder.config))))
    again = build_text_encoder(TextEncoderConfig(**{**asdict(config), "name": "gone"}))
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(TEXTS), encoder(TEXTS))


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"text encoder .*cannot be loaded"):
        build_text_encoder(TextEncoderConfig(name=str(tmp_path)))
    with pytest.raises(UserError, match="'width' of a text encoder is 10"):
        TextEncoderConfig(width=10, heads=4)
