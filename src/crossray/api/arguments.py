"""Argument checks of the Python API: a value of the wrong type raises a one-sentence error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from crossray.errors import UserError

_VIEWS = "paths of PNG, JPEG or DICOM files, or of one folder that holds them"


def model_name(name: Any) -> str | Path:
    """Return `name` unchanged if it is text or a path.

    Raises:
        UserError: `name` has another type.
    """
    if not isinstance(name, str | Path):
        raise UserError(
            f"name: {_kind(name)} is not a model; give a model folder, the folder of a run, or 'user/name' on the hub."
        )
    return name


def search_fields(decoding: Any) -> Mapping[str, Any] | None:
    """Return `decoding` unchanged if it is a mapping or None.

    Raises:
        UserError: `decoding` has another type.
    """
    if decoding is not None and not isinstance(decoding, Mapping):
        raise UserError(f"decoding: {_kind(decoding)} is not a mapping; give one, such as {{'method': 'greedy'}}.")
    return decoding


def view_paths(study: Any) -> list[Path]:
    """Return the paths of a study's views, or the path of its folder, as a list.

    Raises:
        UserError: `study` is neither a path nor a list of paths.
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
    """Return the view paths of each study.

    Raises:
        UserError: `studies` is a single path or not iterable, or one of its items is not a study (see `view_paths`).
    """
    if isinstance(studies, str | Path | bytes | Mapping) or not isinstance(studies, Iterable):
        raise UserError(
            f"studies: {_kind(studies)} is not a list of studies; give a list, or use report() for a single study."
        )
    return [view_paths(study) for study in studies]


def whole_number(name: str, value: Any, least: int) -> int:
    """Return `value` unchanged if it is an integer of at least `least`.

    Args:
        name: name of the argument, for messages.
        value: value to check.
        least: smallest allowed value.

    Raises:
        UserError: `value` is not an integer or is too small.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{name} is {value!r:.40}; give a whole number of at least {least}.")
    return value


def texts(name: str, values: Any) -> dict[str, str]:
    """Return reports as a mapping from study to text; the keys of a list are its indices.

    Args:
        name: name of the argument, for messages.
        values: a mapping from study to report, or reports in a list, an array or a column of a table.

    Raises:
        UserError: `values` is neither, or a report is not text.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise UserError(f"{name}: {_kind(values)} is not a list of reports; give a list, or a mapping by study.")
    pairs: Iterator[tuple[Any, Any]] = iter(values.items() if isinstance(values, Mapping) else enumerate(values))
    found: dict[str, str] = {}
    for study, text in pairs:
        if not isinstance(text, str):
            raise UserError(f"{name}: entry {len(found)} is {_kind(text)}; give the text of every report.")
        found[str(study)] = text
    return found


def _kind(value: Any) -> str:
    """Describe a value by its type only, because its content may be patient data."""
    return "None" if value is None else f"a value of type {type(value).__name__}"
