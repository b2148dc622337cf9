"""Fixtures that every part uses."""

import os

# Tiny models are fastest on one thread, and processes that tests start must not fight over the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As `ray_cluster` sets it, in case a test imports Ray first.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")

import fcntl
import tempfile
from collections.abc import Iterator
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


@pytest.fixture
def own_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ray starts a cluster for this test alone, and no test in another process starts one meanwhile.

    Two clusters that start at once on two cores exceed Ray's time limits.
    """
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # the other tests would leave its workers no time
    with (Path(tempfile.gettempdir()) / "crossray-tests-ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)
