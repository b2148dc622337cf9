"""The generated tables of docs/speed.md: each row with its ceiling and the share of it that is reached.

    make speed                                  # python benchmarks/speed.py; SPEED="--quick" for two systems

* `decoding`: beam 3, 16 studies, 60 forced words, the sizes of `decoding.py`, in float32 and, in turns, in bf16. The
  ceiling is a roofline: what a step must read (weights, keys and values) at the measured copy rate, or what it must
  multiply at the measured GEMM rate, whichever takes longer
* `sampling`: 24 reports of each of 16 studies, the same sizes; what minimum Bayes risk and the reward stage do
* `training`: a step of the laptop recipes over cached features, in bfloat16 if the machine computes in it. The ceiling
  is the GEMM rate

Processor seconds of all threads are divided by the threads: on a quiet machine the time that passes, on a busy
one nearly the same number. GEMM and copy rate are measured in turns with what they are the ceiling of. Each row is
measured in a process of its own and kept in `--rows`, so that a run that was stopped continues; delete the file to
measure anew.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from common import machine, parser
from crossray.decoding.sampling import sample
from crossray.decoding.search import DecodingConfig, generate
from crossray.layers.packed import computes_bf16, packable
from crossray.models.base import ReportModel, system_class
from crossray.models.parts.backbones import BackboneConfig
from crossray.models.pretraining.knowledge_encoder import KnowledgeEncoderConfig
from crossray.models.registry import create_model, list_models
from crossray.models.revtaf import REVTAF
from crossray.text.observations import OBSERVATIONS
from crossray.training import recipe as recipes
from crossray.training.optimizers import build_optimizer
from decoding import IDS, TOKENS, build, images
from revtaf_step import database, make_batch

ROOT = Path(__file__).parents[1]
PAGE, BEGIN, END = ROOT / "docs" / "speed.md", "<!-- make speed: begin -->", "<!-- make speed: end -->"
STUDIES, BEAMS, STEPS, SAMPLES = 16, 3, 60, 24
#: Tokens of a view of 160 px, and channels of the laptop recipes' encoder, EfficientNet-Lite0.
LAPTOP_TOKENS, LAPTOP_CHANNELS = 25, 1280
#: Side of the matrices of the GEMM rate.
SIDE = 1024


def seconds_of(run: Callable[[], Any]) -> float:
    """Processor seconds a thread."""
    started = time.process_time()
    run()
    return (time.process_time() - started) / torch.get_num_threads()


def in_turns(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each, measured in turns after one turn to warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            taken = seconds_of(run)
            if turn:
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


def ceilings(dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """What measures the machine: products of PyTorch and, where it is faster, of oneDNN; a copy."""
    left, right = torch.randn(SIDE, SIDE).to(dtype), torch.randn(SIDE, SIDE).to(dtype)
    source = torch.ones(32_000_000)
    target = torch.empty_like(source)
    found: dict[str, Callable[[], Any]] = {
        "gemm": lambda: torch.mm(left, right),
        "copy": lambda: target.copy_(source),
    }
    if packable(dtype):
        packed = torch.ops.mkldnn._reorder_linear_weight(right, SIDE)
        found["packed"] = lambda: torch.ops.mkldnn._linear_pointwise(left, packed, None, "none", [], "")
    return found


def rates_of(seconds: dict[str, float]) -> dict[str, float]:
    """GFLOP/s of the faster product, and GB/s of the copy, bytes read and written."""
    product = min(seconds["gemm"], seconds.get("packed", seconds["gemm"]))
    return {
        "torch.mm GFLOP/s": 2 * SIDE**3 / seconds["gemm"] / 1e9,
        "GEMM GFLOP/s": 2 * SIDE**3 / product / 1e9,
        "copy GB/s": 2 * 4 * 32_000_000 / seconds["copy"] / 1e9,
    }


def roofline(model: ReportModel, rows: int) -> tuple[float, float]:
    """Multiply-adds x 2, and bytes that must be read, of all steps of a search with `rows` hypotheses in all.

    Of the keys and values of the text each row reads its own; of the image's and of a memory's all rows of a study, or
    all rows, read the same. What lies in a processor's cache counts as read all the same.
    """
    maps = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and name.startswith(("decoder.", "vocabulary", "memory.query", "memory.output"))
        and not name.endswith("cross.project")
    ]
    weights = sum(module.weight.numel() for module in maps)
    layers, width = len(model.decoder.layers), model.config.width  # type: ignore[attr-defined, union-attr, arg-type]
    attended = sum(TOKENS + place + 1 for place in range(STEPS)) * width * layers
    operations = 2.0 * STEPS * rows * weights + 4.0 * rows * attended
    numbers = STEPS * (weights + 2 * STUDIES * TOKENS * width * layers)
    numbers += 2 * rows * width * layers * STEPS * (STEPS + 1) // 2
    slots = getattr(model.config, "memory_slots", 0)
    if slots:
        operations += STEPS * rows * 2.0 * slots * width
        numbers += STEPS * slots * width
    return operations, 4.0 * numbers


def decoding(system: str, repeats: int, samples: int = 0) -> dict[str, Any]:
    """One row of the decoding or sampling table."""
    model, encoded = build(system, torch.float32), images(STUDIES, torch.float32)
    forced = DecodingConfig(beam=BEAMS, max_length=STEPS, force_length=True)

    def run(config: DecodingConfig = forced) -> None:
        if samples:
            with torch.inference_mode():
                sample(model, encoded, IDS, config, samples, range(STUDIES))
        else:
            generate(model, encoded, IDS, config)

    rounded = {"bf16": partial(run, replace(forced, bf16=True))} if computes_bf16("cpu") else {}
    seconds = in_turns({"search": run, **rounded, **ceilings(torch.float32)}, repeats)
    row: dict[str, Any] = {"ms a study": 1e3 * seconds["search"] / STUDIES}
    if samples:
        row["ms a report"] = row["ms a study"] / samples
    row |= rates_of(seconds)
    if system in ("baseline", "cmn"):
        operations, read = roofline(model, STUDIES * (samples or BEAMS))
        limits = {"products": operations / row["GEMM GFLOP/s"] / 1e9, "memory": read / row["copy GB/s"] / 1e9}
        bound = max(limits, key=lambda name: limits[name])
        row |= {"ceiling ms": 1e3 * limits[bound] / STUDIES, "bound by": bound}
        row["share of ceiling"] = limits[bound] / seconds["search"]
        row["share of torch.mm"] = operations / seconds["search"] / 1e9 / row["torch.mm GFLOP/s"]
    if rounded:
        row["bf16, times as long"] = seconds["bf16"] / seconds["search"]
    return row


def training(system: str, repeats: int, variant: str = "") -> dict[str, Any]:
    """One row of the training table: a step as `TrainingModule` does it, with the laptop recipe's optimizer.

    variant: what is measured in turns with it: "compile", the step behind `torch.compile`, or "precision", the step in
        the precision that a training does not use here.
    """
    torch.manual_seed(0)
    usual, other = torch.float32, torch.bfloat16
    if computes_bf16("cpu"):
        usual, other = other, usual
    recipe = recipes.load(f"{system}/iu_xray-laptop", {"model.backbone.name": "random:resnet_tiny"})
    values = dict(recipes.to_dict(recipe)["model"]) | {"backbone": None}
    if "image_size" in {field.name for field in fields(system_class(system).config_class)}:
        values["image_size"] = 160
    if "knowledge" in values:
        values["knowledge"] = KnowledgeEncoderConfig(name="random:tiny")
    known: dict[str, Any] = {"vocabulary_size": 1000, "observations": OBSERVATIONS, "max_length": STEPS}
    known["backbone"] = BackboneConfig(name="lite:efficientnet-lite0", trainable=False, standardize=False)
    model: Any = create_model(system, **{**values, **known}).train()
    if isinstance(model, REVTAF):
        model.database = database(model)
    batch = make_batch(model, STUDIES, STEPS, LAPTOP_TOKENS, LAPTOP_CHANNELS, size=0)
    optimizer = build_optimizer(model, recipe.optimizer, recipe.stages[0].learning_rates)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    weights = {**model.loss_weights, **recipe.stages[0].loss_weights}

    def step(losses_of: Callable[..., dict[str, Tensor]] = model.losses, dtype: torch.dtype = usual) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            losses = losses_of(batch)
        total = sum(weights[name] * loss for name, loss in losses.items())
        total.backward()  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(trained, recipe.trainer.clip_norm or 1.0)
        optimizer.step()
        optimizer.zero_grad()

    with FlopCounterMode(display=False) as counter:
        step()
    steps: dict[str, Callable[[], Any]] = {"step": step}
    if variant == "compile":
        steps["compiled"] = partial(step, torch.compile(model.losses))
    elif variant == "precision":
        steps[str(other)] = partial(step, dtype=other)
    seconds = in_turns({**steps, **ceilings(usual)}, repeats)
    measured = rates_of(seconds)
    rate = counter.get_total_flops() / seconds["step"] / 1e9
    return {
        "ms a step": 1e3 * seconds["step"], "GFLOP": counter.get_total_flops() / 1e9,
        "ceiling ms": counter.get_total_flops() / measured["GEMM GFLOP/s"] / 1e6, **measured,
        "share of ceiling": rate / measured["GEMM GFLOP/s"],
        **({f"{name}, times as long": seconds[name] / seconds["step"] for name in steps if name != "step"}),
    }  # fmt: skip


def measure(table: str, system: str, threads: int, repeats: int) -> dict[str, Any]:
    """The row of that table, system and number of threads; "compile" and "precision" are on no page."""
    torch.set_num_threads(threads)
    if table in ("training", "compile", "precision"):
        row = training(system, repeats, variant=table.removeprefix("training"))
    else:
        row = decoding(system, repeats, SAMPLES * (table == "sampling"))
    return {"system": system, "threads": threads, **row}


def plan(quick: bool) -> list[tuple[str, str, int]]:
    """All rows: table, system, threads."""
    first = ["baseline", "cmn"]
    others = [] if quick else [name for name in list_models() if name not in first]
    threads = [1] if quick else [1, 2]
    systems = {"decoding": first, "training": [*first, *others], "sampling": first}
    return [(table, name, count) for count in threads for table, names in systems.items() for name in names]


def page(rows: dict[str, dict[str, Any]]) -> str:
    """The generated part of docs/speed.md."""
    described = machine()
    lines = [
        BEGIN,
        f"{described['processor']}, {described['cores']} cores, torch {described['torch']}. Processor time divided by "
        "the threads; every share is that of rates measured in the same process, in turns.",
    ]
    titles = {
        "decoding": f"### Beam {BEAMS}, {STUDIES} studies, {STEPS} forced words, float32",
        "sampling": f"### {SAMPLES} samples of each of {STUDIES} studies, {STEPS} forced words, float32",
        "training": f"### A step of the laptop recipes over cached features, {STUDIES} studies",
    }
    for table, title in titles.items():
        chosen = [row for key, row in rows.items() if key.startswith(f"{table} ")]
        if not chosen:
            continue
        for row in chosen:
            time_name = "ms a step" if table == "training" else "ms a study"
            same = [other for other in chosen if other["threads"] == row["threads"] and other["system"] == "baseline"]
            row["x baseline"] = row[time_name] / same[0][time_name] if same else None
        columns = list(dict.fromkeys(name for row in chosen for name in row))
        lines += ["", title, "", "| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
        lines += ["| " + " | ".join(_cell(row.get(name)) for name in columns) + " |" for row in chosen]
    return "\n".join([*lines, END])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:.3g}"
        if isinstance(value, float) and value < 100
        else f"{value:.0f}"
        if isinstance(value, float)
        else str(value)
    )


def main() -> None:
    """Measure what is missing, and rewrite the page."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="baseline and cmn with one thread, fewer repeats")
    options.add_argument("--rows", type=Path, default=ROOT / "runs" / "speed.json", help="where rows are kept")
    options.add_argument("--repeats", type=int, default=5, help="measured turns after the first")
    options.add_argument("--page", type=Path, default=PAGE, help="page whose generated part is rewritten")
    options.add_argument("--row", nargs=3, metavar=("TABLE", "SYSTEM", "THREADS"), help="measure one row and print it")
    given = options.parse_args()
    repeats = 2 if given.quick else given.repeats
    if given.row:
        print(json.dumps(measure(given.row[0], given.row[1], int(given.row[2]), given.repeats)))
        return
    rows: dict[str, dict[str, Any]] = json.loads(given.rows.read_text()) if given.rows.exists() else {}
    given.rows.parent.mkdir(parents=True, exist_ok=True)
    wanted = plan(given.quick)
    for number, (table, system, threads) in enumerate(wanted, 1):
        key = f"{table} {system} {threads}"
        if key in rows:
            continue
        print(f"[{number}/{len(wanted)}] {key}", file=sys.stderr)
        command = [sys.executable, __file__, "--repeats", str(repeats), "--row", table, system, str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        rows[key] = json.loads(done.stdout.splitlines()[-1])
        given.rows.write_text(json.dumps(rows, indent=1))
    ordered = {key: rows[key] for key in (" ".join(map(str, each)) for each in plan(quick=False)) if key in rows}
    text = given.page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    if not rest or END not in rest:
        sys.exit(f"{given.page}: it has no lines '{BEGIN}' and '{END}'; add them where the tables shall stand.")
    given.page.write_text(before + page(ordered) + after, encoding="utf-8")
    print(f"{given.page}: {len(ordered)} rows", file=sys.stderr)


if __name__ == "__main__":
    main()
