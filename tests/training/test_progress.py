"""The progress of a run in the terminal."""

import sys
from pathlib import Path

import pytest
import torch

from crossray.training.progress import peak_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is shown on Linux only")
def test_peak_memory_is_that_of_the_kernel() -> None:
    shown = float(peak_memory(torch.device("cpu")).removeprefix("  memory ").removesuffix(" GB"))
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    assert shown == pytest.approx(int(line.split()[1]) * 1024 / 1e9, abs=0.06)
