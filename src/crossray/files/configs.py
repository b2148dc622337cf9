"""Reads and writes frozen dataclasses as JSON, with errors in one sentence."""

import dataclasses
import json
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from crossray.errors import UserError, did_you_mean

__all__ = ["config_from_dict", "read_json", "write_json"]

_C = TypeVar("_C")


def config_from_dict(cls: type[_C], values: Any, source: str) -> _C:
    """Build a frozen dataclass, with nested dataclasses and tuples, from parsed JSON; reject unknown fields.

    Args:
        cls: class to build.
        values: parsed JSON.
        source: name of the file or recipe, for messages.

    Raises:
        UserError: a field is invalid; the message names `source` and the field.
    """
    if not isinstance(values, dict):
        raise UserError(f"{source}: not a JSON object; copy the whole folder again.")
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - known)
    if unknown:
        meant = did_you_mean(unknown[0], known)
        raise UserError(
            f"{source}: field '{unknown[0]}' is unknown to this version of CrossRay{meant}; correct it, or update the "
            "package."
        )

    def convert(hint: Any, value: Any) -> Any:
        if dataclasses.is_dataclass(hint) and isinstance(value, dict):
            return config_from_dict(typing.cast(type, hint), value, source)
        if typing.get_origin(hint) is tuple and isinstance(value, Sequence) and not isinstance(value, str):
            arguments = typing.get_args(hint)
            kinds = [arguments[0]] * len(value) if arguments[-1:] == (Ellipsis,) else list(arguments)
            return tuple(convert(kind, item) for kind, item in zip(kinds, value, strict=False))
        return value

    try:
        return cls(**{name: convert(hints[name], value) for name, value in values.items()})
    except (TypeError, ValueError) as error:
        raise UserError(f"{source}: {error}") from error


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, remedy: str) -> Any:
    """Read the value of a JSON file.

    Raises:
        UserError: the file cannot be read; the message ends with `remedy`.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}.") from error
    except ValueError as error:
        raise UserError(f"{path}: is not JSON; {remedy}.") from error
