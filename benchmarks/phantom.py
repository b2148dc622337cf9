"""How fast radiographs are drawn, masks included. Prints one table; `--json` one line.

python benchmarks/phantom.py --studies 60 --size 256
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import PIL

from crossray.data.phantom.draw import draw
from crossray.data.phantom.sample import sample_scene

#: What two cores have to reach at 256 px, in images a second.
TARGET = 60


def _seconds(index: int, size: int, severity: str) -> list[float]:
    """CPU seconds of both views of a study."""
    scene = sample_scene(0, index, severity)
    spent = []
    for view in ("frontal", "lateral"):
        start = time.process_time()
        draw(scene, view, size)
        spent.append(time.process_time() - start)
    return spent


def copy_rate() -> float:
    """GB/s at which this machine copies memory now: how busy it is."""
    source = np.zeros(32 * 2**20, dtype=np.uint8)
    rates = []
    for _ in range(9):
        start = time.perf_counter()
        source.copy()
        rates.append(2 * source.nbytes / (time.perf_counter() - start) / 1e9)
    return statistics.median(rates)


def measure(studies: int, size: int, severity: str, workers: int) -> dict[str, float | int | str]:
    """Images a second of `workers` processes, and CPU milliseconds an image of one."""
    for index in range(3):
        _seconds(index, size, severity)
    one = [part for index in range(min(studies, 40)) for part in _seconds(index, size, severity)]
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(partial(_seconds, size=size, severity=severity), range(4 * workers)))
        start = time.perf_counter()
        list(pool.map(partial(_seconds, size=size, severity=severity), range(studies), chunksize=4))
        wall = time.perf_counter() - start
    return {
        "images_per_second": round(2 * studies / wall, 1),
        "target": TARGET,
        "cpu_ms_per_image": round(1000 * statistics.median(one), 1),
        "frontal_ms": round(1000 * statistics.median(one[::2]), 1),
        "lateral_ms": round(1000 * statistics.median(one[1::2]), 1),
        "copy_gb_per_second": round(copy_rate(), 1),
        "studies": studies,
        "size": size,
        "severity": severity,
        "workers": workers,
        "cores": os.cpu_count() or 0,
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--severity", choices=("easy", "realistic"), default="realistic")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one line")
    options = vars(parser.parse_args(arguments))
    as_json = options.pop("json")
    result = measure(**options)
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:24}{value!s:>16}")


if __name__ == "__main__":
    main()
