"""Tokenizers: vocabulary rules, round trips, the file, and agreement with the `tokenizers` library."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from crossray.errors import UserError
from crossray.evaluation.predictions.protocol import references
from crossray.text.tokenizer import ADDED_TOKENS, SPECIAL_TOKENS, STATUS_TOKENS, Tokenizer

REPORTS = [
    "The heart is normal. No effusion.",
    "The heart is enlarged. Small effusion.",
    "The lungs are clear. No effusion.",
    "Zebra lungs.",
]
VARIANTS = [
    {"kind": "word"},
    {"kind": "word", "legacy_ids": True},
    {"kind": "word", "cleaner": "fixed"},
    {"kind": "wordpiece", "size": 60},
    {"kind": "wordpiece", "size": 64, "statuses": True},
    {"kind": "word", "legacy_ids": True, "statuses": True},
]
#: As a released vocabulary: special pieces anywhere, unused ones, a piece for a sign inside a word.
RELEASED = ["[PAD]", "[unused0]", "the", "[CLS]", "[UNK]", "heart", "[SEP]", "is", "[MASK]", "large", "##d", "##-", "."]


def trained(**options: object) -> Tokenizer:
    return Tokenizer.train(REPORTS, **{"min_count": 2, **options})  # type: ignore[arg-type]


def test_vocabulary_is_inclusive_and_sorted_behind_the_special_tokens() -> None:
    tokenizer = trained()
    assert tokenizer.tokens == (*SPECIAL_TOKENS, ".", "effusion", "heart", "is", "lungs", "no", "the")
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2, 3)
    assert trained(min_count=3).tokens == (*SPECIAL_TOKENS, ".", "effusion", "the")


def test_legacy_vocabulary_counts_words_from_one_with_unk_among_them() -> None:
    tokenizer = Tokenizer.train(["- a ~ - a ~"], cleaner="none", min_count=2, legacy_ids=True)
    assert tokenizer.tokens == ("<pad>", "-", "<unk>", "a", "~")
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 0, 0, 2)


@pytest.mark.parametrize("options", VARIANTS)
def test_vocabulary_depends_on_the_reports_not_on_their_order(options: dict[str, object]) -> None:
    assert trained(**options).tokens == Tokenizer.train(REPORTS[::-1], **{"min_count": 2, **options}).tokens  # type: ignore[arg-type]


def test_word_pieces_are_the_same_in_every_process() -> None:
    script = (
        "import random\n"
        "from crossray.text.tokenizer import Tokenizer\n"
        "letters = random.Random(0)\n"
        "words = [''.join(letters.choices('abcdefgh', k=letters.randint(3, 9))) for _ in range(400)]\n"
        "print(Tokenizer.train(words, kind='wordpiece', min_count=3).fingerprint())\n"
    )
    prints = {subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout for _ in range(4)}
    assert len(prints) == 1 and len(prints.pop().strip()) == 64


def test_size_keeps_the_most_frequent_words() -> None:
    assert trained(size=6).tokens == (*SPECIAL_TOKENS, ".", "effusion")
    assert Tokenizer.train(["b a a b c"], cleaner="none", min_count=1, size=5).tokens == (*SPECIAL_TOKENS, "a")


def test_word_pieces_spell_words_that_training_never_saw() -> None:
    tokenizer = trained(kind="wordpiece", size=60)
    ids = tokenizer.encode("Zebras heal.", 60)
    assert tokenizer.unk_id not in ids
    assert tokenizer.decode(ids) == "zebras heal ."
    assert tokenizer.vocabulary_size <= 60


def test_encode_begins_and_ends() -> None:
    tokenizer = trained()
    words = [tokenizer.id_of(word) for word in ["the", "heart", "is", ".", "no", "effusion", "."]]
    assert tokenizer.encode("The heart is. No effusion", 60) == [1, *words, 2]
    assert tokenizer.encode("The zebra", 60) == [1, tokenizer.id_of("the"), 3, tokenizer.id_of("."), 2]


@given(
    length=st.integers(2, 40), report=st.sampled_from([*REPORTS, "", "the " * 50]), options=st.sampled_from(VARIANTS)
)
def test_truncation_keeps_the_end_unless_it_is_the_published_one(
    length: int, report: str, options: dict[str, object]
) -> None:
    tokenizer = trained(**options)
    whole, cut = tokenizer.encode(report, 1000), tokenizer.encode(report, length)
    assert len(cut) == min(len(whole), length)
    if tokenizer.legacy_ids:
        assert cut == whole[:length]
    else:
        assert cut == [*whole[: len(cut) - 1], tokenizer.eos_id]


@pytest.mark.parametrize("length", [1, 0, -1])
def test_a_length_without_place_for_both_ends_is_refused(length: int) -> None:
    with pytest.raises(UserError, match="max_length"):
        trained().encode("the", length)


@pytest.mark.parametrize("options", VARIANTS)
@given(words=st.lists(st.sampled_from(["the", "heart", "is", "effusion", "no", "."]), min_size=1, max_size=30))
def test_decode_inverts_encode(options: dict[str, object], words: list[str]) -> None:
    tokenizer = trained(**options)
    cleaned = " ".join(tokenizer.clean(" ".join(words)).split())
    assert tokenizer.decode(tokenizer.encode(" ".join(words), 200)) == cleaned


def test_decode_stops_at_the_first_end_and_skips_what_is_no_text() -> None:
    tokenizer = trained()
    the, heart = tokenizer.id_of("the"), tokenizer.id_of("heart")
    assert tokenizer.decode([1, the, heart, 2, the, 0, 0]) == "the heart"
    assert tokenizer.decode([the, 0, heart]) == "the heart"
    assert tokenizer.decode([1, the, 3]) == "the <unk>"
    assert tokenizer.decode([]) == ""
    legacy = trained(legacy_ids=True)
    assert legacy.decode([0, legacy.id_of("the"), 0, legacy.id_of("heart")]) == "the"
    assert legacy.decode([0, 0, 0]) == ""


@pytest.mark.parametrize("identifier", [-1, 10_000])
def test_decode_refuses_ids_outside_the_vocabulary(identifier: int) -> None:
    with pytest.raises(IndexError):
        trained().decode([identifier])


@pytest.mark.parametrize("options", [{"kind": "word"}, {"kind": "wordpiece", "size": 60}])
@pytest.mark.parametrize("token", SPECIAL_TOKENS)
def test_a_report_cannot_smuggle_in_special_tokens(options: dict[str, object], token: str) -> None:
    tokenizer = Tokenizer.train([f"the {token} heart"] * 3, cleaner="none", **options)  # type: ignore[arg-type]
    inner = tokenizer.encode(f"the {token} heart {token}the", 60)[1:-1]
    assert not {tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id} & set(inner)
    assert tokenizer.id_of(token) is None


@pytest.mark.parametrize("options", VARIANTS)
@given(report=st.sampled_from(REPORTS) | st.text(st.sampled_from("thelungs arcfo."), max_size=40))
def test_the_file_encodes_alike_in_the_library(
    tmp_path_factory: pytest.TempPathFactory, options: dict[str, object], report: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"library-{VARIANTS.index(options)}.json"
    tokenizer = trained(**options)
    tokenizer.save(path)
    library = tokenizers.Tokenizer.from_file(str(path))
    assert library.get_vocab() == {token: identifier for identifier, token in enumerate(tokenizer.tokens)}
    assert library.encode(tokenizer.clean(report)).ids == tokenizer.encode(report, 1000)


@pytest.mark.parametrize("options", VARIANTS)
def test_save_and_load(tmp_path: Path, options: dict[str, object]) -> None:
    tokenizer = trained(**options)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert vars(loaded).keys() == vars(tokenizer).keys()
    assert [loaded.encode(report, 20) for report in REPORTS] == [tokenizer.encode(report, 20) for report in REPORTS]
    assert (loaded.kind, loaded.cleaner, loaded.legacy_ids) == (tokenizer.kind, tokenizer.cleaner, tokenizer.legacy_ids)
    assert loaded.fingerprint() == tokenizer.fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_workers_get_the_same_tokenizer() -> None:
    tokenizer = trained(kind="wordpiece", size=60)
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode(REPORTS[0], 60) == tokenizer.encode(REPORTS[0], 60)


def test_fingerprint_sees_everything_that_decides_the_ids() -> None:
    variants = [
        trained(),
        trained(min_count=3),
        trained(cleaner="fixed"),
        trained(legacy_ids=True),
        trained(kind="wordpiece"),
    ]
    assert len({tokenizer.fingerprint() for tokenizer in variants}) == len(variants)
    assert trained().fingerprint() == trained().fingerprint()


def broken(change: str) -> str:
    """A tokenizer file with one thing wrong."""
    tokenizer = trained()
    vocabulary = {token: identifier for identifier, token in enumerate(tokenizer.tokens)}
    settings: dict[str, object] = {"kind": "word", "cleaner": "legacy", "legacy_ids": False}
    match change:
        case "gap in ids":
            vocabulary["the"] = 99
        case "repeated id":
            vocabulary["the"] = vocabulary["no"]
        case "special token elsewhere":
            vocabulary["<pad>"], vocabulary["the"] = vocabulary["the"], 0
        case "id is text":
            vocabulary["the"] = str(vocabulary["the"])  # type: ignore[assignment]
        case "unknown kind":
            settings["kind"] = "sentencepiece"
        case "unknown cleaner":
            settings["cleaner"] = "strict"
        case "unknown setting":
            settings["extra"] = 1
        case "wrong type":
            settings["legacy_ids"] = "no"
        case "no settings":
            return json.dumps({"model": {"vocab": vocabulary}})
        case "no model":
            return "{}"
        case "list":
            return "[]"
        case "nesting":
            return "[" * 100_000
        case "truncated":
            return json.dumps({"model": {"vocab": vocabulary, "crossray": settings}})[:-9]
        case "empty":
            return ""
    return json.dumps({"model": {"vocab": vocabulary, "crossray": settings}})


@pytest.mark.parametrize(
    "change",
    [
        "gap in ids",
        "repeated id",
        "special token elsewhere",
        "id is text",
        "unknown kind",
        "unknown cleaner",
        "unknown setting",
        "wrong type",
        "no settings",
        "no model",
        "list",
        "nesting",
        "truncated",
        "empty",
    ],
)
def test_a_broken_file_is_one_error_that_names_it(tmp_path: Path, change: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(broken(change))
    with pytest.raises(UserError, match=r"tokenizer\.json: ") as caught:
        Tokenizer.load(path)
    assert "\n" not in str(caught.value)


def test_the_file_that_broken_starts_from_is_sound(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(broken("nothing"))
    assert Tokenizer.load(tmp_path / "tokenizer.json").fingerprint() == trained().fingerprint()


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        Tokenizer.load(tmp_path / "absent.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not JSON"):
        Tokenizer.load(tmp_path / "binary.json")
    with pytest.raises(UserError, match="cannot be read"):
        Tokenizer.load(tmp_path)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tokenizer.json"
    trained().save(path)
    before = path.read_bytes()

    def full_disk(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="space"):
        trained(min_count=3).save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokenizer.json"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "characters"}, "kind: 'characters' does not exist"),
        ({"cleaner": "strict"}, "cleaner: 'strict' does not exist"),
        ({"kind": "wordpiece", "legacy_ids": True}, "legacy_ids: only word"),
        ({"min_count": 1000}, "'data.min_count' is 1000: no word occurs so often"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        trained(**options)


def test_no_reports_at_all() -> None:
    with pytest.raises(UserError, match="min_count"):
        Tokenizer.train([])


@pytest.fixture
def released(tmp_path: Path) -> Path:
    (tmp_path / "vocab.txt").write_text("\n".join(RELEASED) + "\n")
    return tmp_path


@pytest.mark.parametrize("options", [{"kind": "word"}, {"kind": "wordpiece", "size": 64}])
def test_statuses_are_the_last_tokens_and_no_text(options: dict[str, object]) -> None:
    tokenizer = Tokenizer.train(["the heart [POS] [BLA]"] * 3, cleaner="none", statuses=True, **options)  # type: ignore[arg-type]
    size = tokenizer.vocabulary_size
    assert tokenizer.status_ids == tokenizer.unwritten == (size - 4, size - 3, size - 2, size - 1)
    assert tokenizer.tokens[-4:] == STATUS_TOKENS
    assert not set(tokenizer.status_ids) & set(tokenizer.encode("the heart [POS] heart[NEG]", 60))
    assert tokenizer.id_of("[POS]") is None
    assert trained().status_ids == trained().unwritten == ()


def test_a_vocabulary_with_statuses_is_not_larger_than_asked_for() -> None:
    assert trained(size=10, statuses=True).tokens == (*SPECIAL_TOKENS, ".", "effusion", *STATUS_TOKENS)
    assert trained(kind="wordpiece", size=64, statuses=True).vocabulary_size <= 64


@pytest.mark.parametrize("file", ["vocab.txt", "tokenizer.json", ""])
def test_a_released_vocabulary_keeps_its_ids(released: Path, file: str) -> None:
    if file == "tokenizer.json":
        content = {"model": {"vocab": {piece: place for place, piece in enumerate(RELEASED)}}}
        (released / file).write_text(json.dumps(content))
    tokenizer = Tokenizer.released(str(released / file))
    assert tokenizer.tokens == (*RELEASED, *ADDED_TOKENS)
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.eos_id, tokenizer.bos_id) == (0, 4, 6, len(RELEASED))
    assert [tokenizer.tokens[place] for place in tokenizer.status_ids] == list(STATUS_TOKENS)
    assert [tokenizer.tokens[place] for place in tokenizer.unwritten] == [
        "[unused0]", "[CLS]", "[MASK]", *STATUS_TOKENS
    ]  # fmt: skip
    assert tokenizer.encode("The heart is larged zebra", 60) == [13, 2, 5, 7, 9, 10, 4, 12, 6]
    assert tokenizer.decode(tokenizer.encode("The heart is large-d.", 60)) == "the heart is large-d ."
    assert Tokenizer.released(str(released), "none").encode("[MASK] [CLS] [PAD] [DEC]", 60) == [13, 4, 4, 4, 4, 6]
    tokenizer.save(released / "saved.json")
    loaded = Tokenizer.load(released / "saved.json")
    assert loaded.fingerprint() == tokenizer.fingerprint()
    assert loaded.unwritten == tokenizer.unwritten
    library = tokenizers.Tokenizer.from_file(str(released / "saved.json"))
    assert library.encode("the heart is larged .").ids == tokenizer.encode("the heart is larged.", 60)


def test_released_vocabularies_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="not a file or folder and cannot"):
        Tokenizer.released(str(tmp_path / "absent"))
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"model": {"vocab": {p: 2 * n for n, p in enumerate(RELEASED)}}})
    )
    with pytest.raises(UserError, match="its ids are not 0, 1, 2"):
        Tokenizer.released(str(tmp_path))


def test_references_of_word_pieces_are_cut_at_pieces() -> None:
    tokenizer = trained(kind="wordpiece", size=64, statuses=True)
    report = REPORTS[1] * 20
    made = references(report, tokenizer, 12)
    assert made["full"] == tokenizer.clean(report)
    assert made["full"].startswith(made["r2gen"])
    assert len(tokenizer.encode(made["r2gen"], 99)) - 2 == 11
