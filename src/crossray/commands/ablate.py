"""`crossray ablate`: the ablation tables of a recipe, over several seeds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from crossray.errors import UserError
from crossray.pages.terminal import console

if TYPE_CHECKING:
    from crossray.ablation.runs import Run, Task


def ablate(
    recipe: str,
    data: Path | None = None,
    out: Path | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    table: str | None = None,
    rows: Sequence[str] | None = None,
    split: Literal["val", "test"] = "test",
    jobs: int | None = None,
    meteor: Literal["auto", "yes", "no"] = "auto",
    recipe_options: Sequence[str] = (),
) -> None:
    """Train every row of a recipe's ablation table with several seeds, score the runs, and render the table.

    After an interruption, repeat the command to continue. Given only the folder of an ablation instead of a recipe,
    the tables of its finished runs are rendered again. Every field of the recipe is also an option, for all rows
    (--trainer.max_epochs 3); `crossray train RECIPE --help` lists them.

    Args:
        recipe: a recipe's name (cmn/phantom) or YAML file; or the folder of an ablation.
        data: prepared dataset.
        out: output folder; the table and its runs are written to a subfolder named after the table.
        seeds: seeds of the runs of every row, such as --seeds 0 1 2; more can be added later.
        table: table of the recipe; required if it has several.
        rows: names of the rows to train; default: all.
        split: split to score; model selection always uses the validation split.
        jobs: number of parallel runs; default: one per GPU, or one.
        meteor: METEOR 1.5 needs Java and pycocoevalcap; auto computes it if both are installed.
        recipe_options: fields of the recipe to change in all rows, as in `crossray train`.
    """
    tables = sorted(path.parent for path in Path(recipe).glob("*/ablation.json"))
    if data is None and out is None and tables:
        for folder in tables:
            _render(folder)
        return
    from crossray.training.recipe import given_fields, list_recipes

    if data is None and out is None and recipe not in list_recipes() and not Path(recipe).exists():
        raise UserError(f"'{recipe}' is neither a recipe nor the folder of an ablation; check the name.")
    if data is None or out is None:
        raise UserError("--data and --out are needed: the prepared dataset and the folder of the ablation.")
    from crossray.ablation import comparison as ablation
    from crossray.ablation.rows import find_ablation
    from crossray.ablation.runs import Run, Task
    from crossray.data.store import Dataset

    if not seeds or min(seeds) < 0:
        raise UserError("--seeds: give at least one number, and none below 0.")
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs is {jobs}; give at least 1.")
    chosen = find_ablation(recipe, table)
    selected = chosen.select(rows)
    fields = given_fields(chosen.recipe, recipe_options)
    comparison, recipes = ablation.describe(chosen, Dataset.open(data), split, fields)
    folder = out / chosen.name
    ablation.claim(folder, comparison)
    runs = [
        Run(
            name=f"{row.name}, seed {seed}",
            folder=ablation.run_folder(folder, row.slug, seed),
            recipe=ablation.with_seed(recipes[row.slug], seed),
        )
        for seed in dict.fromkeys(seeds)
        for row in selected
    ]
    failed = _perform(folder, [run for run in runs if not run.finished], Task(data, split, write_reports, meteor), jobs)
    _render(folder)
    if failed:
        names = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in failed.items())
        raise UserError(f"{len(failed)} of {len(runs)} runs failed ({names}); correct the cause and repeat the "
                        "command, which keeps the finished runs.")  # fmt: skip


def _perform(folder: Path, runs: list["Run"], task: "Task", jobs: int | None) -> dict[str, str]:
    """Train and score the remaining runs, printing a line for each; return the reasons of those that failed."""
    import torch

    from crossray.ablation.runs import locked, perform_all

    failed: dict[str, str] = {}
    done = 0

    def ended(run: "Run", reason: str | None) -> None:
        nonlocal done
        done += 1
        if reason is not None:
            failed[run.name] = reason
        line = f"{done} of {len(runs)}: {run.name} {'finished' if reason is None else 'FAILED'}"
        console().print(line, highlight=False)

    try:
        with locked(folder):
            perform_all(runs, task, ended, jobs=max(1, torch.cuda.device_count()) if jobs is None else jobs)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("Interrupted; repeat the command to continue.") from None
    return failed


def _render(folder: Path) -> None:
    """Write and print the table of the finished runs."""
    from crossray.pages.ablation_table import print_table, write_table

    print_table(write_table(folder), console())
    console().print(f"tables in {folder}: table.md, table.tex, table.html", highlight=False)


def write_reports(run: Path, data: Path, split: str, predictions: Path) -> int:
    """Write the reports of a split with the best model of a run, on a GPU if there is one; return their number."""
    import torch

    from crossray.generation.generator import Generator

    generator = Generator.from_pretrained(run, device="cuda" if torch.cuda.is_available() else "cpu")
    return generator.generate_dataset(data, split, predictions)
