"""Made-up studies, and a small dataset of them."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from crossray.data.store import Dataset, write_dataset
from crossray.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def noise() -> ModuleType:
    """The module `noise_studies.py` beside this file."""
    spec = importlib.util.spec_from_file_location("noise_studies", Path(__file__).parent / "noise_studies.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["noise_studies"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def noise_dataset(noise: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """60 studies with one or two views of 16 pixels and more."""
    folder = tmp_path_factory.mktemp("noise") / "dataset"
    return write_dataset(folder, noise.noise_studies(60), size=16, source={"name": "noise"}, workers=0)


@pytest.fixture(scope="session")
def noise_tokenizer(noise_dataset: Dataset) -> Tokenizer:
    return Tokenizer.train(noise_dataset.reports(noise_dataset.rows("train")), min_count=1)
