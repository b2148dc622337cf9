"""R2Gen's annotation file (SPEC 1.1): one JSON object with the splits, each a list of entries with report and images.

An entry holds `id`, `report`, `image_path` (relative to the image folder; IU X-Ray two, MIMIC-CXR one), `split`;
MIMIC-CXR adds `study_id` and `subject_id`. All listed images are kept: how many are used is decided later. The order of
IU X-Ray's two views is not guaranteed, so their position is "unknown".
"""

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from crossray.data.images import ImageFile
from crossray.data.study import SPLITS, Study
from crossray.errors import UserError
from crossray.text.observations import OBSERVATIONS, label_report

#: Largest annotation file that is read, in bytes; MIMIC-CXR's has about a fifth of it.
MAX_BYTES = 2**30


def read_annotation(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Read and check an annotation file.

    Args:
        path: the JSON file. A split that it leaves out is empty; an `image_path` may also be a single string.

    Returns:
        For each of train, val and test the entries in the file's order, `image_path` always a list.

    Raises:
        UserError: the file is missing or no JSON, a field is missing or of the wrong type, an id occurs twice, or an
            entry's `split` is not the list it lies in. The message names the entry by its split and index.
    """
    content = _read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: a JSON object with the keys train, val and test is needed, not {_json_type(content)}")
    if unknown := sorted(content.keys() - set(SPLITS)):
        raise UserError(f"{path}: unknown key {unknown[0]!a}; name the splits train, val and test")
    annotation: dict[str, list[dict[str, Any]]] = {}
    first_places: dict[str, str] = {}
    for split in SPLITS:
        entries = content.get(split, [])
        if not isinstance(entries, list):
            raise UserError(f"{path}: {split}: a list of entries is needed, not {_json_type(entries)}")
        annotation[split] = [_checked_entry(entry, split, f"{path}: {split}[{i}]") for i, entry in enumerate(entries)]
        for i, entry in enumerate(annotation[split]):
            first = first_places.setdefault(entry["id"], f"{split}[{i}]")
            if first != f"{split}[{i}]":
                raise UserError(f"{path}: {split}[{i}].id: the same as {first}.id; give every study an id of its own")
    if not first_places:
        raise UserError(f"{path}: no entries; give an annotation file with studies under train, val or test")
    return annotation


def read_r2gen(annotation: Path, images: Path) -> list[Study]:
    """Read the studies of an annotation file.

    Whether the images exist is not checked here: a missing one is the fault of its study alone, which the writer of the
    dataset quarantines.

    Args:
        annotation: R2Gen's `annotation.json`.
        images: folder that the image paths are relative to.

    Returns:
        Studies in the order train, val, test; the report is their `findings`, `patient` is `subject_id` where there is
        one, `extra` holds `study_id` where there is one, and `labels` are what `label_report` reads out of the report.

    Raises:
        UserError: a broken annotation (`read_annotation`), a missing image folder, or a path that leaves it.
    """
    entries = read_annotation(annotation)
    if not images.is_dir():
        raise UserError(f"{images}: no such folder; give the folder that the image paths of {annotation} start from")
    root = os.path.realpath(images)
    return [
        Study(
            id=entry["id"],
            patient=str(entry.get("subject_id", entry["id"])),
            split=split,
            findings=entry["report"],
            images=tuple(
                ImageFile(_inside(images, root, relative, f"{annotation}: {split}[{i}].image_path[{j}]"))
                for j, relative in enumerate(entry["image_path"])
            ),
            labels=dict(zip(OBSERVATIONS, label_report(entry["report"]).statuses, strict=True)),
            extra={"study_id": str(entry["study_id"])} if "study_id" in entry else {},
        )
        for split in SPLITS
        for i, entry in enumerate(entries[split])
    ]


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: over {MAX_BYTES // 2**20} MiB; give R2Gen's annotation.json")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give R2Gen's annotation.json") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: no JSON (line {error.lineno}); copy or download the file again") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: no JSON text in UTF-8; copy or download the file again") from None


def _checked_entry(entry: Any, split: str, place: str) -> dict[str, Any]:
    """The entry with `image_path` as a list."""
    if not isinstance(entry, dict):
        raise UserError(f"{place}: an object with id, report and image_path is needed, not {_json_type(entry)}")
    paths = entry.get("image_path")
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not paths:
        raise UserError(f"{place}.image_path: a path or a list of paths is needed; add the study's images")
    for j, relative in enumerate(paths):
        _check_text(relative, f"{place}.image_path[{j}]", may_be_empty=False)
    _check_text(entry.get("id"), f"{place}.id", may_be_empty=False)
    _check_text(entry.get("report"), f"{place}.report", may_be_empty=True)
    if entry.get("split", split) != split:
        raise UserError(f"{place}.split: contradicts the list that it lies in; make both {split} or move the entry")
    for key in ("study_id", "subject_id"):
        if key in entry and (isinstance(entry[key], bool) or not isinstance(entry[key], (int, str))):
            raise UserError(f"{place}.{key}: a number or a text is needed, not {_json_type(entry[key])}")
    return {**entry, "image_path": paths}


def _check_text(value: Any, place: str, *, may_be_empty: bool) -> None:
    if not isinstance(value, str):
        raise UserError(f"{place}: a text is needed, not {_json_type(value)}; fill it in")
    if not value.strip() and not may_be_empty:
        raise UserError(f"{place}: is empty; fill it in")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can hold half characters that neither a file name nor a Parquet column can.
        raise UserError(f"{place}: holds half a character; write the file in UTF-8") from None
    if "\0" in value:
        raise UserError(f"{place}: holds a zero character; take it out")


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _inside(images: Path, root: str, relative: str, place: str) -> Path:
    """The image's path, after a check that it lies in the image folder whatever links there are."""
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts:
        raise UserError(f"{place}: leaves the image folder; give paths relative to {images}, without '..'")
    joined = images / path
    if not os.path.realpath(joined).startswith(root.rstrip(os.sep) + os.sep):
        raise UserError(f"{place}: a link leads out of the image folder {images}; copy the file into it")
    return joined
