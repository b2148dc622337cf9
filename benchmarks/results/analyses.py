"""Tables 4 to 7: what `crossray analyze` prints for the runs behind table 1."""

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from crossray import cli
from crossray.pages.tables import Grid
from crossray.training.recipe import load
from formats import SPLITS, grid, narrow, over_seeds
from main_table import minutes
from steps import Bench, scored, trained

#: What the minutes of a training are spent on.
_PARTS = ("language loss", "rewards", "validations")
#: Systems whose images and reports share a space (`ReportModel.embeddings`).
_ALIGNED = ("coacl", "rcan", "uar", "union")
#: Systems that retrieve training reports.
_RETRIEVING = ("revtaf",)

#: What a reader of a page needs to know first.
_ABOUT = {
    "long-tail": "Observations are sorted by the number of true reports that call them positive: the first third is "
    "the head, the second the middle, the last the tail ([more](../evaluation.md#rare-observations)). Differences are "
    "on the same bootstrap resamples; the command also prints those of single observations.",
    "retrieval": "For each validation study, how far the labels of the retrieved training report differ from the true "
    "ones, and the CIDEr-D of that report. *labels* retrieves by the true labels and bounds what retrieval can reach "
    "([LRE](../models/revtaf.md)).",
    "alignment": "How well each system matches images with their own reports, and what its memory or basis looks "
    "like. [Alignment](../alignment.md) defines the scores; read the retrieval table first.",
}


_OFFICIAL = """\
The released code of the papers with the defaults of its `main_train.py` and batch 16 (ResNet-101 at 224 px, 512 \
wide, float32; two cores of another machine, measured once), beside ours at that size on [the machine of the speed \
page](../speed.md#training-step):

| | commit | seconds per training step | peak memory, GB |
| --- | --- | ---: | ---: |
| R2GenCMN, released | df4aac9 | 38.0 | 12.9 |
| COACL, released (its modules are not in the release) | 1b6deca | 15.3 | 6.4 |
| RCAN, released | ded0145 | 50.4 | 14.7 |
| `cmn` | | 11.6 | 6.8 |
| `baseline` | | 10.5 | 6.9 |

UAR has no released code, and that of REVTAF was not measured.
"""


def long_tail(bench: Bench) -> str:
    """Table 4: every observation from the most to the least frequent one."""
    files = []
    for system in bench.systems:
        for seed in bench.seeds:
            scored(bench, system, seed)
        files.append(",".join(str(bench.predictions(system, seed)) for seed in bench.seeds))
    return _page("Frequent and rare observations", bench, ["analyze", "long-tail", *files])


def retrieval(bench: Bench) -> str:
    """Table 5: quality of the retrieved training reports."""
    return _analysis("Retrieved reports", bench, "retrieval", _RETRIEVING, "retrieval.json")


def alignment(bench: Bench) -> str:
    """Table 6: how well images and reports are aligned."""
    return _analysis("Alignment of images and reports", bench, "alignment", _ALIGNED, "alignment")


def cost(bench: Bench) -> str:
    """Table 7: parameters, operations, seconds and memory of every system as it was trained here."""
    rows = []
    for system in bench.systems:
        runs = [trained(bench, system, seed) for seed in bench.seeds]
        spent = [_minutes(run) for run in runs]
        scores = [json.loads(scored(bench, system, seed).read_text(encoding="utf-8")) for seed in bench.seeds]
        frozen, learned = _parameters(runs[0])
        speed = _speed(system)
        rows.append(
            [
                system,
                f"{learned / 1e6:.2f}",
                f"{frozen / 1e6:.2f}",
                f"{speed['GFLOP']:.1f}",
                f"{speed['share of ceiling']:.2f}",
                over_seeds([minutes(bench, system, seed) for seed in bench.seeds], 0),
                *(over_seeds([parts[name] for parts in spent], 0) for name in _PARTS),
                over_seeds([most for run in runs if (most := _memory(run))], 1),
                over_seeds([1000 * score["seconds"] for score in scores if score["seconds"]], 0),
            ]
        )
    headings = [
        "system", "trained parameters, millions", "frozen", "GFLOP per step", "share of the GEMM rate",
        "training, minutes", *_PARTS, "peak memory, GB", "ms per report",
    ]  # fmt: skip
    about = (
        "Measured on the machine that made this page (two processor cores), with other work on it. A step has 16 "
        "studies and reads cached features. Its operations, and the share of the processor's GEMM rate that it "
        "reaches, are those of `python benchmarks/speed.py --row training SYSTEM 1`. Peak memory is empty where a "
        "training's log does not have it."
    )
    return f"# Training and generation cost\n\n{about}\n\n" + narrow(grid(headings, rows), 4) + "\n" + _OFFICIAL


def _speed(system: str) -> dict[str, float]:
    """The row of `benchmarks/speed.py` for a step of a system's laptop recipe."""
    script = Path(__file__).parents[1] / "speed.py"
    command = [sys.executable, str(script), "--repeats", "3", "--row", "training", system, "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _memory(run: Path) -> float | None:
    """Peak memory of a training in GB, if its log has it."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return max((row["memory_gb"] for row in rows if "memory_gb" in row), default=None)


def _analysis(title: str, bench: Bench, kind: str, systems: Sequence[str], out: str) -> str:
    chosen = [system for system in bench.systems if system in systems]
    if not chosen:
        return f"# {title}\n\nNone of {', '.join(bench.systems)} has this.\n"
    models = [part for system in chosen for part in ("--model", str(trained(bench, system, bench.seeds[0])))]
    options = ["--data", str(bench.data), "--split", bench.split, "--out", str(bench.runs / out)]
    return _page(title, bench, ["analyze", kind, *models, *options])


def _page(title: str, bench: Bench, command: list[str]) -> str:
    """The tables that a command prints."""
    shown: list[Grid] = []
    render = Grid.render

    def kept(table: Grid) -> Any:
        shown.append(table)
        return render(table)

    with mock.patch.object(Grid, "render", kept):
        _said(command)
    # the fourth table of long-tail, differences of single observations, is wider than a page
    tables = "\n".join(table.markdown() for table in shown[:3])
    return f"# {title} ({SPLITS[bench.split]})\n\n{_ABOUT[command[1]]}\n\n{tables}"


def _said(command: list[str]) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        cli.main(command)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue())


def _minutes(run: Path) -> dict[str, float]:
    """Minutes of the parts of a training, by its log: steps of both objectives, and validations.

    A validation begins after the steps that follow the last row of losses, which take as long as those before it.
    """
    found = dict.fromkeys(_PARTS, 0.0)
    rewarded = [stage.objective == "reward" for stage in load(str(run / "recipe.yaml")).stages]
    before: dict[str, float] = {"seconds": 0.0, "step": 0}
    pace = 0.0
    for row in map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()):
        seconds, steps = row["seconds"] - before["seconds"], row["step"] - before["step"]
        training = "rewards" if rewarded[row["stage"]] else "language loss"
        if row["split"] == "train":
            pace = seconds / max(1, steps)
        computing = seconds if row["split"] == "train" else min(seconds, pace * steps)
        found[training] += computing / 60
        found["validations"] += (seconds - computing) / 60
        before = row
    return found


def _parameters(run: Path) -> tuple[int, int]:
    """Parameters that training leaves alone, and that it learns."""
    from crossray.models.base import ReportModel

    model = ReportModel.from_pretrained(run / "best")
    still = set(model.frozen())
    counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
    frozen = sum(count for name, count in counts.items() if name in still)
    return frozen, sum(counts.values()) - frozen
