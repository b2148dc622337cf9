"""What every benchmark shares: the machine's description, its measured peak rates, and one way to print results.

Each script of this folder prints one table, and with `--json` one line that a program can read. Both carry the machine,
the threads, the versions, the commit and the rates measured in the same run, because a time means nothing without them.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import crossray


def parser(description: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have: `--json` and `--threads`."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    result.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    result.add_argument("--threads", type=int, default=_cores(), help="threads that PyTorch may compute with")
    return result


def machine() -> dict[str, Any]:
    """Processor, cores, threads in use, memory, versions and git commit of this run."""
    return {
        "processor": _processor(),
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_1min": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "crossray": crossray.__version__,
        "commit": _commit(),
    }


def gemm_rate(dtype: torch.dtype | str = torch.float32, threads: int | None = None, size: int = 1024) -> float:
    """Rate of a product of two (size, size) matrices in GFLOP/s: the median of repeated runs of about half a second.

    Args:
        dtype: element type, as `torch.bfloat16` or `"bfloat16"`.
        threads: threads for this measurement; those in use when None.
        size: rows and columns of both matrices.
    """
    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        left, right = torch.randn(size, size).to(kind), torch.randn(size, size).to(kind)
        seconds = median_seconds(lambda: torch.mm(left, right), at_least=0.5)
    finally:
        torch.set_num_threads(before)
    return 2 * size**3 / seconds / 1e9


def copy_rate(megabytes: int = 256) -> float:
    """Rate of a memory copy in GB/s, bytes read plus bytes written, with the threads in use."""
    source = torch.ones(megabytes * 250_000, dtype=torch.float32)
    target = torch.empty_like(source)
    seconds = median_seconds(lambda: target.copy_(source), at_least=0.5)
    return 2 * source.numel() * 4 / seconds / 1e9


def median_seconds(run: Callable[[], Any], *, at_least: float = 1.0, repeats: int = 3) -> float:
    """Median time of a call, after one call to warm up; repeated until both limits are met."""
    run()
    times: list[float] = []
    while len(times) < repeats or sum(times) < at_least:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def rates(threads: int | None = None) -> dict[str, float]:
    """The measured peaks that a benchmark prints beside its times."""
    return {
        "gemm_float32_gflops": round(gemm_rate(torch.float32, threads), 1),
        "gemm_bfloat16_gflops": round(gemm_rate(torch.bfloat16, threads), 1),
        "copy_gb_per_s": round(copy_rate(), 1),
    }


def peak_memory_mb() -> float:
    """Highest resident memory of this process so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def report(title: str, rows: Sequence[Mapping[str, Any]], *, json: bool) -> None:
    """Print results with the machine and its measured rates.

    Args:
        title: what was measured.
        rows: one mapping a line of the table, column name to value; a column missing in a row stays empty.
        json: one line of JSON instead of a table.
    """
    described, measured = machine(), rates()
    if json:
        print(_line({"benchmark": title, "machine": described, "rates": measured, "rows": list(rows)}))
        return
    table = Table(title=title, title_justify="left")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    for name in columns:
        table.add_column(
            name, justify="right" if any(isinstance(row.get(name), int | float) for row in rows) else "left"
        )
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in columns))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
    console.print("measured here: " + ", ".join(f"{name} {value}" for name, value in measured.items()), highlight=False)
    console.print("machine: " + ", ".join(f"{name} {value}" for name, value in described.items()), highlight=False)


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, default=float)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _commit() -> str:
    """Short hash of the checked-out commit, with "+" where the tree was changed; "unknown" outside a repository."""
    root = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return described.stdout.strip()
