"""The folder of a run: file names, the lock, and the message for a finished run."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from crossray.errors import UserError
from crossray.files.folders import BEST, CONFIG
from crossray.files.lock import locked
from crossray.training.config import Recipe

RECIPE = "recipe.yaml"
PROVENANCE = "provenance.json"
#: Lock file, held while a process writes to the folder.
LOCK = ".lock"


def first_process() -> bool:
    """Whether this process has rank 0 and writes the files (environment of Lightning, torchrun or SLURM)."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def is_over(recipe: Recipe, checkpoint: Mapping[str, Any]) -> bool:
    """Whether the run was finished at this checkpoint."""
    planned = [stage for stage, epochs in enumerate(recipe.stage_epochs()) if epochs]
    clock = checkpoint["callbacks"].get("Clock", {}).get("elapsed", 0.0)
    late = 0 < recipe.trainer.max_minutes * 60 <= clock
    return bool(checkpoint["finished"]) and (late or int(checkpoint["stage"]) >= planned[-1])


def say_finished(recipe: Recipe, out: Path, checkpoint: Mapping[str, Any]) -> Path:
    """Print that a run is finished, and return the folder of its model.

    Raises:
        UserError: the model is missing.
    """
    epochs = int(checkpoint["epochs_before"]) + int(checkpoint["epoch"])
    if not (out / BEST / CONFIG).exists():
        raise UserError(
            f"{out}: the run is finished, but its folder {BEST}/ is missing; restore it or train with another --out."
        )
    Console(stderr=True, markup=False, emoji=False).print(
        f"Finished at epoch {epochs} of {sum(recipe.stage_epochs())}; the best model is in {out / BEST}. To train "
        "longer, start a new run.", soft_wrap=True,
    )  # fmt: skip
    return out / BEST


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Lock the folder of a run; create it, and remove it again if an error occurs before anything is written.

    Raises:
        UserError: another process is writing to it, or it is a file.
    """
    if not first_process():  # the first process holds the lock for all
        yield
        return
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose another --out.")
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out / LOCK, f"{out}: another process is writing this run; wait for it or choose another --out."):
            yield
    except BaseException:
        if {path.name for path in out.iterdir()} == {LOCK}:
            (out / LOCK).unlink()
            if new:
                out.rmdir()
        raise
