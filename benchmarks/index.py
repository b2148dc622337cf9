"""Exact retrieval among as many entries as MIMIC-CXR has training reports: seconds a search and peak memory.

Entries are synthetic points where the hyperbolic network puts them, close to the boundary of the ball: a few thousand
centers with many near-copies each, which is the hard case for a search in single precision. Every metric is measured in
a process of its own, because peak memory is a process's; the search is warm, the index is built before. `processor_s`
is the processor's time of one search over all threads, which a busy machine changes less.
"""

import json
import subprocess
import sys
import time
from typing import Any

import torch
from torch import Tensor

from common import median_seconds, parser, peak_memory_mb, report
from crossray.retrieval.index import ReportIndex

CURVATURE = 0.01


def make_points(count: int, width: int, seed: int) -> Tensor:
    """Points (count, width) of the ball: 4,096 centers in one quadrant, noise of 0.1 to 10 % around them."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4096, width, generator=generator).relu_()
    generator.manual_seed(seed)
    points = torch.empty(count, width)
    for part in torch.split(points, 16384):
        chosen = torch.randint(4096, (len(part),), generator=generator)
        spread = 10 ** (-3 + 2 * torch.rand(len(part), 1, generator=generator))
        torch.add(centres[chosen], spread * torch.randn(part.shape, generator=generator), out=part)
        radius = (0.9 + 0.096 * torch.rand(len(part), 1, generator=generator)) / CURVATURE**0.5
        part.mul_(radius / part.norm(dim=1, keepdim=True))
    return points


def measure(metric: Any, options: Any) -> dict[str, Any]:
    """One line of the table; the first queries are compared with a dense search in float64."""
    torch.set_num_threads(options.threads)
    points = make_points(options.entries, options.width, seed=1)
    start = time.perf_counter()
    index = ReportIndex(points, metric=metric, curvature=CURVATURE)
    built = time.perf_counter() - start
    queries = make_points(options.queries, options.width, seed=2)
    seconds = median_seconds(lambda: index.search(queries, options.neighbours), at_least=2.0, repeats=5)
    used = time.process_time()
    index.search(queries, options.neighbours)
    used = time.process_time() - used
    memory = peak_memory_mb()
    distances, rows = index.search(queries, options.neighbours)
    everything = torch.arange(len(index))
    dense = index._distances(queries, torch.zeros_like(everything), everything)
    nearest, order = dense.sort(stable=True)
    exact = torch.equal(rows[0], order[: options.neighbours]) and torch.equal(
        distances[0], nearest[: options.neighbours]
    )
    lowest = index._lower_bounds(queries)
    farthest = index._score(distances[:, -1]).float()
    return {
        "metric": metric,
        "build_s": round(built, 2),
        "search_s": round(seconds, 3),
        "processor_s": round(used, 3),
        "peak_gb": round(memory / 1000, 2),
        "shortlist": round(float((lowest <= farthest[:, None]).sum(1).float().mean()), 1),
        "equals float64": "yes" if exact else "NO",
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--entries", type=int, default=270_790, help="entries, as MIMIC-CXR's training reports")
    options.add_argument("--width", type=int, default=512, help="channels of a vector")
    options.add_argument("--queries", type=int, default=16, help="queries of one search")
    options.add_argument("--neighbours", type=int, default=1, help="neighbors of each query")
    options.add_argument("--metrics", nargs="+", default=["hyperbolic", "euclidean", "cosine"])
    options.add_argument("--one", action="store_true", help="measure the first metric in this process")
    given = options.parse_args()
    if given.one:
        print(json.dumps(measure(given.metrics[0], given)))
        return
    torch.set_num_threads(given.threads)
    rows = []
    for metric in given.metrics:
        command = [sys.executable, __file__, "--one", "--metrics", metric]
        for name in ("entries", "width", "queries", "neighbours", "threads"):
            command += [f"--{name}", str(getattr(given, name))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    title = f"{given.queries} queries in {given.entries:,} x {given.width}, {given.neighbours} neighbors each"
    report(title, rows, json=given.json)


if __name__ == "__main__":
    main()
