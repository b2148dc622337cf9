"""References of both protocols, and what may stand in one table."""

import pytest

from crossray.errors import UserError
from crossray.evaluation.predictions.protocol import Protocol, references, require_same
from crossray.text.tokenizer import Tokenizer

WORDS = " ".join(f"word{index}" for index in range(100))
REPORT = f"{WORDS} rare."


@pytest.mark.parametrize("legacy_ids", [False, True])
@pytest.mark.parametrize("max_length", [60, 100])
def test_references_are_cut_as_the_r2gen_family_cuts_them(legacy_ids: bool, max_length: int) -> None:
    tokenizer = Tokenizer.train([WORDS] * 3, min_count=3, legacy_ids=legacy_ids)
    found = references(REPORT, tokenizer, max_length)
    assert found["r2gen"].split() == WORDS.split()[: max_length - 1]
    assert found["full"] == f"{WORDS} rare ."


@pytest.mark.parametrize("legacy_ids", [False, True])
def test_rare_words_are_unknown_to_r2gen_only(legacy_ids: bool) -> None:
    tokenizer = Tokenizer.train(["The heart is normal."] * 3 + ["The aorta."] * 2, min_count=3, legacy_ids=legacy_ids)
    assert references("The aorta is normal.", tokenizer, 60) == {
        "r2gen": "the <unk> is normal .",
        "full": "the aorta is normal .",
    }


def test_a_protocol_survives_json() -> None:
    protocol = Protocol("r2gen", cleaner="fixed", max_length=60, min_count=3, tokenizer="abc", views="2", studies=590)
    assert Protocol.from_dict(protocol.as_dict()) == protocol
    with pytest.raises(UserError, match="protocol"):
        Protocol.from_dict({"name": "full", "colour": "blue"})


def test_full_forgets_what_only_r2gen_has() -> None:
    protocol = Protocol("r2gen", max_length=60, min_count=3, tokenizer="abc", split="test", studies=5)
    assert protocol.named("full") == Protocol("full", split="test", studies=5)
    with pytest.raises(UserError, match="neither cut nor mapped"):
        Protocol("full", max_length=60)
    with pytest.raises(UserError, match="does not exist"):
        Protocol("other")


@pytest.mark.parametrize(
    "change",
    [{"section": "impression"}, {"studies": 6}, {"views": "frontal"}, {"version": "0"}, {"labeler": "chexbert"}],
)
def test_different_protocols_do_not_mix(change: dict[str, object]) -> None:
    protocol = Protocol("full", studies=5)
    other = Protocol.from_dict(protocol.as_dict() | change)
    assert require_same([protocol, protocol]) == protocol
    with pytest.raises(UserError, match=next(iter(change))):
        require_same([protocol, other])
    with pytest.raises(UserError):
        require_same([])
