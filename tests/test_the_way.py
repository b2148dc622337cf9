"""The whole way through the command line on a small drawn set, and the commands that the documents show."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossray import cli
from crossray.data.store import Dataset
from crossray.evaluation.predictions import PredictionFile
from crossray.models.registry import list_models
from crossray.training.recipe import given_fields, parse

ROOT = Path(__file__).parents[1]
SMALL = [
    "--model.backbone.name", "random:resnet_tiny", "--model.layers", "1", "--model.width", "32", "--model.heads", "2",
    "--model.feedforward", "32", "--data.image.size", "64", "--data.image.resize", "64", "--data.batch_size", "8",
    "--trainer.threads", "1",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("way")


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    out = folder / "data"
    cli.main(["prepare", "phantom", "--out", str(out), "--studies", "40", "--size", "64", "--seed", "3"])
    return out


@pytest.fixture(scope="module")
def run(folder: Path, data: Path) -> Path:
    out = folder / "run"
    cli.main(["train", "baseline/phantom", "--data", str(data), "--out", str(out), "--trainer.max_epochs", "1", *SMALL])
    return out


@pytest.mark.slow
def test_train_then_resume_a_finished_run(run: Path) -> None:
    best = (run / "best" / "model.safetensors").read_bytes()
    assert {path.name for path in run.iterdir()} >= {"recipe.yaml", "metrics.jsonl", "provenance.json", "last.ckpt"}
    assert {path.name for path in (run / "best").iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "preprocess.json", "generation.json", "provenance.json",
    }  # fmt: skip
    cli.main(["train", "--resume", str(run)])
    assert (run / "best" / "model.safetensors").read_bytes() == best


@pytest.mark.slow
def test_three_studies_from_files(run: Path, data: Path, folder: Path) -> None:
    dataset = Dataset.open(data)
    views = [np.asarray(dataset.image(index)) for index in range(4)]
    names = [folder / name for name in ("image.png", "other.jpg", "frontal.png", "lateral.png")]
    for path, pixels in zip(names, views, strict=True):
        Image.fromarray(pixels).save(path)
    out = folder / "files.jsonl"
    studies = [str(names[0]), str(names[1]), f"{names[2]},{names[3]}"]
    cli.main(["generate", "--model", str(run), *studies, "--out", str(out)])
    rows = PredictionFile.load(out).rows
    assert [row.id for row in rows] == ["image", "other", "frontal+lateral"]
    assert [len(row.images) for row in rows] == [1, 1, 2]


@pytest.mark.slow
def test_generate_and_evaluate_a_split(run: Path, data: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "predictions.jsonl"
    cli.main(["generate", "--model", str(run), "--data", str(data), "--split", "test", "--out", str(out)])
    cli.main(["evaluate", str(out), "--meteor", "no", "--resamples", "50"])
    shown = capsys.readouterr().out
    assert "protocol r2gen" in shown
    assert "protocol full" in shown
    scores = json.loads(out.with_suffix(".scores.json").read_text())
    assert set(scores["protocols"]) == {"r2gen", "full"}
    assert len(PredictionFile.load(out).rows) == len(Dataset.open(data).rows("test"))


@pytest.mark.slow
def test_pretrained_encoder_becomes_a_frozen_backbone(data: Path, folder: Path) -> None:
    encoder, out = folder / "encoder", folder / "over-encoder"
    small = ["--model.backbone.name", "random:resnet_tiny", "--data.image.size", "64", "--data.image.resize", "64"]
    cli.main(["pretrain", "vision", "--data", str(data), "--out", str(encoder), "--trainer.max_epochs", "1", *small])
    frozen = [*SMALL[2:], "--model.backbone.name", str(encoder / "best"), "--model.backbone.trainable", "false"]
    cli.main(
        ["train", "cmn/phantom", "--data", str(data), "--out", str(out), "--trainer.max_epochs", "1", *frozen,
         "--model.memory_slots", "64", "--model.memory_heads", "2", "--model.memory_top", "8"]
    )  # fmt: skip
    assert len(list((data / "features").iterdir())) == 1  # computed once, cached in the dataset
    saved = json.loads((out / "best" / "config.json").read_text())
    assert saved["config"]["backbone"]["architecture"]["model_type"] == "resnet"


def test_models_lists_every_system(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["models"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in list_models())


def commands() -> list[str]:
    """Every `crossray ...` line in the code blocks of README and docs."""
    found = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        found += re.findall(r"^\s*(?:\$ )?(crossray [a-z].*?)(?:\s+#.*)?$", text, flags=re.MULTILINE)
    return sorted(set(found))


@pytest.mark.parametrize("command", commands())
def test_commands_of_the_documents_parse(command: str) -> None:
    """What a document shows must at least be understood: command, options and their types, recipe and its fields."""
    words = [cli._underscored(word) for word in shlex.split(command)[1:]]
    assert "..." not in words
    if words[0] in {"train", "pretrain"}:
        own, rest = [], words[1:]
        for option in ("--data", "--out", "--resume"):
            if option in rest:
                place = rest.index(option)
                own.append(option)
                rest = rest[:place] + rest[place + 2 :]
        if "--resume" in own:
            assert rest == []
            return
        named = rest[1] if words[0] == "pretrain" and len(rest) > 1 and not rest[1].startswith("--") else None
        name = rest[0] if words[0] == "train" else cli._full_name(rest[0], named)
        parse(name, rest[1 if named is None else 2 :])
        return
    if words[0] in cli.COMMANDS and cli.COMMANDS[words[0]].takes_recipe:
        words, fields = cli._split_recipe_options(words)
        if fields:
            given_fields(words[1], fields)
    if words[0] in cli.COMMANDS and cli.COMMANDS[words[0]].fields:
        words, _ = cli._split_fields(words, cli.COMMANDS[words[0]].fields)
    cli._build(words).parse_args(cli._spelled_out(words))
