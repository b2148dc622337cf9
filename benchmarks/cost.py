"""Cost curves: processor seconds and peak memory of each step over ever more studies, and whether they grow in line.

    python benchmarks/cost.py [--sizes 1000 10000 100000] [--steps prepare label load features generate ...]

Studies are made up: reports of five sentences out of forty, and one drawn PNG of 512 x 420 pixels under all their
names, so that the source takes no disk. The model of `features` and `generate` is tiny (one layer of 16, 12 words),
so that their rows show what a study costs beside its network. Each row is a process of its own, because peak memory
is a process's. `seconds` are without its start and what makes its input; `own MB` is the peak above what the process
held before. `exponent` is the slope of seconds over studies between the two largest sizes, both logarithmic: 1 is
linear. `MB a 1,000` is how much more memory the process held for 1,000 more studies. `--figure` draws both. The last
columns are an estimate: the straight line through the two largest sizes, at MIMIC-CXR's 227,835 studies.
"""

import csv
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
from crossray.data.batches.features import build_features
from crossray.data.batches.loading import Collator, StudyLoader
from crossray.data.batches.sampler import StudySampler
from crossray.data.batches.transform import ImageTransform
from crossray.data.sources.r2gen import open_annotation, read_r2gen
from crossray.data.store import Dataset, write_dataset
from crossray.decoding.config import DecodingConfig
from crossray.evaluation.compare import compare
from crossray.evaluation.evaluate import evaluate
from crossray.evaluation.labelers import RuleLabeler
from crossray.evaluation.predictions import Prediction, Provenance, write_predictions
from crossray.generation.generator import Generator
from crossray.models.base import ReportModel
from crossray.models.parts.backbones import BackboneConfig
from crossray.models.registry import create_model
from crossray.retrieval.index import ReportIndex
from crossray.text.label_table import label_table
from crossray.text.observations import label_report
from crossray.text.tokenizer import Tokenizer

MIMIC = 227_835
STEPS = ("prepare", "label", "load", "features", "generate", "index", "query", "evaluate", "compare")
#: Steps of a dataset on disk.
PREPARED = ("load", "features", "generate")
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


def model(dataset: Dataset) -> ReportModel:
    """A tiny one with random weights."""
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(dataset.reports(dataset.rows("train")[:1000]), min_count=1)
    made = create_model(
        "baseline", vocabulary_size=tokenizer.vocabulary_size, max_length=12, layers=1, width=16, heads=2,
        feedforward=16, backbone=BackboneConfig(name="random:resnet_tiny", trainable=False),
    )  # fmt: skip
    assert isinstance(made, ReportModel)
    made.tokenizer, made.transform = tokenizer, ImageTransform(size=64, resize=72)
    return made.eval()


def table(path: Path, count: int) -> Path:
    """The reports as a CSV file."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("study_id", "report"), *((f"s{n}", text) for n, text in enumerate(reports(count)))]
        )
    return path


def task(step: str, folder: Path, count: int, data: Path) -> Callable[[], Any]:
    """What is timed; its input is made here, but for the dataset `data`."""
    if step == "prepare":
        source = annotation(folder, count)
        return lambda: write_dataset(
            folder / "data", read_r2gen(open_annotation(source), folder), size=160, source={"name": "cost"}, workers=0
        )
    if step == "label":
        rules, source = RuleLabeler(), table(folder / "reports.csv", count)
        return lambda: label_table(source, folder / "out.csv", rules, lambda text: label_report(text).evidence, None)
    if step in PREPARED:
        dataset = Dataset.open(data)
        made = model(dataset)
        transform = made.transform
        assert transform is not None
        if step == "features":
            return lambda: build_features(dataset, made.prepare_features, transform, folder.name)
        if step == "generate":
            generator = Generator(made, DecodingConfig(method="greedy", max_length=12), device="cpu")
            return lambda: generator.generate_dataset(dataset, "train", folder / "out.jsonl")

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


def measure(step: str, count: int, data: Path) -> dict[str, Any]:
    """One row."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run = task(step, Path(folder), count, data)
        before, started = peak_memory_mb(), time.process_time()
        run()
        seconds, peak = time.process_time() - started, peak_memory_mb()
    return {"step": step, "studies": count, "seconds": seconds, "peak MB": peak, "own MB": peak - before}


def judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with exponent, growth of memory, and the estimate for MIMIC-CXR in the last of each step."""
    for step in dict.fromkeys(row["step"] for row in rows):
        own = [row for row in rows if row["step"] == step]
        if len(own) < 2:
            continue
        first, before, last = own[0], own[-2], own[-1]
        last["exponent"] = math.log(last["seconds"] / before["seconds"]) / math.log(last["studies"] / before["studies"])
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
    options.add_argument("--sizes", nargs="+", type=int, default=[1000, 10000, 100_000], help="studies")
    options.add_argument("--steps", nargs="+", default=list(STEPS), choices=STEPS, help="what is measured")
    options.add_argument("--figure", type=Path, help="SVG file to draw")
    options.add_argument("--rows", type=Path, help="file of measured rows; those in it are not measured again")
    options.add_argument("--one", nargs=3, metavar=("STEP", "STUDIES", "DATA"), help="measure one row and print it")
    options.add_argument("--make", nargs=2, metavar=("FOLDER", "STUDIES"), help="only prepare so many studies there")
    given = options.parse_args()
    if given.make:
        prepared(Path(given.make[0]), int(given.make[1]))
        return
    if given.one:
        print(json.dumps(measure(given.one[0], int(given.one[1]), Path(given.one[2]))))
        return
    text = given.rows.read_text() if given.rows and given.rows.exists() else ""
    rows = [json.loads(line) for line in text.splitlines()]
    for size in sorted(given.sizes):
        wanted = [step for step in given.steps if all((row["step"], row["studies"]) != (step, size) for row in rows)]
        with tempfile.TemporaryDirectory() as folder:
            if set(wanted) & set(PREPARED):
                _child("--make", folder, str(size))
            for step in wanted:
                rows.append(json.loads(_child("--one", step, str(size), f"{folder}/data").splitlines()[-1]))
                print(rows[-1], file=sys.stderr, flush=True)
                if given.rows:
                    given.rows.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [row for step in STEPS for row in rows if row["step"] == step]
    if given.figure:
        figure(rows, given.figure)
    report("cost curves", judged(rows), json=given.json)


def _child(*arguments: str) -> str:
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
