"""The progress of a run in the terminal."""

import sys

import pytest
import torch

from crossray.training.progress import peak_memory


def gigabytes(text: str) -> float:
    return float(text.removeprefix("  memory ").removesuffix(" GB"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is shown on Linux only")
def test_peak_memory_rises_and_stays() -> None:
    cpu = torch.device("cpu")
    before = gigabytes(peak_memory(cpu))
    block = torch.ones(2 * 10**8 + int(before * 2.5e8))  # float32: more than all of this process so far
    held = gigabytes(peak_memory(cpu))
    del block
    assert held > before
    assert gigabytes(peak_memory(cpu)) >= held
