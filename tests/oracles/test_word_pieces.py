"""CheXbert's tokenizer against the Python one of the published training, which transformers still has."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from crossray.evaluation.labelers.chexbert import word_pieces
from crossray.text.vocabulary import read_vocabulary

PIECES = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghinorstuxy0123456789.,;:()<>/-'\"%é心",
    *(f"##{letter}" for letter in "abcdefghinorstuxy0123456789"), "heart", "the", "##ion", "effus", "cm", "##m", "unk",
]  # fmt: skip
LIMIT = 24


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("bert") / "vocab.txt"
    path.write_text("".join(f"{piece}\n" for piece in dict.fromkeys(PIECES)), encoding="utf-8")
    ours = word_pieces(read_vocabulary(path))
    ours.enable_truncation(LIMIT)
    return ours, BertTokenizerLegacy(str(path))


def published(tokenizer: BertTokenizerLegacy, report: str) -> list[int]:
    """What `bert_tokenizer.py` of the published code does with a report, cut at `LIMIT` instead of 512."""
    body = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(report))
    ids = [tokenizer.cls_token_id, *body, tokenizer.sep_token_id]
    return ids if len(ids) <= LIMIT else [*ids[: LIMIT - 1], tokenizer.sep_token_id]


@pytest.mark.parametrize(
    "report",
    [
        "The heart is enlarged. No effusion.",
        "",
        "9.5-mm nodule (right); <unk> XXXX, 50%",
        "Café naïve ÉTÉ ß",
        "心の effusion",
        "a" * 100 + " " + "a" * 101,
        "tab\tand\u00a0odd\u2003blanks\u200b",
        "the heart " * 30,
    ],
)
def test_reports(tokenizers, report: str) -> None:
    ours, theirs = tokenizers
    assert ours.encode(report).ids == published(theirs, report)


@settings(max_examples=300)
@given(st.text(st.sampled_from("aeionrstuxyéÉßçñ 019.,;:()<>/-'\"%_\t\n\u00a0\u2003\u200b\x00\x07心한İ")))
def test_any_text(tokenizers, report: str) -> None:
    ours, theirs = tokenizers
    assert ours.encode(report).ids == published(theirs, report)


def test_files_of_both_line_ends_are_one_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "unix.txt").write_bytes(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n\xe2\x80\xa8\nheart")
    (tmp_path / "windows.txt").write_bytes(b"[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n\xe2\x80\xa8\r\nheart\r\n")
    assert read_vocabulary(tmp_path / "unix.txt") == read_vocabulary(tmp_path / "windows.txt")
    assert read_vocabulary(tmp_path / "unix.txt")["heart"] == 5
