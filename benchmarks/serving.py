"""Load on `crossray serve` over the loopback: latency and throughput of several clients, beside `crossray generate`.

Each client sends the next study when it has the answer to the last. "generate" writes the reports of the same files in
this process, in batches of 16 as the service does, with the model loaded already. A round measures generate, every
number of clients, and generate again; "share of generate" is a throughput in relation to the mean of the two, and every
cell is the median of the rounds. "CPU ms" is the processor time of a study, in the service with its decoders: other
work on the machine hardly moves it.

With `--alone`, one request at a time: each study is reported in this process, by a service without a batching window,
and by one with it, in turns. "least ms" is the fastest request of a round, which other work on the machine moves least;
"beyond the model" and "for the window" are its differences to the least of this process and of the service without a
window in the same round. Cells are medians of the rounds. With `--wait`, only the wait of a single study in the batcher
is measured, in front of a model that takes no time: from its arrival to the start of its batch.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import psutil
import torch
from PIL import Image

from common import parser, report
from crossray.api import Reporter, load
from crossray.generation.files import FileStudy
from crossray.phantom.source import phantom_studies
from crossray.serving.batcher import Batcher, Job


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


def requests_of(files: Sequence[list[Path]]) -> list[httpx.Request]:
    """One request a study, encoded beforehand: what a client computes is not what is measured."""
    made = []
    for paths in files:
        parts = [("images", ("x", path.read_bytes(), "image/png")) for path in paths]
        request = httpx.Request("POST", "http://localhost/v1/reports", files=parts)
        request.read()
        made.append(request)
    return made


def load_test(address: str, made: Sequence[httpx.Request], clients: int, requests: int) -> dict[str, Any]:
    """Latencies and throughput of so many clients that send so many requests together."""
    seconds: list[float] = []
    left = iter(range(requests))

    def client() -> None:
        with httpx.Client(timeout=600) as session:
            for number in left:
                one = made[number % len(made)]
                begun = time.perf_counter()
                answer = session.post(
                    f"{address}/v1/reports",
                    content=one.content,
                    headers={"Content-Type": one.headers["Content-Type"]},
                )
                seconds.append(time.perf_counter() - begun)
                answer.raise_for_status()

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        for done in [pool.submit(client) for _ in range(clients)]:
            done.result()
    whole = time.perf_counter() - started
    p50, p95, p99 = (1000 * float(value) for value in np.percentile(seconds, (50, 95, 99)))
    return {"studies/s": requests / whole, "p50 ms": p50, "p95 ms": p95, "p99 ms": p99}


def one_at_a_time(
    model: str, folder: Path, files: Sequence[list[Path]], threads: int, rounds: int
) -> list[dict[str, Any]]:
    """Rows of one request at a time: this process, and services without and with a window."""
    reporter, made = load(model), requests_of(files)
    windows = {"service, no window": 0.0, "service, window of 10 ms": 0.01}
    services = {}
    for name, window in windows.items():
        (folder / name).mkdir()
        services[name] = start(model, folder / name, threads, ["--window", str(window)])
    names = ["in process", *services]
    found: list[dict[str, list[float]]] = []
    try:
        with httpx.Client(timeout=600) as session:
            for number in range(rounds + 1):
                seconds: dict[str, list[float]] = {name: [] for name in names}
                for paths, one in zip(files, made, strict=True):
                    for name in names:
                        begun = time.perf_counter()
                        if name == "in process":
                            reporter.report(*paths)
                        else:
                            kind = {"Content-Type": one.headers["Content-Type"]}
                            address = f"{services[name][1]}/v1/reports"
                            session.post(address, content=one.content, headers=kind).raise_for_status()
                        seconds[name].append(1000 * (time.perf_counter() - begun))
                if number:  # the first round warms up
                    found.append(seconds)
                    print({name: min(values) for name, values in seconds.items()}, file=sys.stderr, flush=True)
    finally:
        for process, _ in services.values():
            process.terminate()
            process.wait(60)
    rows: list[dict[str, Any]] = []
    for name in names:
        row: dict[str, Any] = {"request": name, "p50 ms": statistics.median(x for one in found for x in one[name])}
        row["least ms"] = statistics.median(min(one[name]) for one in found)
        for title, other in (("beyond the model, ms", names[0]), ("for the window, ms", names[1])):
            if names.index(name) > names.index(other):
                differences = [min(one[name]) - min(one[other]) for one in found]
                row[title] = statistics.median(differences)
                row[f"{title}: range"] = f"{min(differences):.1f} to {max(differences):.1f}"
        rows.append(row)
    return rows


class _Instant:
    """A reporter that takes no time and notes when it is asked."""

    system = "instant"

    def __init__(self) -> None:
        self.asked = 0.0

    def write(self, studies: Sequence[Any], names: Sequence[str], **_: Any) -> list[None]:
        """Nothing, for each study."""
        self.asked = time.monotonic()
        return [None] * len(studies)


def waits(windows: Sequence[float], count: int) -> list[dict[str, Any]]:
    """Wait of single studies, one at a time, with each window in turns."""
    reporters = [_Instant() for _ in windows]
    batchers = [Batcher(cast(Reporter, one), 16, window) for one, window in zip(reporters, windows, strict=True)]
    milliseconds: list[list[float]] = [[] for _ in windows]
    for _ in range(count):
        for reporter, batcher, found in zip(reporters, batchers, milliseconds, strict=True):
            job = Job(FileStudy((), (), ()), "a")
            batcher.submit(job)
            job.future.result()
            found.append(1000 * (reporter.asked - job.since))
    for batcher in batchers:
        batcher.stop()
    rows = []
    for window, found in zip(windows, milliseconds, strict=True):
        least, median, most = (float(value) for value in np.percentile(found, (0, 50, 95)))
        rows.append({"window ms": 1000 * window, "least ms": least, "p50 ms": median, "p95 ms": most})
    return rows


def busy(process: psutil.Process) -> float:
    """Processor seconds of a process and its children."""
    return sum(sum(one.cpu_times()[:2]) for one in [process, *process.children(recursive=True)])


def medians(rounds: Sequence[dict[Any, dict[str, float]]]) -> list[dict[str, Any]]:
    """A row for each number of clients, and for generate."""
    return [
        {"clients": key, **{name: statistics.median(one[key][name] for one in rounds) for name in rounds[0][key]}}
        for key in rounds[0]
    ]


def main() -> None:
    options = parser(__doc__ or "")
    options.add_argument("--model", help="model folder, or the folder of a training run")
    options.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="clients at the same time")
    options.add_argument("--requests", type=int, default=160, help="requests of each row and round")
    options.add_argument("--rounds", type=int, default=3, help="of which the medians are taken")
    options.add_argument("--studies", type=int, default=32, help="different studies among them")
    options.add_argument("--size", type=int, default=512, help="short side of the drawn images, in pixels")
    options.add_argument("--alone", action="store_true", help="measure one request at a time and the batching window")
    options.add_argument("--wait", action="store_true", help="measure the wait of a single study in the batcher")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.wait:
        report("Wait of a single study", waits((0.0, 0.01, 0.05), chosen.requests), json=chosen.json)
        return
    if chosen.model is None:
        options.error("--model is missing")
    rounds: list[dict[Any, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = drawn_files(folder, chosen.studies, chosen.size)
        if chosen.alone:
            rows = one_at_a_time(chosen.model, folder, files, chosen.threads, chosen.rounds)
            report("One request at a time", rows, json=chosen.json)
            return
        made = requests_of(files)
        repeated = [files[number % len(files)] for number in range(chosen.requests)]
        generator, myself = load(chosen.model).generator, psutil.Process()
        generator.generate_files(files[:16], folder / "warm.jsonl")

        def generate() -> dict[str, float]:
            started, used = time.perf_counter(), busy(myself)
            generator.generate_files(repeated, folder / "out.jsonl", batch_size=16)
            whole = time.perf_counter() - started
            return {"studies/s": len(repeated) / whole, "CPU ms": 1000 * (busy(myself) - used) / len(repeated)}

        process, address = start(chosen.model, folder, chosen.threads, [])
        try:
            service = psutil.Process(process.pid)
            load_test(address, made, 4, 16)
            for _ in range(chosen.rounds):
                process.send_signal(signal.SIGSTOP)
                before = generate()
                process.send_signal(signal.SIGCONT)
                measured: dict[Any, dict[str, float]] = {}
                for clients in chosen.clients:
                    used = busy(service)
                    measured[clients] = load_test(address, made, clients, chosen.requests)
                    measured[clients]["CPU ms"] = 1000 * (busy(service) - used) / chosen.requests
                process.send_signal(signal.SIGSTOP)
                after = generate()
                process.send_signal(signal.SIGCONT)
                alone = {name: statistics.mean([before[name], after[name]]) for name in before}
                for row in measured.values():
                    row["share of generate"] = row["studies/s"] / alone["studies/s"]
                none = dict.fromkeys(("p50 ms", "p95 ms", "p99 ms"), float("nan"))
                rounds.append({**measured, "generate": {**alone, **none, "share of generate": 1.0}})
                print(f"round {len(rounds)}: {rounds[-1]}", file=sys.stderr, flush=True)
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(60)
    report("Load on crossray serve", medians(rounds), json=chosen.json)


if __name__ == "__main__":
    main()
