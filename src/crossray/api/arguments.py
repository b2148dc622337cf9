"""Checks of what a notebook passes to the library: a value of another type is refused in one sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from crossray.errors import UserError

_VIEWS = "paths of PNG, JPEG or DICOM files, or of one folder that holds them"


def model_name(name: Any) -> str | Path:
    """The name of a model, if it is one.

    Raises:
        UserError: it is neither text nor a path.
    """
    if not isinstance(name, str | Path):
        raise UserError(
            f"name: {_kind(name)} is not a model; give a model folder, the folder of a run, or 'user/name' on the hub."
        )
    return name


def search_fields(decoding: Any) -> Mapping[str, Any] | None:
    """Fields of the search, if they are a mapping.

    Raises:
        UserError: they are something else.
    """
    if decoding is not None and not isinstance(decoding, Mapping):
        raise UserError(f"decoding: {_kind(decoding)} has no fields; give a mapping, such as {{'method': 'greedy'}}.")
    return decoding


def view_paths(study: Any) -> list[Path]:
    """The paths of a study's views, or of its folder.

    Raises:
        UserError: the study, or one of its views, is not a path.
    """
    if isinstance(study, str | Path):
        return [Path(study)]
    if isinstance(study, bytes | Mapping) or not isinstance(study, Iterable):
        raise UserError(f"images: {_kind(study)} is not a study; give {_VIEWS}.")
    views = list(study)
    for view in views:
        if not isinstance(view, str | Path):
            raise UserError(f"images: {_kind(view)} is not a view of a study; give {_VIEWS}.")
    return [Path(view) for view in views]


def study_paths(studies: Any) -> list[list[Path]]:
    """The paths of many studies.

    Raises:
        UserError: it is a single path, nothing to iterate over, or a study in it is not one.
    """
    if isinstance(studies, str | Path | bytes | Mapping) or not isinstance(studies, Iterable):
        raise UserError(
            f"studies: {_kind(studies)} is not a list of studies; give a list, or use report() for a single study."
        )
    return [view_paths(study) for study in studies]


def whole_number(name: str, value: Any, least: int) -> int:
    """A whole number, if it is one.

    Raises:
        UserError: it is not a whole number, or below `least`.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{name} is {value!r:.40}; give a whole number from {least} on.")
    return value


def texts(name: str, values: Any) -> dict[str, str]:
    """Reports by study; those in a list are numbered.

    Args:
        name: name of the argument, for messages.
        values: a mapping from study to report, or reports in a list, an array or a column of a table.

    Raises:
        UserError: it is neither, or one of them is not text.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise UserError(f"{name}: {_kind(values)} is not a list of reports; give a list of texts, or texts by study.")
    pairs: Iterator[tuple[Any, Any]] = iter(values.items() if isinstance(values, Mapping) else enumerate(values))
    found: dict[str, str] = {}
    for study, text in pairs:
        if not isinstance(text, str):
            raise UserError(f"{name}: entry {len(found)} is {_kind(text)}; give the text of every report.")
        found[str(study)] = text
    return found


def _kind(value: Any) -> str:
    """What a value is, without its content, which may be a patient's."""
    return "None" if value is None else f"a value of type {type(value).__name__}"
