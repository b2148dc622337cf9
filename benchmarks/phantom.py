"""How fast radiographs are drawn, masks included, without writing them to disk.

python benchmarks/phantom.py [--json] [--studies 100] [--size 256]
"""

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, Literal, get_args

from common import parser, report
from crossray.phantom.draw import draw
from crossray.phantom.sample import sample_scene

Severity = Literal["easy", "realistic"]


def seconds_of(index: int, size: int, severity: Severity) -> list[float]:
    """CPU seconds of both views of a study."""
    scene = sample_scene(0, index, severity)
    spent = []
    for view in ("frontal", "lateral"):
        start = time.process_time()
        draw(scene, view, size)
        spent.append(time.process_time() - start)
    return spent


def measure(studies: int, size: int, severity: Severity, workers: int) -> dict[str, Any]:
    """Images a second of `workers` processes, and CPU milliseconds an image."""
    one = partial(seconds_of, size=size, severity=severity)
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(one, range(4 * workers)))  # warms up
        start = time.perf_counter()
        spent = list(pool.map(one, range(studies), chunksize=4))
        wall = time.perf_counter() - start
    frontal, lateral = (1000 * statistics.median(views) for views in zip(*spent, strict=True))
    return {
        "severity": severity, "size": size, "studies": studies, "workers": workers, "images/s": 2 * studies / wall,
        "frontal CPU ms": frontal, "lateral CPU ms": lateral,
    }  # fmt: skip


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--studies", type=int, default=100, help="studies of two views")
    options.add_argument("--size", type=int, default=256, help="short side in pixels")
    options.add_argument("--workers", type=int, default=2, help="processes that draw")
    given = options.parse_args()
    rows = [measure(given.studies, given.size, severity, given.workers) for severity in get_args(Severity)]
    report("drawing radiographs", rows, json=given.json)


if __name__ == "__main__":
    main()
