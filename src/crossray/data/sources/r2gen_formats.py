"""Detects formats related to R2Gen's annotation file, and converts them to R2Gen's (docs/data/iu-xray.md).

    r2gen      {"train": [{id, report, image_path, split}], "val": [...], "test": [...]}
    promptmrg  the same with `labels` and clip_indices; its IU X-Ray file is a flat list, which is all test
    coacl      train.json, valid.json and test.json in a folder, or their lists in one object:
               {rep_id, findings, images: [{img_name}]}, where img_name lacks the suffix .jpg
    rexrank    {study: {image_path, section_findings, section_impression, context, frontal_lateral, split}}

Other fields of an entry are ignored. Fields are checked afterwards; messages use their names in the file.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from crossray.data.study import SPLITS
from crossray.errors import UserError, quoted

Kind = Literal["r2gen", "promptmrg", "coacl", "rexrank"]

#: COACL's and ReXrank's names for the validation split.
_VALIDATION = {"valid": "val", "validate": "val", "validation": "val"}

#: Names of R2Gen's fields in the file, if they differ.
FIELDS: dict[Kind, Mapping[str, str]] = {
    "r2gen": {},
    "promptmrg": {},
    "coacl": {"id": "rep_id", "report": "findings", "image_path": "images"},
    "rexrank": {"report": "section_findings", "impression": "section_impression", "indication": "context"},
}

_POSITIONS = {"frontal": "frontal", "lateral": "lateral"}


@dataclass(frozen=True)
class Entry:
    """One entry with R2Gen's fields: its location for messages, its split, and its unchecked values."""

    place: str
    split: str
    values: Any


def load(path: Path, read: Callable[[Path], Any]) -> Any:
    """Load a file, or COACL's three files in a folder as one object of splits.

    Args:
        path: file or folder.
        read: reads one JSON file.

    Raises:
        UserError: a file is missing or not JSON.
    """
    if not path.is_dir():
        return read(path)
    names = {split: next((name for name in names if (path / name).is_file()), None) for split, names in _FILES.items()}
    if missing := [_FILES[split][0] for split, name in names.items() if name is None]:
        raise UserError(
            f"{path}: {missing[0]}: is missing; give the folder of COACL's train.json, valid.json and test.json"
        )
    return {split: read(path / str(name)) for split, name in names.items()}


_FILES = {"train": ("train.json",), "valid": ("valid.json", "val.json"), "test": ("test.json",)}


def detect(content: Any) -> Kind:
    """Detect the format; "r2gen" for an unknown one, whose check then reports the error."""
    first = _first(content)
    if "rep_id" in first or ("images" in first and "image_path" not in first):
        return "coacl"
    if isinstance(content, dict) and not content.keys() & {*SPLITS, *_VALIDATION} and "section_findings" in first:
        return "rexrank"
    return "promptmrg" if "labels" in first else "r2gen"


def entries(content: Any, kind: Kind, path: Path) -> Iterator[Entry]:
    """Yield every entry, in the order train, val, test, then as in the file.

    Raises:
        UserError: the content does not have the expected form.
    """
    if kind == "rexrank":
        yield from _rexrank(content, path)
        return
    if kind == "promptmrg" and isinstance(content, list):
        for i, values in enumerate(content):
            # PromptMRG tests on all of IU X-Ray and uses only the first image
            yield Entry(f"{path}: [{i}]", "test", _alone(values))
        return
    if not isinstance(content, dict):
        raise UserError(f"{path}: a JSON object with the keys train, val and test is needed, not {json_type(content)}")
    renamed = _VALIDATION if kind == "coacl" else {}
    names = {renamed.get(str(key), str(key)): str(key) for key in content}
    if unknown := sorted(names.keys() - set(SPLITS)):
        raise UserError(f"{path}: unknown key {unknown[0][:60]!a}; name the splits train, val and test")
    for split in SPLITS:
        listed = content.get(names.get(split, split), [])
        if not isinstance(listed, list):
            raise UserError(f"{path}: {split}: a list of entries is needed, not {json_type(listed)}")
        for i, values in enumerate(listed):
            place = f"{path}: {names.get(split, split)}[{i}]"
            yield Entry(place, split, _coacl(values, place) if kind == "coacl" else values)


def json_type(value: Any) -> str:
    """Return the name of a value's JSON type for messages."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _first(content: Any) -> Mapping[str, Any]:
    """Return the first entry of all splits; an empty one if there is none."""
    lists = content.values() if isinstance(content, dict) else [content]
    for listed in lists:
        first = listed[0] if isinstance(listed, list) and listed else listed
        if isinstance(first, dict):
            return first
    return {}


def _alone(values: Any) -> Any:
    """Return an entry with only its first image and without its split."""
    if not isinstance(values, dict):
        return values
    paths = values.get("image_path")
    kept = {key: value for key, value in values.items() if key != "split"}
    return {**kept, "image_path": paths[:1] if isinstance(paths, list) else paths}


def _coacl(values: Any, place: str) -> Any:
    if not isinstance(values, dict):
        return values
    images = values.get("images")
    if not isinstance(images, list) or not images or not all(isinstance(image, dict) for image in images):
        raise UserError(f"{place}.images: a list of objects with img_name is needed; add the study's images")
    names = [image.get("img_name") for image in images]
    if bad := [i for i, name in enumerate(names) if not isinstance(name, str) or not name.strip()]:
        raise UserError(f"{place}.images[{bad[0]}].img_name: a text is needed; fill it in")
    paths = [
        name if PurePosixPath(name).suffix.lower() in (".jpg", ".jpeg", ".png", ".dcm") else f"{name}.jpg"
        for name in names
    ]
    identifier = values.get("rep_id")
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        identifier = str(identifier)
    kept = {key: values[key] for key in ("study_id", "subject_id", "labels") if key in values}
    return {**kept, "id": identifier, "report": values.get("findings"), "image_path": paths}


def _rexrank(content: Any, path: Path) -> Iterator[Entry]:
    if not isinstance(content, dict):
        raise UserError(f"{path}: a JSON object of studies is needed, not {json_type(content)}")
    studies: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    for study, values in content.items():
        place = f"{path}: study {study[:60]!a}"
        if not isinstance(values, dict):
            raise UserError(
                f"{place}: an object with image_path and section_findings is needed, not {json_type(values)}"
            )
        split = values.get("split", "test")
        split = _VALIDATION.get(split, split) if isinstance(split, str) else split
        if split not in SPLITS:
            raise UserError(f"{place}.split: {quoted(split)} is not train, val or test; write one of them")
        context = values.get("context", "")
        entry = {
            "id": study,
            "report": values.get("section_findings"),
            "image_path": values.get("image_path"),
            "impression": values.get("section_impression", ""),
            "indication": context.removeprefix("Indication:").strip() if isinstance(context, str) else context,
            "positions": _positions(values, place),
        }
        studies[split].append(Entry(place, split, entry))
    for listed in studies.values():
        yield from listed


def _positions(values: Mapping[str, Any], place: str) -> list[str] | None:
    named = values.get("frontal_lateral")
    if named is None:
        return None
    if not isinstance(named, list) or not all(isinstance(name, str) and name.lower() in _POSITIONS for name in named):
        raise UserError(
            f"{place}.frontal_lateral: is not a list of Frontal and Lateral; write one of them for each image"
        )
    paths = values.get("image_path")
    if len(named) != (len(paths) if isinstance(paths, list) else 1):
        return None  # in a few studies of the published files, it is unknown which image is meant
    return [_POSITIONS[name.lower()] for name in named]
