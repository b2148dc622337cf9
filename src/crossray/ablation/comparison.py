"""An ablation on disk: its configuration and the available scores.

FOLDER/<table>/ablation.json        what is compared; a folder belongs to one ablation
FOLDER/<table>/<row>/seed-<n>/      a training run, with predictions.jsonl and scores.json
FOLDER/<table>/<row>/seed-<n>.log   what a run printed when several ran at once
FOLDER/<table>/table.md .tex .html  the table of all finished runs
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossray.ablation.rows import Ablation
from crossray.data.store import Dataset
from crossray.data.store.layout import json_bytes
from crossray.errors import UserError
from crossray.evaluation.results import Result, read_results
from crossray.files.write import write_whole
from crossray.models.base import config_from_dict
from crossray.training.config import Recipe
from crossray.training.recipe import to_yaml

DESCRIPTION = "ablation.json"
PREDICTIONS = "predictions.jsonl"
SCORES = "scores.json"


@dataclass(frozen=True, kw_only=True)
class ComparedRow:
    """A row of the table.

    Attributes:
        name: name in the table.
        folder: folder of its runs in that of the ablation.
        published: name of the row in the published table, or None.
        recipe_sha256: digest of its recipe without the seed.
    """

    name: str
    folder: str
    published: str | None
    recipe_sha256: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The configuration of an ablation: the content of ablation.json.

    Attributes:
        recipe: name of the recipe, or its YAML file.
        options: dotted fields that were replaced in every row.
        table: name of the table.
        title: heading of the table.
        published: identifier of the published table, or None.
        split: split of the dataset that is scored.
        data_sha256: content hash of the dataset.
        data_source: description of the dataset's source.
        epochs: maximum number of epochs of a run.
        rows: rows in the order of the table.
    """

    recipe: str
    options: Mapping[str, Any]
    table: str
    title: str
    published: str | None
    split: str
    data_sha256: str
    data_source: Mapping[str, Any]
    epochs: int
    rows: tuple[ComparedRow, ...]


def describe(
    ablation: Ablation, dataset: Dataset, split: str, options: Mapping[str, Any]
) -> tuple[Comparison, dict[str, Recipe]]:
    """The configuration of an ablation, and the recipe of every row by its folder.

    Args:
        ablation: an ablation of a recipe.
        dataset: that all runs are trained and scored on.
        split: that is scored.
        options: dotted fields that are replaced in every row.

    Raises:
        UserError: a field does not exist or has the wrong type, or the runs could not be in one table.
    """
    if "trainer.seed" in options:
        raise UserError(
            "--trainer.seed cannot be set, because the runs of a row differ in it; name the seeds with --seeds."
        )
    recipes = {row.slug: ablation.recipe_of(row, options) for row in ablation.rows}
    for recipe in recipes.values():
        if recipe.trainer.devices != 1:
            raise UserError(f"recipe field 'trainer.devices' is {recipe.trainer.devices}: an ablation trains every run "
                            "on one device; set it to 1 and run several at once with --jobs.")  # fmt: skip
    dataset.rows(split)  # raises for a split without studies before anything is trained
    comparison = Comparison(
        recipe=ablation.recipe,
        options=dict(options),
        table=ablation.name,
        title=ablation.title,
        published=ablation.published,
        split=split,
        data_sha256=dataset.info.sha256,
        data_source=dict(dataset.info.source),
        epochs=max(sum(recipe.stage_epochs()) for recipe in recipes.values()),
        rows=tuple(
            ComparedRow(
                name=row.name, folder=row.slug, published=row.published, recipe_sha256=_digest(recipes[row.slug])
            )
            for row in ablation.rows
        ),
    )
    return comparison, recipes


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """The recipe of one run of a row."""
    return dataclasses.replace(recipe, trainer=dataclasses.replace(recipe.trainer, seed=seed))


def claim(folder: Path, comparison: Comparison) -> None:
    """Start an ablation in `folder`, or continue the one in it.

    Raises:
        UserError: the folder contains another ablation or other files.
    """
    if (folder / DESCRIPTION).exists():
        found = read_comparison(folder)
        differing = _differing(found, comparison)
        if differing:
            raise UserError(f"{folder}: its runs were started with another {differing}; repeat the options that they "
                            "began with, or choose another --out.")  # fmt: skip
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an ablation; choose another --out or remove it.")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / DESCRIPTION, json_bytes(dataclasses.asdict(comparison), indent=1))


def read_comparison(folder: Path) -> Comparison:
    """The configuration of the ablation in `folder`.

    Raises:
        UserError: there is none.
    """
    path = folder / DESCRIPTION
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as an ablation ({type(error).__name__}); name the folder of a table "
                        "that `crossray ablate` made.") from None  # fmt: skip
    return config_from_dict(Comparison, values, str(path))


def read_scores(folder: Path, row: ComparedRow) -> dict[int, dict[str, Result]]:
    """The result of every finished run of a row by seed and protocol, in the order of the seeds.

    Raises:
        UserError: a file of scores cannot be read.
    """
    paths = {
        int(path.parent.name.removeprefix("seed-")): path for path in (folder / row.folder).glob(f"seed-*/{SCORES}")
    }
    return {
        seed: {protocol: results[0] for protocol, results in read_results(paths[seed]).items()}
        for seed in sorted(paths)
    }


def run_folder(folder: Path, row: str, seed: int) -> Path:
    """Folder of one run; `row` is the folder of its row."""
    return folder / row / f"seed-{seed}"


def _digest(recipe: Recipe) -> str:
    return hashlib.sha256(to_yaml(with_seed(recipe, 0)).encode()).hexdigest()


def _differing(found: Comparison, wanted: Comparison) -> str:
    """The difference between two ablations in a folder; "" if the second can continue the first."""
    if found.data_sha256 != wanted.data_sha256:
        return f"dataset (sha256 {found.data_sha256[:12]})"
    if found.split != wanted.split:
        return f"split ({found.split})"
    before = {row.folder: row.recipe_sha256 for row in found.rows}
    changed = [row.name for row in wanted.rows if before.get(row.folder, row.recipe_sha256) != row.recipe_sha256]
    return f"recipe or options (row '{changed[0]}')" if changed else ""
