"""A small model of random weights over drawn studies, calibrated once."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from crossray.cli import main
from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset, write_dataset
from crossray.decoding.config import DecodingConfig
from crossray.decoding.settings import GenerationSettings
from crossray.models.base import ReportModel
from crossray.models.parts.backbones import BackboneConfig
from crossray.models.registry import create_model
from crossray.phantom.source import phantom_studies
from crossray.text.tokenizer import Tokenizer

TRAIN, VAL = 50, 30

#: Short side of the stored images; the transform makes them smaller.
STORED = 64


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("confidence") / "data"
    drawn = phantom_studies(TRAIN + VAL, 0, "easy")
    studies = [replace(study, split="train" if place < TRAIN else "val") for place, study in enumerate(drawn)]
    return write_dataset(folder, studies, size=STORED, source={"kind": "phantom"}, workers=0)


@pytest.fixture(scope="session")
def bare(phantom: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's folder before it is calibrated."""
    torch.manual_seed(3)
    tokenizer = Tokenizer.train(phantom.reports(phantom.rows("train")), min_count=1)
    model = create_model(
        "baseline", vocabulary_size=tokenizer.vocabulary_size, max_length=40, layers=1, width=32, heads=2,
        feedforward=32, backbone=BackboneConfig(name="random:resnet_tiny", trainable=False, standardize=False),
    )  # fmt: skip
    assert isinstance(model, ReportModel)
    model.tokenizer, model.transform = tokenizer, ImageTransform(size=48, resize=48)
    folder = tmp_path_factory.mktemp("model") / "bare"
    model.eval().save_pretrained(folder)
    GenerationSettings(DecodingConfig(method="mbr", samples=4, max_length=30, utility="bleu")).save(folder)
    return folder


@pytest.fixture(scope="session")
def calibrated(bare: Path, phantom: Dataset) -> Path:
    """A copy of it after `crossray calibrate`; the page lies beside."""
    folder = bare.with_name("calibrated")
    shutil.copytree(bare, folder)
    arguments = ["--model", str(folder), "--data", str(phantom.path), "--out", str(folder.with_name("page.html"))]
    main(["calibrate", *arguments, "--false-alarms", "0.1", "--device", "cpu"])
    return folder
