"""The memory of a run, as its progress and its log show it."""

import subprocess
import sys

import pytest

from crossray.training.device import peak_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is measured on Linux only")
def test_peak_memory_is_that_of_the_process_alone() -> None:
    """Half a gigabyte of this process counts here, and not in a process that it starts."""
    held = bytearray(500_000_000)
    held[::4096] = b"1" * len(held[::4096])
    here = peak_memory("cpu")
    assert here is not None
    assert 0.5 < here < 50
    code = "from crossray.training.device import peak_memory; print(peak_memory('cpu'))"
    small = float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    code = f"held = bytearray({len(held)}); held[::4096] = b'1' * len(held[::4096]); {code}"
    large = float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
    assert large - small == pytest.approx(0.5, abs=0.05)
