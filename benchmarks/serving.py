"""Load on `crossray serve` over the loopback: latency and throughput of several clients, beside `crossray generate`.

Each client sends the next study when it has the answer to the last. "generate" writes the reports of the same files in
this process, with the model loaded already; "share" is the service's throughput in relation to it.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image

from common import parser, report
from crossray.api import load
from crossray.phantom.source import phantom_studies


def drawn_files(folder: Path, studies: int, size: int) -> list[list[Path]]:
    """PNG files of drawn studies."""
    listed = []
    for study in phantom_studies(studies, 7, "easy"):
        paths = []
        for number, image in enumerate(study.images):
            paths.append(folder / f"{study.id}-{number}.png")
            Image.fromarray(np.asarray(image.read(size).pixels)).save(paths[-1])
        listed.append(paths)
    return listed


def start(model: str, folder: Path, threads: int, options: Sequence[str]) -> tuple[subprocess.Popen[str], str]:
    """A service in a process of its own, and its address."""
    command = [sys.executable, "-m", "crossray", "serve", "--model", f"a={model}", "--port", "0", *options]
    command += ["--store", f"sqlite:///{folder / 'journal.db'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    for line in process.stderr:
        if "Uvicorn running on" in line:
            address = line.split("Uvicorn running on ")[1].split()[0]
            ThreadPoolExecutor(1).submit(process.stderr.read)  # nobody reads it, and the pipe must not fill
            return process, address
    raise SystemExit("the service did not start")


def load_test(address: str, bodies: Sequence[list[bytes]], clients: int, requests: int) -> dict[str, Any]:
    """Latencies and throughput of so many clients that send so many requests together."""
    seconds: list[float] = []
    left = iter(range(requests))

    def client() -> None:
        with httpx.Client(timeout=120) as session:
            for number in left:
                files = [("images", ("x", body, "image/png")) for body in bodies[number % len(bodies)]]
                begun = time.perf_counter()
                answer = session.post(f"{address}/v1/reports", files=files)
                seconds.append(time.perf_counter() - begun)
                answer.raise_for_status()

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(client) for _ in range(clients)]:
            done.result()
    whole = time.perf_counter() - started
    p50, p95, p99 = (1000 * float(value) for value in np.percentile(seconds, (50, 95, 99)))
    return {"clients": clients, "studies/s": requests / whole, "p50 ms": p50, "p95 ms": p95, "p99 ms": p99}


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--model", required=True, help="model folder, or the folder of a training run")
    options.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16], help="clients at the same time")
    options.add_argument("--requests", type=int, default=160, help="requests of each row")
    options.add_argument("--studies", type=int, default=32, help="different studies among them")
    options.add_argument("--size", type=int, default=512, help="short side of the drawn images, in pixels")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = drawn_files(folder, chosen.studies, chosen.size)
        bodies = [[path.read_bytes() for path in paths] for paths in files]
        repeated = [files[number % len(files)] for number in range(chosen.requests)]
        generator = load(chosen.model).generator
        generator.generate_files(files[:16], folder / "warm.jsonl")
        started = time.perf_counter()
        generator.generate_files(repeated, folder / "out.jsonl")
        alone = chosen.requests / (time.perf_counter() - started)
        process, address = start(chosen.model, folder, chosen.threads, [])
        try:
            load_test(address, bodies, 4, 16)
            for clients in chosen.clients:
                row = load_test(address, bodies, clients, chosen.requests)
                rows.append({**row, "share of generate": row["studies/s"] / alone})
        finally:
            process.terminate()
            process.wait(60)
    rows.append({"clients": "generate", "studies/s": alone, "share of generate": 1.0})
    report("Load on crossray serve", rows, json=chosen.json)


if __name__ == "__main__":
    main()
