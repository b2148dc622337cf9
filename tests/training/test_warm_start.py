"""A training that starts from a saved model: its weights and its vocabulary, or one sentence why not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from crossray.errors import UserError
from crossray.text.tokenizer import Tokenizer
from crossray.training.config import Recipe, Stage
from crossray.training.run import train


@pytest.fixture(scope="module")
def first(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.training.conftest import TINY

    from crossray.training.recipe import load

    run = tmp_path_factory.mktemp("first") / "run"
    train(load("baseline/phantom", {**TINY, "trainer.max_epochs": 1}), blobs, run)
    return run


def test_goes_on_with_weights_and_vocabulary(
    first: Path, tiny: Callable[..., Recipe], blobs: Path, tmp_path: Path
) -> None:
    still = {"optimizer.learning_rate": 0.0, "data.min_count": 5}
    recipe = tiny(trainer__max_epochs=1, stages=[{"epochs": 1, "start_from": str(first)}], **still)
    best = train(recipe, blobs, tmp_path / "run")
    before, after = load_file(first / "best/model.safetensors"), load_file(best / "model.safetensors")
    trained = [name for name in before if "running_" not in name and "num_batches" not in name]
    assert trained and all(torch.equal(before[name], after[name]) for name in trained)
    vocabularies = [Tokenizer.load(folder / "tokenizer.json").tokens for folder in (first / "best", best)]
    assert vocabularies[0] == vocabularies[1]


def test_features_are_those_of_the_frozen_network_that_is_loaded(
    tiny: Callable[..., Recipe], blobs: Path, tmp_path: Path
) -> None:
    """The recipe's own network, of another seed, has other features; the saved model still has the loss that it had."""
    frozen = {"model.backbone.trainable": False, "data.min_count": 1}
    train(tiny(trainer__max_epochs=1, **frozen), blobs, tmp_path / "first")
    still = {"optimizer.learning_rate": 0.0, "trainer.seed": 1, **frozen, "data.min_count": 3}
    train(tiny(stages=[{"epochs": 1, "start_from": str(tmp_path / "first")}], **still), blobs, tmp_path / "second")
    losses = []
    for run in ("first", "second"):
        rows = [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        losses.append(next(row["loss_language"] for row in rows if row["split"] == "val"))
        assert json.loads((tmp_path / run / "best/generation.json").read_text())["min_count"] == 1
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


@pytest.mark.parametrize(
    ("stages", "options", "words"),
    [
        ([Stage(epochs=1, start_from="{first}")], {"model.width": 8}, "do not fit this recipe"),
        ([Stage(epochs=1, start_from="nowhere")], {}, "name the folder of a saved model or of a run"),
        ([Stage(epochs=1), Stage(epochs=1, start_from="{first}")], {}, "a later stage starts from last or best"),
    ],
)
def test_says_why_not(
    stages: list[Stage], options: dict[str, int], words: str, first: Path, tiny: Callable[..., Recipe], blobs: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    given = [{"epochs": 1, "start_from": stage.start_from.format(first=first)} for stage in stages]
    with pytest.raises(UserError, match=words):
        train(tiny(stages=given, trainer__max_epochs=0, **options), blobs, tmp_path / "run")
    assert not (tmp_path / "run" / "best").exists()


def test_validation_writes_greedily_where_the_recipe_says_so(
    tiny: Callable[..., Recipe], blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossray.training import module

    methods = []
    plain = module.write_reports

    def write_reports(model, inputs, decoding, **options):  # type: ignore[no-untyped-def]
        methods.append(decoding.method)
        return plain(model, inputs, decoding, **options)

    monkeypatch.setattr(module, "write_reports", write_reports)
    options = {"decoding.method": "mbr", "decoding.samples": 2, "trainer.max_epochs": 1}
    train(tiny(**options, trainer__greedy_validation=True), blobs, tmp_path / "quick")
    assert set(methods) == {"greedy"}
    methods.clear()
    train(tiny(**options), blobs, tmp_path / "whole")
    assert set(methods) == {"mbr"}
