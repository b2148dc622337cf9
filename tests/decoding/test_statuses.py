"""What is no text is never written: status tokens, and [MASK] and the like of a released vocabulary."""

from pathlib import Path

import pytest
import torch
from tests.decoding.toy import Toy, encoded

from crossray.data.batches.batch import Inputs
from crossray.decoding.config import DecodingConfig
from crossray.decoding.constraints import SpecialIds
from crossray.decoding.reports import write_reports
from crossray.decoding.search import generate
from crossray.text.tokenizer import Tokenizer


@pytest.fixture(params=["trained", "released"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Tokenizer:
    if request.param == "trained":
        return Tokenizer.train(["the heart is large ."] * 3, statuses=True)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\nheart\n")
    return Tokenizer.released(str(tmp_path))


@pytest.mark.parametrize("method", ["beam", "greedy", "sample"])
def test_what_is_no_text_is_never_written(tokenizer: Tokenizer, method: str) -> None:
    model = Toy(tokenizer.vocabulary_size, eos=tokenizer.eos_id)
    model.tokenizer = tokenizer
    with torch.no_grad():  # nothing is likelier than what may not be written
        model.output[:, list(tokenizer.unwritten)] *= 20
    config = DecodingConfig(method=method, max_length=8, min_length=4)  # type: ignore[arg-type]
    memory = encoded(4).memory
    one = torch.ones(4, 1, dtype=torch.long)
    inputs = Inputs(
        images=torch.zeros(4, 1, 3, 2, 2), image_size=torch.full((4, 1, 2), 2), view_mask=one.bool(), view_position=one,
        features={"memory": memory[:, None]},
    )  # fmt: skip
    free = generate(model, encoded(4), SpecialIds(tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id), config)
    assert set(tokenizer.unwritten) & {token for report in free for token in report.tokens}
    reports = write_reports(model, inputs, config)
    written = {token for report in reports for token in report.tokens}
    assert written
    assert not written & set(tokenizer.unwritten)
    assert not any("[" in report.text for report in reports if "[UNK]" not in report.text)
