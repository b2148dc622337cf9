"""The folder of a run: its files, that one process at a time writes it, and what is said of a finished one."""

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
#: Held while a process writes the folder.
LOCK = ".lock"


def first_process() -> bool:
    """Whether this is the process that writes; Lightning, torchrun and SLURM number them in the environment."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


def is_over(recipe: Recipe, checkpoint: Mapping[str, Any]) -> bool:
    """Whether nothing is left to do after this checkpoint."""
    planned = [stage for stage, epochs in enumerate(recipe.stage_epochs()) if epochs]
    clock = checkpoint["callbacks"].get("Clock", {}).get("elapsed", 0.0)
    late = 0 < recipe.trainer.max_minutes * 60 <= clock
    return bool(checkpoint["finished"]) and (late or int(checkpoint["stage"]) >= planned[-1])


def say_finished(recipe: Recipe, out: Path, checkpoint: Mapping[str, Any]) -> Path:
    """Say that a run is finished, and where its model is.

    Raises:
        UserError: the model is gone.
    """
    epochs = int(checkpoint["epochs_before"]) + int(checkpoint["epoch"])
    if not (out / BEST / CONFIG).exists():
        raise UserError(
            f"{out}: the run is finished, and its folder {BEST}/ is missing; restore it or train with another --out."
        )
    Console(stderr=True).print(
        f"Finished at epoch {epochs} of {sum(recipe.stage_epochs())}; the best model is in {out / BEST}. To train "
        "longer, start a new run.", soft_wrap=True,
    )  # fmt: skip
    return out / BEST


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold the folder of a run; where nothing has begun, nothing is left behind.

    Raises:
        UserError: another process is writing it, or it is no folder.
    """
    if not first_process():  # the first process holds it for all
        yield
        return
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose another --out.")
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out / LOCK, f"{out}: another process is writing this run; wait for it or choose another --out."):
            yield
    except (UserError, KeyboardInterrupt):
        if {path.name for path in out.iterdir()} == {LOCK}:
            (out / LOCK).unlink()
            if new:
                out.rmdir()
        raise
