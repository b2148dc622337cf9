"""Fixtures that every part uses."""

import os

# Tiny models are fastest on one thread, and processes that tests start must not fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import hypothesis
import pytest
import torch

# Machines under load are slow at random; a test's own time limit is pytest's.
hypothesis.settings.register_profile("crossray", deadline=None)
hypothesis.settings.load_profile("crossray")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real reports and radiographs; the test is left out, saying so, where there is none."""
    folder = Path(os.environ.get("CROSSRAY_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "iu_xray" / "annotation.json").exists():
        pytest.skip(f"no real data: set CROSSRAY_TEST_DATA to the folder that holds iu_xray/ ({folder} does not)")
    return folder


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)
