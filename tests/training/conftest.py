"""A small dataset whose reports say what its images show, and a recipe that is trained on it in a second."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossray.data.store import Dataset, write_dataset
from crossray.data.study import Study, View
from crossray.training.config import Recipe
from crossray.training.recipe import load

SIDES = ("left", "right")


@dataclass(frozen=True)
class Blob:
    """A bright square on the left or right half of noise."""

    number: int
    side: int | None
    position: str = "frontal"

    @property
    def name(self) -> str:
        return f"blob {self.number}"

    def read(self, size: int) -> View:
        rng = np.random.default_rng(self.number)
        pixels = rng.integers(0, 60, (size, size + 8), dtype=np.uint8)
        if self.side is not None:
            start = 4 if self.side == 0 else size // 2 + 8
            pixels[size // 4 : size // 2, start : start + size // 3] = 230
        return View(pixels)


def blob_study(number: int, split: Any) -> Study:
    side = (0, 1, None)[number % 3]
    finding = f"there is a {SIDES[side]} opacity ." if side is not None else "no opacity is seen ."
    views = (Blob(number, side),) if number % 4 else (Blob(number, side), Blob(number + 1000, None, "lateral"))
    return Study(
        id=f"study{number}", patient=f"patient{number}", split=split, images=views,
        findings=f"The heart is normal. {finding.capitalize()}",
        labels={"lung_opacity": "positive" if side is not None else "negative"},
    )  # fmt: skip


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset: 18 training, 7 validation and 3 test studies of 40 pixels."""
    folder = tmp_path_factory.mktemp("blobs") / "data"
    splits = ["train"] * 18 + ["val"] * 7 + ["test"] * 3
    studies = [blob_study(number, split) for number, split in enumerate(splits)]
    write_dataset(folder, studies, size=40, source={"name": "blobs"}, workers=1)
    return folder


@pytest.fixture(scope="session")
def blob_dataset(blobs: Path) -> Dataset:
    return Dataset.open(blobs)


TINY: dict[str, Any] = {
    "model.backbone.name": "random:resnet_tiny",
    "model.layers": 1,
    "model.width": 16,
    "model.heads": 2,
    "model.feedforward": 16,
    "data.batch_size": 4,
    "data.min_count": 1,
    "data.max_length": 20,
    "data.image.size": 32,
    "data.image.resize": 36,
    "decoding.method": "greedy",
    "decoding.max_length": 12,
    "decoding.min_length": 0,
    "trainer.max_epochs": 2,
    "trainer.log_every": 1,
    "trainer.min_epochs": 0,
    "trainer.accelerator": "cpu",
    "schedule.warmup_steps": 2,
}


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Recipe]:
    """`tiny("baseline/phantom", trainer__max_epochs=3)`: a packaged recipe, made small."""

    def make(name: str = "baseline/phantom", **overrides: Any) -> Recipe:
        changes = {key.replace("__", "."): value for key, value in overrides.items()}
        values = TINY
        if name.startswith(("vision", "tokenizer")):  # neither is a decoder, and a tokenizer has no backbone
            values = {key: value for key, value in TINY.items() if not key.startswith("model.")}
            if name.startswith("vision"):
                values["model.backbone.name"] = TINY["model.backbone.name"]
        return load(name, {**values, **changes})

    return make
