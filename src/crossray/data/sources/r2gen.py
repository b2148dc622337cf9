"""R2Gen's annotation file and related formats (see `r2gen_formats`): reports, splits and image paths.

All listed images are kept; the model decides how many it uses. The order of IU X-Ray's two views is not guaranteed, so
their position is "unknown" unless the file states it.
"""

import json
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from crossray.data.images import ImageFile
from crossray.data.images.folders import listed_frontal_first
from crossray.data.sources.identifiers import PathError, PathFinder, identifier
from crossray.data.sources.labels import OWN_CONVENTION, label_origin, rule_labels
from crossray.data.sources.r2gen_formats import FIELDS, Entry, Kind, detect, entries, json_type, load
from crossray.data.sources.source import Collection, source
from crossray.data.sources.splits import warn_of_shared_images
from crossray.data.store.identity import image_paths
from crossray.data.study import SPLITS, Split, Study
from crossray.errors import UserError, quoted
from crossray.files.digest import file_digest
from crossray.files.names import is_text
from crossray.text.missing import or_empty
from crossray.text.observations import CHEXPERT, PROMPTMRG, STATUSES

#: Maximum size of an annotation file in bytes; MIMIC-CXR's has about a fifth of it.
MAX_BYTES = 2**30


@dataclass(frozen=True)
class Annotation:
    """A checked annotation file.

    Attributes:
        path: path of the file, or of COACL's folder.
        kind: format of the file.
        labelled: whether every entry has `labels`.
        splits: entries of train, val and test in file order, with R2Gen's fields and `image_path` as a list.
        places: locations of these entries in the file, for messages.
    """

    path: Path
    kind: Kind
    labelled: bool
    splits: dict[Split, list[dict[str, Any]]]
    places: dict[Split, list[str]]


@source("r2gen")
def r2gen(
    annotation: Path,
    images: Path,
    kind: Literal["auto", "r2gen", "promptmrg", "coacl", "rexrank"] = "auto",
    labels: Literal["annotation", "rules"] = "annotation",
    convention: str = OWN_CONVENTION,
) -> Collection:
    """Prepare a dataset in R2Gen's layout or a relative's: an annotation and a folder of images.

    Args:
        annotation: R2Gen's annotation.json, PromptMRG's or ReXrank's file, or COACL's folder of three files.
        images: folder that the annotation's image paths are relative to.
        kind: format of the annotation; auto detects it.
        labels: annotation uses the labels in the file, if it has any (PromptMRG); rules reads labels from the reports.
        convention: how the rules define the observations: crossray, or chexpert, as the CheXpert labeler does.
    """
    opened = open_annotation(annotation, None if kind == "auto" else kind)
    described = {
        "kind": opened.kind,
        "annotation": list(map(file_digest, sorted(annotation.glob("*.json")))) or file_digest(annotation),
        "synthetic_images": False,
        "labels": label_origin("annotation" if opened.labelled and labels == "annotation" else None, convention),
    }
    studies = read_r2gen(opened, images, labels, convention)
    warn_of_shared_images(annotation, studies, "image paths")
    return Collection(studies, described, files=image_paths(studies))


def open_annotation(path: Path, kind: Kind | None = None) -> Annotation:
    """Read and check an annotation file.

    Args:
        path: JSON file, or folder with COACL's three files. A missing split is empty; an `image_path` may also be a
            single string.
        kind: format of the file; None to detect it.

    Raises:
        UserError: the file is missing or not JSON, a field is missing or of the wrong type, an id occurs twice, only
            some entries have labels, or an entry's `split` differs from the list that it is in. The message names the
            entry and the field as in the file.
    """
    content = load(path, _read_json)
    kind = kind or detect(content)
    splits: dict[Split, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    places: dict[Split, list[str]] = {split: [] for split in SPLITS}
    first_places: dict[str, str] = {}
    labelled = unlabelled = ""
    for found in entries(content, kind, path):
        entry = _checked_entry(found, kind)
        shown = found.place.removeprefix(f"{path}: ")
        first = first_places.setdefault(unicodedata.normalize("NFC", entry["id"]), shown)
        if first != shown:
            field = FIELDS[kind].get("id", "id")
            raise UserError(f"{found.place}.{field}: the same as {first}.{field}; give every study an id of its own")
        labelled, unlabelled = (shown, unlabelled) if "labels" in entry else (labelled, shown)
        splits[found.split].append(entry)  # type: ignore[index]
        places[found.split].append(found.place)  # type: ignore[index]
    if not first_places:
        raise UserError(f"{path}: there are no entries; give an annotation file with studies under train, val or test")
    if labelled and unlabelled:
        raise UserError(
            f"{path}: {unlabelled}.labels is missing, but {labelled} has labels; give labels to all studies or to none"
        )
    return Annotation(path, kind, bool(labelled), splits, places)


def read_annotation(path: Path) -> dict[Split, list[dict[str, Any]]]:
    """Return the entries of an annotation file by split; see `open_annotation`."""
    return open_annotation(path).splits


def read_r2gen(
    annotation: Path | Annotation,
    images: Path,
    labels: Literal["annotation", "rules"] = "annotation",
    convention: str = OWN_CONVENTION,
) -> list[Study]:
    """Read the studies of an annotation file.

    It is not checked whether the images exist: the dataset writer rejects studies with missing images.

    Args:
        annotation: R2Gen's `annotation.json` or a related format.
        images: folder that the image paths are relative to.
        labels: "annotation" uses the labels of the file if it has any (those of CheXbert in PromptMRG's), and otherwise
            those of the rules; "rules" always uses the rules.
        convention: convention of the rule labeler.

    Returns:
        Studies in the order train, val, test, with frontal views first if the file states the positions. The report is
        stored as `findings`, `subject_id`, if present, as `patient`, and `study_id`, if present, in `extra`.

    Raises:
        UserError: the annotation is invalid (`open_annotation`), the image folder is missing, or a path points outside
            it.
    """
    if isinstance(annotation, Path):
        annotation = open_annotation(annotation)
    if not images.is_dir():
        raise UserError(
            f"{images}: no such folder; give the folder that the image paths of {annotation.path} start from"
        )
    finder = PathFinder(images)
    own = annotation.labelled and labels == "annotation"
    return [
        Study(
            id=entry["id"],
            patient=identifier(or_empty(str(entry.get("subject_id", "")))) or identifier(entry["id"]),
            split=split,
            findings=or_empty(entry["report"]),
            impression=or_empty(entry.get("impression", "")),
            indication=or_empty(entry.get("indication", "")),
            images=_images(entry, finder, place),
            labels=_labels(entry["labels"]) if own else rule_labels(entry["report"], convention),
            extra={"study_id": str(entry["study_id"])} if "study_id" in entry else {},
        )
        for split in SPLITS
        for entry, place in zip(annotation.splits[split], annotation.places[split], strict=True)
    ]


def _images(entry: dict[str, Any], finder: PathFinder, place: str) -> tuple[ImageFile, ...]:
    positions = entry.get("positions") or ["unknown"] * len(entry["image_path"])
    files = [
        ImageFile(_inside(finder, relative, f"{place}.image_path[{j}]"), position)
        for j, (relative, position) in enumerate(zip(entry["image_path"], positions, strict=True))
    ]
    return tuple(files[view] for view in listed_frontal_first(positions))


def _labels(codes: list[int]) -> dict[str, str]:
    """Convert PromptMRG's codes (indices of `STATUSES`) of its first 14 or all 18 observations to labels."""
    # `1.0`, as NumPy writes it, equals 1 but is no index
    return {name: STATUSES[int(code)] for name, code in zip(PROMPTMRG, codes, strict=False)}


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES // 2**20} MiB; give R2Gen's annotation.json")
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_without_repetition)
    except _RepeatedKeyError as error:
        raise UserError(f"{path}: the key {quoted(error)} appears twice in an object; keep one of the two") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give R2Gen's annotation.json") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON (line {error.lineno}); copy or download the file again") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not JSON text in UTF-8; copy or download the file again") from None


