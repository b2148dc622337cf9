"""Checks before a command starts that its outputs can be written and do not overwrite its inputs."""

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from crossray.errors import UserError
from crossray.files.folders import BEST, CONFIG

Kind = Literal["file", "folder"]

#: Files that identify a prepared dataset, a model and a training run. Commands write nothing into the first two.
_DATASET, _WEIGHTS, _RUN = "dataset.json", "model.safetensors", "recipe.yaml"

#: Files of a run that commands must not overwrite; reports and scores may be written next to them.
_OF_A_RUN = {"recipe.yaml", "provenance.json", "metrics.jsonl", "last.ckpt", "finished", BEST}

#: Suffixes of outputs, which may be replaced in a folder of images; any other file there may be an image.
_WRITTEN = {".csv", ".html", ".json", ".jsonl", ".md"}


def check_outputs(outputs: Mapping[str, tuple[Path, Kind]], inputs: Mapping[str, Iterable[Path]]) -> None:
    """Check that outputs can be written and do not overwrite inputs; symbolic links are resolved.

    Args:
        outputs: path and type of each output, by option such as "--out".
        inputs: paths of inputs, by option or argument.

    Raises:
        UserError: an output is also an input, belongs to a prepared dataset, a model or a run, or cannot be written.
    """
    read = {_resolved(path): name for name, paths in inputs.items() for path in paths}
    taken: dict[Path, str] = {}
    for option, (path, kind) in outputs.items():
        place = _resolved(path)
        if place.is_symlink():  # only a loop of links is still a link after resolving
            raise UserError(f"{option} {path}: cannot be written (a link that leads to itself); name another place.")
        if place.exists() and not place.is_file() and not place.is_dir():
            continue  # a device or pipe is written to, never replaced
        if place in taken:
            raise UserError(f"{option} {path} is the same file as {taken[place]}; name another one.")
        taken[place] = option
        _keep_inputs(option, path, place, kind, read)
        _keep_folders(option, path, place)
        _try(option, path, place, kind)


def _keep_inputs(option: str, path: Path, place: Path, kind: Kind, read: Mapping[Path, str]) -> None:
    for source, name in read.items():
        same = place == source
        if name == "images" and source in place.parents and place.is_file() and place.suffix.lower() not in _WRITTEN:
            raise UserError(f"{option} {path} is in a folder that is read by {name}; name another file.")
        if not same and kind == "file":
            with contextlib.suppress(OSError):  # such as hard links to the same file
                same = source.is_file() and place.is_file() and source.samefile(place)
        if same and (kind == "file" or source.is_file()):
            raise UserError(f"{option} {path} is read by {name}; name another file.")


def _keep_folders(option: str, path: Path, place: Path) -> None:
    """Check that an output is not inside a prepared dataset or model folder, and not a file of a training run."""
    below = place
    for folder in place.parents:
        if (folder / _DATASET).is_file():
            raise UserError(f"{option} {path} is inside the prepared dataset {folder}; choose another place.")
        if (folder / CONFIG).is_file() and (folder / _WEIGHTS).is_file():
            raise UserError(f"{option} {path} is inside the model folder {folder}; choose another place.")
        if (folder / _RUN).is_file() and below.name in _OF_A_RUN:
            raise UserError(f"{option} {path} belongs to the training run {folder}; choose another place.")
        below = folder


def _try(option: str, path: Path, place: Path, kind: Kind) -> None:
    """Try to write an output now, rather than fail after hours of work."""
    if kind == "file" and place.is_dir():
        raise UserError(f"{option} {path}: cannot be written (it is a folder); name a file in it.")
    if kind == "folder" and place.exists() and not place.is_dir():
        raise UserError(f"{option} {path}: cannot be written (it is a file); name a folder.")
    folder = place if kind == "folder" else place.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    trial = folder / f".{place.name[:40]}.{os.getpid()}.trial"
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        reason = f"{folder} is not a folder" if isinstance(error, NotADirectoryError) else error.strerror
        raise UserError(f"{option} {path}: cannot be written ({reason}); choose another place.") from None


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return path.absolute()
