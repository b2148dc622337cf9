"""Trains the models that a system depends on, each by its own recipe and once per dataset.

A field of a model's configuration with the value `build:RECIPE` stands for the model folder that this recipe trains on
the same dataset:

    DATASET/pretrained/RECIPE-HASH/     a training run; its subfolder `best` is the model folder

HASH is a hash of the recipe and the content of the dataset: all runs on a dataset share the folder, and a changed
recipe gets a new one. A run of an earlier version with an equivalent recipe is reused. The folder is in the dataset
because, like `features/`, it depends only on the dataset.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console

from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.files.folders import BEST
from crossray.files.lock import locked
from crossray.models.base import BUILD, TrainableConfig
from crossray.training.config import Recipe
from crossray.training.folder import PROVENANCE, RECIPE
from crossray.training.recipe import load, to_dict

#: Name of the folder in the dataset.
_FOLDER = "pretrained"
#: Beginning of the message after Ctrl-C.
_INTERRUPTED = "Interrupted while training"


class Trainer(Protocol):
    """Trains a recipe in a new folder, or resumes the run in that folder (`crossray.training.run`)."""

    def __call__(self, recipe: Recipe, data: Path, run: Path) -> object: ...  # noqa: D102


def fulfil(
    recipe: Recipe, dataset: Dataset, trainer: Trainer, built: Mapping[str, str] | None = None
) -> tuple[Recipe, dict[str, str]]:
    """Train the models that a recipe needs, unless the dataset already has them.

    Args:
        recipe: recipe of a system.
        dataset: dataset of the run, on which the required models are trained as well.
        trainer: function that trains a recipe.
        built: folder names from an earlier call, for a resumed run, which uses the same folders even if the recipes in
            the package have changed.

    Returns:
        The recipe with model folders in place of `build:RECIPE`, and the name of the run's folder by recipe.

    Raises:
        UserError: a model cannot be trained, or a folder of `built` is missing.
        KeyboardInterrupt: Ctrl-C; repeat the call to continue.
    """
    folders: dict[str, str] = {}

    def filled(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.replace(value, **{f.name: filled(getattr(value, f.name)) for f in _fields(value)})
        if not isinstance(value, str) or not value.startswith(BUILD):
            return value
        name = value.removeprefix(BUILD)
        folders[name] = (built or {}).get(name) or _folder_name(name, dataset)
        run = dataset.path / _FOLDER / folders[name]
        if built and not (run / BEST / "config.json").exists():
            raise UserError(f"{run}: this run needs the model that {name} trained here; restore it or start a new run.")
        return str(_trained(name, run, dataset, recipe, trainer))

    model: TrainableConfig = filled(recipe.model)
    return dataclasses.replace(recipe, model=model), folders


def _fields(value: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(value) if field.init]


def _folder_name(name: str, dataset: Dataset) -> str:
    wanted = to_dict(load(name))
    identity = json.dumps({"recipe": wanted, "dataset": dataset.info.sha256}, sort_keys=True)
    label = Path(name).stem if name.endswith(".yaml") else name.replace("/", "-")
    folder = f"{label}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    for run in sorted((dataset.path / _FOLDER).glob(f"{label}-{'[0-9a-f]' * 16}")):
        if run.name != folder and (run / "finished").exists() and _says(run, wanted, dataset):
            return run.name
    return folder


def _says(run: Path, wanted: dict[str, Any], dataset: Dataset) -> bool:
    """Whether a finished run has this recipe and dataset, on any device."""
    try:
        recipe = load(str(run / RECIPE))
        provenance = json.loads((run / PROVENANCE).read_text(encoding="utf-8"))
        made_of = provenance["data"]["sha256"]
    except (UserError, OSError, ValueError, LookupError, TypeError):
        return False
    places = {name: wanted["trainer"][name] for name in ("accelerator", "threads")}
    made = to_dict(recipe)
    return made_of == dataset.info.sha256 and {**made, "trainer": {**made["trainer"], **places}} == wanted


def _trained(name: str, run: Path, dataset: Dataset, wanted_by: Recipe, train: Trainer) -> Path:
    """Return the model folder of a run; if it is not finished, one process trains it and the others wait."""
    done = run / "finished"
    best = run / BEST
    if done.exists():
        return best
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            f"{wanted_by.system} needs {name}, which must be trained by a single process: run `crossray pretrain "
            f"{name} --data {dataset.path} --out FOLDER` and set the field to its folder."
        )
    try:
        run.parent.mkdir(exist_ok=True)
        with locked(run.with_name(f"{run.name}.lock")):
            if not done.exists():
                console = Console(stderr=True, markup=False, emoji=False)
                # soft_wrap, because a path broken over two lines cannot be copied
                console.print(
                    f"{wanted_by.system} needs {name}, which this dataset does not have yet; training it in {run}.",
                    soft_wrap=True,
                )
                threads = torch.get_num_threads()
                trainer = wanted_by.trainer
                needed = load(name, {"trainer.accelerator": trainer.accelerator, "trainer.threads": trainer.threads})
                train(needed, dataset.path, run)
                torch.set_num_threads(threads)
                done.touch()
                console.print(f"{name} is trained; continuing with {wanted_by.system}.", soft_wrap=True)
    except OSError as error:
        raise UserError(f"{run}: cannot be written ({error.strerror}); train {name} elsewhere with "
                        "`crossray pretrain` and set the field to its folder.") from error  # fmt: skip
    except KeyboardInterrupt as stopped:
        nested = str(stopped).startswith(_INTERRUPTED)  # what this one needs itself was being trained
        message = str(stopped) if nested else f"{_INTERRUPTED} {name}; repeat the command to continue."
        raise KeyboardInterrupt(message) from None
    return best