class _RepeatedKeyError(Exception):
    """An object repeats a key, of which `json` would silently keep only the last value; the message is the key."""


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _RepeatedKeyError(Counter(key for key, _ in pairs).most_common(1)[0][0])
    return found


def _checked_entry(found: Entry, kind: Kind) -> dict[str, Any]:
    """Check an entry, and return it with `image_path` as a list."""
    entry, place, names = found.values, found.place, FIELDS[kind]
    if not isinstance(entry, dict):
        fields = [names.get(field, field) for field in ("id", "report", "image_path")]
        raise UserError(f"{place}: an object with {', '.join(fields)} is needed, not {json_type(entry)}")
    paths = entry.get("image_path")
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not paths:
        raise UserError(f"{place}.image_path: a path or a list of paths is needed; add the study's images")
    for j, relative in enumerate(paths):
        _check_text(relative, f"{place}.{names.get('image_path', 'image_path')}[{j}]", may_be_empty=False)
    for field in ("id", "report", "impression", "indication"):
        if field in ("id", "report") or field in entry:
            _check_text(entry.get(field), f"{place}.{names.get(field, field)}", may_be_empty=field != "id")
    if kind != "coacl" and entry.get("split", found.split) != found.split:
        raise UserError(
            f"{place}.split: differs from the list that the entry is in; make both {found.split} or move the entry"
        )
    for key in ("study_id", "subject_id"):
        if key in entry and (isinstance(entry[key], bool) or not isinstance(entry[key], (int, str))):
            raise UserError(f"{place}.{key}: a number or a text is needed, not {json_type(entry[key])}")
    if "labels" in entry:
        _check_labels(entry["labels"], f"{place}.labels")
    return {**entry, "image_path": paths}


def _check_labels(codes: Any, place: str) -> None:
    if not isinstance(codes, list) or len(codes) not in (len(CHEXPERT), len(PROMPTMRG)):
        raise UserError(f"{place}: a list of {len(CHEXPERT)} or {len(PROMPTMRG)} codes is needed; copy it again")
    for j, code in enumerate(codes):
        if isinstance(code, bool) or code not in range(len(STATUSES)):
            raise UserError(f"{place}[{j}]: is not one of 0 (blank), 1 (positive), 2 (negative), 3 (uncertain)")


def _check_text(value: Any, place: str, *, may_be_empty: bool) -> None:
    if not isinstance(value, str):
        raise UserError(f"{place}: a text is needed, not {json_type(value)}; fill it in")
    if not value.strip() and not may_be_empty:
        raise UserError(f"{place}: is empty; fill it in")
    if not is_text(value):
        raise UserError(f"{place}: contains an incomplete character; write the file in UTF-8")
    if "\0" in value:
        raise UserError(f"{place}: contains a zero character; remove it")


def _inside(finder: PathFinder, relative: str, place: str) -> Path:
    """Return the path of an image after checking that it is in the image folder, also after resolving links."""
    if ".." in PurePosixPath(relative.replace("\\", "/")).parts:
        raise UserError(
            f"{place}: points outside the image folder; give paths relative to {finder.folder}, without '..'"
        )
    try:
        return finder.inside(relative)
    except PathError as error:
        raise UserError(
            f"{place}: points outside the image folder {finder.folder}: {quoted(relative)} {error}"
        ) from None
