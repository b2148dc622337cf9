"""A model with random weights and a small dataset, for predictions files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crossray.data.batches.transform import ImageTransform
from crossray.data.images import ImageFile
from crossray.data.store import write_dataset
from crossray.data.study import Study
from crossray.models.base import ReportModel
from crossray.models.parts.backbones import BackboneConfig
from crossray.models.registry import create_model
from crossray.text.tokenizer import Tokenizer

REPORTS = ["The heart is normal.", "There is a left effusion. No pneumothorax.", "Lungs are clear, heart is enlarged."]


def radiograph(path: Path, seed: int, shape: tuple[int, int] = (70, 90)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights; its recipe says how it decodes."""
    torch.manual_seed(3)
    tokenizer = Tokenizer.train(REPORTS, min_count=1)
    model = create_model(
        "baseline", vocabulary_size=tokenizer.vocabulary_size, max_length=20, layers=1, width=32, heads=2,
        feedforward=32, backbone=BackboneConfig(name="random:resnet_tiny", trainable=False),
    )  # fmt: skip
    assert isinstance(model, ReportModel)
    model.tokenizer, model.transform = tokenizer, ImageTransform(size=32, resize=40)
    model.eval()
    path = tmp_path_factory.mktemp("run") / "best"
    recipe = {
        "decoding": {"beam": 2, "max_length": 12, "forbidden": []},
        "data": {"section": "findings", "min_count": 1},
    }
    model.save_pretrained(path, {"recipe": recipe})
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five test studies of one or two views."""
    path = tmp_path_factory.mktemp("data")
    studies = [
        Study(
            id=f"study{number}", patient=f"study{number}", split="test", findings=REPORTS[number % 3],
            images=tuple(
                ImageFile(radiograph(path / f"{number}-{view}.png", 10 * number + view), position)
                for view, position in enumerate(("frontal", "lateral")[: 1 + number % 2])
            ),
        )
        for number in range(5)
    ]  # fmt: skip
    write_dataset(path / "prepared", studies, size=40, source={"kind": "test"}, workers=0)
    return path
