"""Table 2: the papers' ablations, each row's effect beside the published one."""

import dataclasses
import json
from pathlib import Path

from crossray.ablation.comparison import PREDICTIONS, SCORES, ComparedRow, Comparison, read_comparison, run_folder
from crossray.ablation.rows import ablations, find_ablation
from crossray.evaluation import published
from crossray.evaluation.compare import compare
from crossray.evaluation.results import Evaluation
from crossray.training.recipe import load
from formats import SPLITS, grid, narrow, over_seeds
from steps import Bench, crossray

#: Metric -> its heading. The effects are tested in these two.
_TESTED = {"bleu4": "BLEU-4", "cider": "CIDEr-D"}

_ABOUT = (
    "Each row changes what its name says. Δ is its difference from the row in bold, first seed, with the paired 95% "
    "bootstrap interval over the studies; *published* is the same difference in the paper's table. *Effect* compares "
    "the two in CIDEr-D, or in BLEU-4 where the paper has no CIDEr: **yes** or **no** when our interval excludes 0, "
    "*same sign* or *other sign* when it does not. The interval includes the drawing of the reports, but not the "
    "training: another seed can change a row as much as its module does. Image gain needs no drawing. The stages that "
    "learn from rewards are left out, because no paper has them."
)


def table(bench: Bench) -> str:
    """Train every row of the laptop recipes' tables, then write the effects."""
    pages = [f"# Ablations ({SPLITS[bench.split]})\n", _ABOUT + "\n"]
    for system in bench.systems:
        name = f"{system}/{bench.recipe}"
        for label in ablations(name):
            out = bench.runs / f"ablation-{system}"
            if not bench.finished_only:
                crossray(
                    "ablate", name, "--data", bench.data, "--out", out, "--table", label, "--split", bench.split,
                    "--meteor", "no", "--seeds", *bench.seeds, "--stages", json.dumps(_stages(name, bench.share)),
                )  # fmt: skip
            pages.append(_written(bench, name, label, out / label))
    return "\n".join(pages)


def _stages(name: str, share: float) -> list[dict[str, object]]:
    """The stages of a recipe that do not learn from rewards, each with a share of its epochs."""
    stages = [dataclasses.asdict(stage) for stage in load(name).stages if stage.objective != "reward"]
    return [{**stage, "epochs": max(1, round(share * stage["epochs"]))} for stage in stages]


def _written(bench: Bench, name: str, label: str, folder: Path) -> str:
    comparison = read_comparison(folder)
    unchanged = [row.name for row in find_ablation(name, label).rows if not row.overrides]
    reference = next(row for row in comparison.rows if row.name in ("base", "baseline", unchanged[-1]))
    done = [row for row in comparison.rows if _finished(bench, folder, row)]
    rows = [_row(bench, folder, row, reference, comparison) for row in done]
    headings = [
        "row", "BLEU-4", "Δ", "published", "CIDEr-D", "Δ", "published", "effect", "CIDEr-D minus shuffled", "macro F1",
        "image gain",
    ]  # fmt: skip
    epochs = "+".join(str(stage["epochs"]) for stage in _stages(name, bench.share))
    about = f"`{name}`, {epochs} epochs, seeds {' '.join(map(str, bench.seeds))}."
    if missing := [row.name for row in comparison.rows if row not in done]:
        about += f" Not trained: {', '.join(missing)}."
    table = narrow(grid(headings, rows, words=("effect",)), 7)
    return f"## {comparison.title}: {name.split('/')[0]}\n\n{about}\n\n{table}"


def _finished(bench: Bench, folder: Path, row: ComparedRow) -> bool:
    return all((run_folder(folder, row.folder, seed) / SCORES).exists() for seed in bench.seeds)


def _row(bench: Bench, folder: Path, row: ComparedRow, reference: ComparedRow, comparison: Comparison) -> list[str]:
    runs = [run_folder(folder, row.folder, seed) for seed in bench.seeds]
    parts = [Evaluation.load(run / SCORES).protocols["r2gen"] for run in runs]
    scores = {name: [part.result.scores[name].value for part in parts] for name in (*_TESTED, "ce_macro_f1")}
    texts: dict[str, list[str]] = {}
    effect = ""
    tests = None
    if row != reference:
        files = [run_folder(folder, each.folder, bench.seeds[0]) / PREDICTIONS for each in (row, reference)]
        pairs = compare(files, metrics=list(_TESTED), meteor="no", labeler=None).protocols["r2gen"].pairs
        tests = pairs[0].tests
    for name in _TESTED:
        theirs = _published(comparison, row, reference, name)
        texts[name] = [over_seeds(scores[name]), "", "" if theirs is None else f"{theirs:+.3f}"]
        if tests is not None:
            found = tests[name].difference
            texts[name][1] = f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
            if theirs is not None:  # CIDEr-D, which comes second, decides where both are published
                same = (found.value > 0) == (theirs > 0)
                beyond = found.low > 0 or found.high < 0
                effect = ("**yes**" if same else "**no**") if beyond else ("same sign" if same else "other sign")
    shuffles = [part.shuffle.differences["cider"].value for part in parts if part.shuffle is not None]
    gains = [json.loads((run / "best" / "provenance.json").read_text())["validation"]["image_gain"] for run in runs]
    return [
        f"**{row.name}**" if row == reference else row.name, *texts["bleu4"], *texts["cider"], effect,
        over_seeds(shuffles), over_seeds(scores["ce_macro_f1"]), over_seeds(gains),
    ]  # fmt: skip


def _published(comparison: Comparison, row: ComparedRow, reference: ComparedRow, name: str) -> float | None:
    """The published difference of a row from the reference row."""
    if comparison.published is None or row == reference or None in (row.published, reference.published):
        return None
    values = {each.name: each.values for each in published.table(comparison.published).rows}
    ours, theirs = values[str(row.published)].get(name), values[str(reference.published)].get(name)
    return None if ours is None or theirs is None else ours - theirs
