"""Cost curves: processor seconds and peak memory of each step over ever more studies, and whether they grow in line.

    python benchmarks/cost.py [--sizes 1000 3000 10000] [--steps prepare load index query evaluate compare]

Studies are made up: reports of five sentences out of forty, and one drawn PNG of 512 x 420 pixels under all their
names, so that 10,000 take no disk. Each row is a process of its own, because peak memory is a process's. `seconds` are
without its start and what makes its input. `exponent` is the slope of seconds over studies between the smallest and the
largest size, both logarithmic: 1 is linear. `MB a 1,000` is how much more memory the process held for 1,000 more
studies. `--figure` draws both. The last columns are an estimate: the straight line through the two largest sizes, at
MIMIC-CXR's 227,835 studies.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from common import parser, peak_memory_mb, report
from crossray.data.batches.loading import Collator, StudyLoader
from crossray.data.batches.sampler import StudySampler
from crossray.data.sources.r2gen import open_annotation, read_r2gen
from crossray.data.store import Dataset, write_dataset
from crossray.evaluation.compare import compare
from crossray.evaluation.evaluate import evaluate
from crossray.evaluation.predictions import Prediction, Provenance, write_predictions
from crossray.retrieval.index import ReportIndex
from crossray.text.tokenizer import Tokenizer

MIMIC = 227_835
PARTS = ("heart", "left lung", "right lung", "mediastinum", "aorta", "hilum", "spine", "pleura")
STATES = ("is normal", "is unchanged", "shows an opacity", "is enlarged", "shows no acute disease")


def reports(count: int, seed: int = 0) -> list[str]:
    """Five sentences each."""
    generator = np.random.default_rng(seed)
    chosen = generator.integers(0, [len(PARTS), len(STATES)], (count, 5, 2))
    return [" ".join(f"the {PARTS[a]} {STATES[b]} ." for a, b in rows) for rows in chosen]


def annotation(folder: Path, count: int) -> Path:
    """A collection in R2Gen's layout."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 20), dtype=np.uint8)
    Image.fromarray(noise).resize((420, 512)).save(folder / "image.png")
    rows = [
        {"id": f"s{n}", "report": text, "image_path": ["image.png"], "split": "train"}
        for n, text in enumerate(reports(count))
    ]
    (folder / "annotation.json").write_text(json.dumps({"train": rows, "val": [], "test": []}))
    return folder / "annotation.json"


def predictions(path: Path, count: int, seed: int) -> Path:
    """Predictions that are right in some sentences, with their references."""
    truth, other = reports(count), reports(count, seed)
    mixed = (" ".join([*a.split(" . ")[:3], *b.split(" . ")[3:]]) for a, b in zip(truth, other, strict=True))
    rows = (
        Prediction(f"s{n}", text, {"r2gen": true, "full": true})
        for n, (text, true) in enumerate(zip(mixed, truth, strict=True))
    )
    write_predictions(path, Provenance(section="findings"), rows)
    return path


def prepared(folder: Path, count: int) -> Dataset:
    """The collection as a dataset on disk."""
    studies = read_r2gen(open_annotation(annotation(folder, count)), folder)
    return write_dataset(folder / "data", studies, size=160, source={"name": "cost"}, workers=0)


def task(step: str, folder: Path, count: int) -> Callable[[], Any]:
    """What is timed; its input is made here."""
    if step == "prepare":
        source = annotation(folder, count)
        return lambda: write_dataset(
            folder / "data", read_r2gen(open_annotation(source), folder), size=160, source={"name": "cost"}, workers=0
        )
    if step == "load":
        subprocess.run([sys.executable, __file__, "--make", str(folder), str(count)], check=True)
        dataset = Dataset.open(folder / "data")

        def load() -> None:
            rows = dataset.rows("train")
            tokenizer = Tokenizer.train(dataset.reports(rows), min_count=1)
            for _ in StudyLoader(Collator(dataset, tokenizer), StudySampler(rows, 64), seed=0):
                pass

        return load
    if step in ("index", "query"):
        points = torch.randn(count, 128, generator=torch.Generator().manual_seed(0))
        if step == "index":
            return lambda: ReportIndex(points, metric="cosine")
        index, queries = ReportIndex(points, metric="cosine"), torch.randn(256, 128)
        return lambda: index.search(queries, 21)
    first = predictions(folder / "one.jsonl", count, 1)
    if step == "evaluate":
        return lambda: evaluate(first, meteor="no")
    second = predictions(folder / "two.jsonl", count, 2)
    return lambda: compare([first, second], meteor="no")


def measure(step: str, count: int) -> dict[str, Any]:
    """One row."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run = task(step, Path(folder), count)
        started = time.process_time()
        run()
        seconds = time.process_time() - started
    return {"step": step, "studies": count, "seconds": seconds, "peak MB": peak_memory_mb()}


def judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with exponent, growth of memory, and the estimate for MIMIC-CXR in the last of each step."""
    for step in dict.fromkeys(row["step"] for row in rows):
        own = [row for row in rows if row["step"] == step]
        if len(own) < 2:
            continue
        first, before, last = own[0], own[-2], own[-1]
        last["exponent"] = math.log(last["seconds"] / first["seconds"]) / math.log(last["studies"] / first["studies"])
        last["MB a 1,000"] = 1000 * (last["peak MB"] - first["peak MB"]) / (last["studies"] - first["studies"])
        slope = (last["seconds"] - before["seconds"]) / (last["studies"] - before["studies"])
        last["estimate: hours for MIMIC-CXR"] = (last["seconds"] + slope * (MIMIC - last["studies"])) / 3600
        last["estimate: GB"] = (last["peak MB"] + last["MB a 1,000"] * (MIMIC - last["studies"]) / 1000) / 1000
    return rows


def figure(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds and memory over studies, as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for step in dict.fromkeys(row["step"] for row in rows):
        own = [row for row in rows if row["step"] == step]
        for axis, name in zip(axes, ("seconds", "peak MB"), strict=True):
            axis.plot([row["studies"] for row in own], [row[name] for row in own], marker="o", label=step)
            axis.set(xscale="log", xlabel="studies", ylabel={"seconds": "processor seconds"}.get(name, name))
    sizes = sorted({row["studies"] for row in rows})
    for axis in axes:
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.minorticks_off()
    axes[0].set_yscale("log")
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    matplotlib.rcParams["svg.hashsalt"] = "cost"
    drawn.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure, print and draw."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--sizes", nargs="+", type=int, default=[1000, 3000, 10000], help="studies")
    steps = ["prepare", "load", "index", "query", "evaluate", "compare"]
    options.add_argument("--steps", nargs="+", default=steps, choices=steps, help="what is measured")
    options.add_argument("--figure", type=Path, help="SVG file to draw")
    options.add_argument("--one", nargs=2, metavar=("STEP", "STUDIES"), help="measure one row and print it")
    options.add_argument("--make", nargs=2, metavar=("FOLDER", "STUDIES"), help="only prepare so many studies there")
    given = options.parse_args()
    if given.make:
        prepared(Path(given.make[0]), int(given.make[1]))
        return
    if given.one:
        print(json.dumps(measure(given.one[0], int(given.one[1]))))
        return
    rows = []
    for step in given.steps:
        for size in sorted(given.sizes):
            command = [sys.executable, __file__, "--one", step, str(size)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], file=sys.stderr)
    if given.figure:
        figure(rows, given.figure)
    report("cost curves", judged(rows), json=given.json)


if __name__ == "__main__":
    main()
