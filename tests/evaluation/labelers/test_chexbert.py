"""CheXbert's adapter on a checkpoint of the published layout that is put together without any of our classes.

The oracle is BERT written out in plain torch functions, with the names of the published tensors.
"""

import csv
import hashlib
import json
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from crossray import cli
from crossray.errors import UserError
from crossray.evaluation.labelers import open_labeler
from crossray.evaluation.labelers.chexbert import CLASSES, CheXbert, CheXbertConfig, CheXbertLabeler
from crossray.evaluation.labelers.chexbert_weights import convert_chexbert
from crossray.text.observations import CHEXPERT, STATUSES
from crossray.text.vocabulary import read_vocabulary

WIDTH, HEADS, LAYERS, INNER, POSITIONS = 128, 2, 3, 96, 40
PIECES = [
    "[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "\u2028", "the", "heart", "is", "en", "##large", "##d", "no",
    "effusion", ".", ",", "lung", "##s", "clear", "cafe",
]  # fmt: skip
REPORTS = [
    "The HEART is enlarged.",
    "",
    "lungs clear , no\n\n effusion .",
    "café unknownword",
    "no effusion . " * 30,
    "lung",
]


def published_names(layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of the published file, as a torch 1.4 BERT with heads writes them."""
    shapes: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (len(PIECES), WIDTH),
        "bert.embeddings.position_embeddings.weight": (POSITIONS, WIDTH),
        "bert.embeddings.token_type_embeddings.weight": (2, WIDTH),
        "bert.embeddings.LayerNorm.weight": (WIDTH,),
        "bert.embeddings.LayerNorm.bias": (WIDTH,),
        "bert.pooler.dense.weight": (WIDTH, WIDTH),
        "bert.pooler.dense.bias": (WIDTH,),
    }
    for layer in range(layers):
        for part, outputs, inputs in (
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", INNER, WIDTH),
            ("output.dense", WIDTH, INNER),
        ):
            shapes[f"bert.encoder.layer.{layer}.{part}.weight"] = (outputs, inputs)
            shapes[f"bert.encoder.layer.{layer}.{part}.bias"] = (outputs,)
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"bert.encoder.layer.{layer}.{part}.weight"] = (WIDTH,)
            shapes[f"bert.encoder.layer.{layer}.{part}.bias"] = (WIDTH,)
    for head in range(14):
        shapes[f"linear_heads.{head}.weight"] = (2 if head == 13 else 4, WIDTH)
        shapes[f"linear_heads.{head}.bias"] = (2 if head == 13 else 4,)
    return shapes


def made_up_tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: 0.1 * torch.randn(shape, generator=generator) + (1.0 if name.endswith("LayerNorm.weight") else 0.0)
        for name, shape in published_names(LAYERS).items()
    }


def plain_bert(tensors: dict[str, Tensor], ids: list[int]) -> list[Tensor]:
    """Logits of one report without padding: Devlin et al. 2019, and a linear head an observation on [CLS]."""

    def linear(name: str, value: Tensor) -> Tensor:
        return value @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(name: str, value: Tensor) -> Tensor:
        value = value - value.mean(dim=-1, keepdim=True)
        value = value / torch.sqrt(value.pow(2).mean(dim=-1, keepdim=True) + 1e-12)
        return value * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    hidden = (
        tensors["bert.embeddings.word_embeddings.weight"][ids]
        + tensors["bert.embeddings.position_embeddings.weight"][: len(ids)]
        + tensors["bert.embeddings.token_type_embeddings.weight"][0]
    )
    hidden = norm("bert.embeddings.LayerNorm", hidden)
    for layer in range(LAYERS):
        name = f"bert.encoder.layer.{layer}"
        query, key, value = (linear(f"{name}.attention.self.{part}", hidden) for part in ("query", "key", "value"))
        mixed = []
        for head in torch.arange(WIDTH).split(WIDTH // HEADS):
            attention = torch.softmax(query[:, head] @ key[:, head].T / math.sqrt(len(head)), dim=-1)
            mixed.append(attention @ value[:, head])
        attended = linear(f"{name}.attention.output.dense", torch.cat(mixed, dim=-1))
        hidden = norm(f"{name}.attention.output.LayerNorm", attended + hidden)
        inner = functional.gelu(linear(f"{name}.intermediate.dense", hidden))
        hidden = norm(f"{name}.output.LayerNorm", linear(f"{name}.output.dense", inner) + hidden)
    return [linear(f"linear_heads.{head}", hidden[0]) for head in range(14)]


#: The ids of `REPORTS`, by hand.
IDS = [
    [3, 6, 7, 8, 9, 10, 11, 14, 4],
    [3, 4],
    [3, 16, 17, 18, 15, 12, 13, 14, 4],
    [3, 19, 2, 4],
    [3, *([12, 13, 14] * 30)[: POSITIONS - 2], 4],
    [3, 16, 4],
]


@pytest.fixture
def vocabulary(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("".join(f"{piece}\n" for piece in PIECES), encoding="utf-8")
    return path


def save(path: Path, tensors: dict[str, Tensor], prefix: str = "module.", **options: object) -> Path:
    """A checkpoint as the published training saves it."""
    state = {prefix + name: tensor for name, tensor in tensors.items()}
    torch.save({"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {"state": {}}}, path, **options)
    return path


@pytest.fixture
def converted(tmp_path: Path, vocabulary: Path) -> Path:
    convert_chexbert(save(tmp_path / "chexbert.pth", made_up_tensors()), vocabulary, tmp_path / "chexbert")
    return tmp_path / "chexbert"


@pytest.mark.parametrize("layout", ["zip", "before torch 1.6", "without module.", "with position_ids"])
def test_logits_are_those_of_a_plain_bert(tmp_path: Path, vocabulary: Path, layout: str) -> None:
    tensors = made_up_tensors()
    more = {"bert.embeddings.position_ids": torch.arange(POSITIONS)[None]} if layout == "with position_ids" else {}
    weights = save(
        tmp_path / "chexbert.pth",
        {**tensors, **more},
        prefix="" if layout == "without module." else "module.",
        _use_new_zipfile_serialization=layout != "before torch 1.6",
    )
    convert_chexbert(weights, vocabulary, tmp_path / "out")
    labeler = CheXbertLabeler.from_pretrained(tmp_path / "out", device="cpu")
    found = labeler.logits(IDS)  # of different lengths: padded
    expected = [plain_bert(tensors, ids) for ids in IDS]
    for head in range(14):
        for report in range(len(IDS)):
            torch.testing.assert_close(found[head][report], expected[report][head], atol=1e-5, rtol=1e-5)


def test_labels_are_the_largest_logits_of_the_right_pieces(converted: Path) -> None:
    labeler = CheXbertLabeler.from_pretrained(converted, device="cpu")
    expected = [[int(logits.argmax()) for logits in plain_bert(made_up_tensors(), ids)] for ids in IDS]
    assert len(np.unique(expected)) == 4  # all statuses occur
    found = labeler.label(REPORTS)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, expected)
    # more than one batch, in any order
    order = np.random.default_rng(0).integers(len(REPORTS), size=80)
    np.testing.assert_array_equal(labeler.label([REPORTS[report] for report in order]), np.array(expected)[order])
    assert labeler.label([]).shape == (0, 14)


def test_it_is_a_labeler_that_says_which_weights_it_has(converted: Path) -> None:
    labeler = open_labeler(str(converted))
    digest = hashlib.sha256((converted.parent / "chexbert.pth").read_bytes()).hexdigest()
    assert labeler.name == f"chexbert {digest[:8]}"
    assert labeler.observations == CHEXPERT
    provenance = json.loads((converted / "provenance.json").read_text())
    assert provenance["weights"] == {"name": "chexbert.pth", "sha256": digest}
    assert provenance["vocabulary"]["name"] == "vocab.txt"


def test_vocabularies_of_both_kinds_and_folders(tmp_path: Path, vocabulary: Path, converted: Path) -> None:
    expected = {piece: place for place, piece in enumerate(PIECES)}
    assert read_vocabulary(vocabulary) == expected
    assert read_vocabulary(converted / "tokenizer.json") == expected
    for number, given in enumerate((converted, tmp_path)):  # a folder with tokenizer.json, and one with vocab.txt
        convert_chexbert(tmp_path / "chexbert.pth", given, tmp_path / f"again{number}")
        assert (tmp_path / f"again{number}" / "tokenizer.json").read_bytes() == (
            converted / "tokenizer.json"
        ).read_bytes()


def test_the_command(tmp_path: Path, vocabulary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = save(tmp_path / "chexbert.pth", made_up_tensors())
    out = tmp_path / "new" / "chexbert"
    cli.main(["convert", "chexbert", str(weights), "--vocabulary", str(vocabulary), "--out", str(out)])
    assert "chexbert" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json", "model.safetensors", "provenance.json", "tokenizer.json",
    ]  # fmt: skip
    assert [path.name for path in out.parent.iterdir()] == ["chexbert"]


def test_commands_take_the_folder(converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labeler = CheXbertLabeler.from_pretrained(converted, device="cpu")
    table, labels = tmp_path / "reports.csv", tmp_path / "labels.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("study_id", "report"), *enumerate(REPORTS)])
    cli.main(["label", str(table), "--labeler", str(converted), "--out", str(labels)])
    assert f"{len(REPORTS)} reports labeled by {labeler.name}" in capsys.readouterr().out
    with labels.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["study_id", *CHEXPERT]
    assert [row[1:] for row in rows] == [[STATUSES[code] for code in line] for line in labeler.label(REPORTS)]

    predictions = tmp_path / "predictions.jsonl"
    lines = [{"id": str(row), "prediction": text, "reference": text} for row, text in enumerate(REPORTS)]
    predictions.write_text("\n".join(map(json.dumps, lines)))
    cli.main(["evaluate", str(predictions), "--labeler", str(converted), "--meteor", "no", "--resamples", "5"])
    assert f"labeler {labeler.name}" in " ".join(capsys.readouterr().out.split())
    scores = json.loads(predictions.with_suffix(".scores.json").read_text())
    assert scores["protocols"]["full"]["result"]["protocol"]["labeler"] == labeler.name


def test_evidence_needs_rules(converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(
            ["label", "reports.csv", "--labeler", str(converted), "--out", str(tmp_path / "o"), "--evidence", "e.jsonl"]
        )
    assert "the only labeler that records passages" in capsys.readouterr().err


def test_a_real_size_network_has_the_published_tensors() -> None:
    """227 names: 199 of bert-base-uncased, whose two of the pooler nothing uses, and 28 of the heads."""
    with torch.device("meta"):
        network = CheXbert(CheXbertConfig())
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert shapes.keys() == published_names(12).keys() - {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert len(shapes) == 227 - 2
    assert sum(math.prod(shape) for shape in shapes.values()) == 109_482_240 - 590_592 + 54 * 769
    assert CLASSES == (4,) * 13 + (2,)


class Malicious:
    """A pickle that would make a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_checkpoint_is_refused_and_not_run(tmp_path: Path, vocabulary: Path, zipped: bool) -> None:
    mark, path = tmp_path / "run", tmp_path / "chexbert.pth"
    torch.save(
        {"model_state_dict": made_up_tensors(), "epoch": Malicious(mark)}, path, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(UserError, match="more than weights, of which nothing was run") as caught:
        convert_chexbert(path, vocabulary, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    path.write_bytes(pickle.dumps(Malicious(mark), protocol=2))
    with pytest.raises(UserError, match="not PyTorch weights"):
        convert_chexbert(path, vocabulary, tmp_path / "out")
    assert not mark.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chexbert.pth", "vocab.txt"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"linear_heads.3.bias": None}, "tensor linear_heads.3.bias is missing"),
        ({"linear_heads.13.weight": torch.zeros(4, WIDTH)}, r"linear_heads.13.weight is \(4, 128\), .* \(2, 128\)"),
        ({"bert.embeddings.word_embeddings.weight": None}, "word_embeddings.weight is missing"),
        ({"bert.embeddings.word_embeddings.weight": torch.zeros(3)}, "has 1 dimensions, not 2"),
        ({"linear_heads.14.bias": torch.zeros(2)}, "tensor linear_heads.14.bias does not belong to CheXbert"),
        ({"bert.encoder.layer.7.output.dense.bias": torch.zeros(WIDTH)}, "layer"),
        (
            dict.fromkeys((f"bert.encoder.layer.{n}.x" for n in range(10_000)), torch.zeros(1)),
            "tensor .*layer.0.x does not belong",
        ),
        ({"linear_heads.0.weight": torch.zeros(1).expand(1 << 20, 1 << 20)}, "not PyTorch weights"),
        (
            {"bert.embeddings.word_embeddings.weight": torch.zeros(len(PIECES), 100)},
            "width 100 is not a multiple of 64",
        ),
        ({"bert.embeddings.word_embeddings.weight": torch.zeros(30522, WIDTH)}, "20 pieces, .* 30522 embeddings"),
    ],
)
def test_other_tensors_are_refused(
    tmp_path: Path, vocabulary: Path, change: dict[str, Tensor | None], message: str
) -> None:
    tensors = {name: tensor for name, tensor in {**made_up_tensors(), **change}.items() if tensor is not None}
    with pytest.raises(UserError, match=message):
        convert_chexbert(save(tmp_path / "chexbert.pth", tensors), vocabulary, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not PyTorch weights"),
        (b"not weights", "not PyTorch weights"),
        ({"state_dict": {}}, "model_state_dict is missing"),
        ({"model_state_dict": {"a": 3}}, "model_state_dict is missing or not a table of tensors"),
        ([1, 2], "model_state_dict is missing"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, vocabulary: Path, content: object, message: str) -> None:
    path = tmp_path / "chexbert.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=message):
        convert_chexbert(path, vocabulary, tmp_path / "out")
    with pytest.raises(UserError, match="cannot be read"):
        convert_chexbert(tmp_path / "absent.pth", vocabulary, tmp_path / "out")


def test_wrong_vocabularies_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    with pytest.raises(UserError, match="cannot be read"):
        read_vocabulary(path)
    path.write_text("[PAD]\n[UNK]\n[CLS]\nheart\n")
    with pytest.raises(UserError, match=r"piece \[SEP\] is missing"):
        read_vocabulary(path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"vocab": [1]}}')
    with pytest.raises(UserError, match="no WordPiece vocabulary"):
        read_vocabulary(tmp_path / "tokenizer.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"neither vocab\.txt nor tokenizer\.json"):
        convert_chexbert(tmp_path / "chexbert.pth", tmp_path / "empty", tmp_path / "out")


def test_an_existing_folder_is_kept(tmp_path: Path, vocabulary: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        convert_chexbert(save(tmp_path / "chexbert.pth", made_up_tensors()), vocabulary, tmp_path / "out")


def test_broken_folders_are_refused_in_one_sentence(converted: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read; --labeler takes rules, or a folder"):
        CheXbertLabeler.from_pretrained(tmp_path / "absent")
    (converted / "model.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="are not a complete CheXbert") as caught:
        CheXbertLabeler.from_pretrained(converted)
    assert "\n" not in str(caught.value)
    (converted / "config.json").write_text('{"format": 1, "system": "baseline"}')
    with pytest.raises(UserError, match="field 'labeler' is not CheXbert in format 1"):
        CheXbertLabeler.from_pretrained(converted)


def test_the_folder_of_the_weights_is_asked_for() -> None:
    with pytest.raises(UserError, match="--labeler chexbert: the folder of the weights is missing"):
        open_labeler("chexbert")
