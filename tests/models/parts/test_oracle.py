"""The drawn findings in place of an encoder: their codes, and that systems read them from training to generation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.training.conftest import TINY, blob_study

from crossray.data.store import Dataset, write_dataset
from crossray.errors import UserError
from crossray.evaluation.predictions import PredictionFile
from crossray.generation.generator import Generator
from crossray.models.parts.oracle import _WORDS, FINDINGS, SLOTS, DrawnFindings
from crossray.phantom.source import phantom_studies
from crossray.training.recipe import load
from crossray.training.run import train


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "data"
    write_dataset(folder, phantom_studies(60, 1, "easy"), size=32, source={"name": "phantom"}, workers=1)
    return folder


def test_codes_are_what_the_table_says(drawn: Path) -> None:
    dataset = Dataset.open(drawn)
    table = dataset.findings()
    assert table is not None
    codes = DrawnFindings(dataset).read(np.arange(dataset.images))[FINDINGS]
    assert codes.shape == (dataset.images, SLOTS, 5)
    read = []
    for image, slots in enumerate(codes.tolist()):
        for slot in slots:
            if slot[0]:
                words = [known[code - 1] if code else "" for known, code in zip(_WORDS.values(), slot, strict=True)]
                read.append((image, *words))
            else:
                assert slot == [0] * 5
    expected = [
        (int(dataset.first_image[row["study"]]) + row["view"], *(row[name] for name in _WORDS))
        for row in table.to_pylist()
    ]
    assert sorted(read) == sorted(expected) and len(read) > 20


@pytest.mark.parametrize("name", ["baseline/phantom", "uar/phantom"])
def test_a_system_learns_from_findings_and_writes_from_them(name: str, drawn: Path, tmp_path: Path) -> None:
    overrides: dict[str, Any] = {
        **TINY, "model.backbone.name": "oracle:findings", "model.width": 32, "trainer.max_epochs": 20,
        "trainer.validate_every": 20, "model.dropout": 0.0, "optimizer.learning_rate": 3e-3,
        "trainer.monitor": "image_gain",
    }  # fmt: skip
    if name == "baseline/phantom":
        overrides["model.visual_dropout"] = 0.0
    else:
        overrides |= {"model.visual": "resnet", "model.cra": False, "model.image_tokenizer.name": "random:tiny"}
    train(load(name, overrides), drawn, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["image_gain"] > 0.01
    generator = Generator.from_pretrained(tmp_path / "run")
    generator.generate_dataset(drawn, "val", tmp_path / "val.jsonl")
    reports = [row.prediction for row in PredictionFile.load(tmp_path / "val.jsonl").rows]
    assert len(reports) == len(Dataset.open(drawn).rows("val")) and all(reports)
    assert generator.model.memory_cells(2, 2 * SLOTS) is None  # a finding's token is no place of the image
    Image.new("L", (40, 40)).save(tmp_path / "1.png")
    with pytest.raises(UserError, match="cannot see images"):
        generator.generate_files([[tmp_path / "1.png"]], tmp_path / "out.jsonl")


def test_datasets_that_are_not_drawn_are_refused(tmp_path: Path) -> None:
    studies = [blob_study(number, split) for number, split in enumerate(["train"] * 4 + ["val"])]
    write_dataset(tmp_path / "data", studies, size=40, source={"name": "blobs"}, workers=1)
    recipe = load("baseline/phantom", {**TINY, "model.backbone.name": "oracle:findings"})
    with pytest.raises(UserError, match="oracle:findings, which reads what is drawn"):
        train(recipe, tmp_path / "data", tmp_path / "run")
    assert not (tmp_path / "run").exists()
