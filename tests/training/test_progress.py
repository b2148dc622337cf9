"""The memory of a run, as its progress and its log show it."""

import sys
from pathlib import Path

import pytest

from crossray.training.device import peak_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is measured on Linux only")
def test_peak_memory_is_that_of_the_kernel() -> None:
    shown = peak_memory("cpu")
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    assert shown == pytest.approx(int(line.split()[1]) * 1024 / 1e9, abs=0.02)
