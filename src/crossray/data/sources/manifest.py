"""A user's own studies: a CSV or JSONL table with one study a row.

Columns: `images` (files, or folders of a study's files, relative to the manifest; in CSV separated by ";"), then either
`report` (free text, parted at its headings) or `findings`, `impression`, `indication`; and optionally `study`,
`patient`, `split`, `views` (a position for every image) and one column for each observation that is labelled. Every
fault is found before anything is written.
"""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from crossray.data.images import SUFFIXES, ImageFile, describe_image
from crossray.data.images.folders import frontal_first, view_files
from crossray.data.sources.labels import RULE_LABELS, rule_labels
from crossray.data.sources.sections import has_headings, split_sections
from crossray.data.sources.source import Collection, source
from crossray.data.sources.splits import split_patients
from crossray.data.study import SPLITS, VIEW_POSITIONS, Study
from crossray.errors import UserError
from crossray.files.digest import file_digest
from crossray.text.observations import OBSERVATIONS, STATUSES

TEXTS = ("findings", "impression", "indication")
COLUMNS = ("study", "patient", "split", "images", "views", "report", *TEXTS)

#: Faults that one message lists.
MOST_FAULTS = 20

#: Largest manifest that is read, in bytes, and most rows of it: both keep the memory needed below 1 GB. MIMIC-CXR has
#: 227,835 studies.
MAX_BYTES = 2**28
MAX_ROWS = 2**18

#: Longest line, in characters.
MAX_LINE = 2**20

#: CheXpert's numbers for the statuses.
_NUMBERS = {"": "blank", "1": "positive", "1.0": "positive", "0": "negative", "0.0": "negative", "-1": "uncertain",
            "-1.0": "uncertain"}  # fmt: skip

_TEMPLATE_ROWS = (
    ("study-1", "patient-1", "train", "images/1/frontal.png;images/1/lateral.png", "pa;lateral",
     "The heart is normal in size. The lungs are clear.", "No acute disease.", "Cough.", "negative"),
    ("study-2", "patient-2", "test", "images/2/frontal.png", "ap", "Small left pleural effusion.", "", "", "positive"),
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a row: it names no value, which could be a patient's."""

    line: int
    column: str
    remedy: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.column}: {self.remedy}"


class _FaultError(Exception):
    """Column and remedy of what is wrong in the row that is being read."""

    def __init__(self, column: str, remedy: str) -> None:
        super().__init__(remedy)
        self.column, self.remedy = column, remedy


@dataclass(frozen=True)
class Manifest:
    """What a manifest holds.

    Attributes:
        studies: of the rows without fault, in the file's order.
        faults: of the other rows, by line.
        labelled: whether the manifest brings labels; otherwise they are read out of the reports.
    """

    studies: tuple[Study, ...]
    faults: tuple[Fault, ...]
    labelled: bool


@source("manifest", cleaner="fixed", positional="manifest", always_writes=False)
def manifest(
    manifest: Path | None = None, template: Path | None = None, skip_bad: bool = False, seed: int = 0
) -> Collection | str:
    """Prepare your own studies from a CSV or JSONL table of image paths and reports; every bad row is named.

    Args:
        manifest: CSV or JSONL table, one study a row; image paths are relative to its folder.
        template: write a table to be filled in to this .csv file, and do nothing else.
        skip_bad: leave bad rows out and list them in rejected.jsonl, instead of refusing the table.
        seed: seed of the 70/10/20 split by patient that is drawn when the table has no column split.
    """
    if template is not None:
        write_template(template)
        return f"{template} written: fill it in, then `crossray prepare manifest {template} --out FOLDER`"
    if manifest is None:
        raise UserError("the manifest and --out are needed (or --template FILE.csv, which writes a table to fill in).")
    read = read_manifest(manifest, seed=seed, skip_bad=skip_bad)
    described = {
        "kind": "manifest",
        "manifest": file_digest(manifest),
        "seed": seed,
        "skip_bad": skip_bad,
        "synthetic_images": False,
        "labels": "manifest" if read.labelled else RULE_LABELS,
    }
    skipped = [{"study": f"line-{f.line}", "step": "manifest", "reason": str(f)} for f in read.faults]
    return Collection(read.studies, described, rejected=skipped)


def write_template(path: Path) -> None:
    """Write a CSV manifest with two invented studies, to be filled in.

    Raises:
        UserError: the file exists already or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                [*(column for column in COLUMNS if column != "report"), "pleural_effusion"],
            )
            writer.writerows(_TEMPLATE_ROWS)
    except FileExistsError:
        raise UserError(f"{path}: exists already; choose another name for the template") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another place") from None


def read_manifest(path: Path, *, seed: int = 0, skip_bad: bool = False) -> Manifest:
    """Read a manifest and find what is wrong in it.

    Args:
        path: .csv or .jsonl file in UTF-8.
        seed: seed of the 70/10/20 split by patient that is drawn when the column `split` is left out.
        skip_bad: leave rows with a fault out instead of refusing the manifest.

    Returns:
        The studies. A row without `study` is called `line-<number>`, one without `patient` is a patient of its own.
        Labels are those of the columns; rows of a manifest without such columns get those of the rule labeler.

    Raises:
        UserError: the file cannot be read, has an unknown or no needed column, or has bad rows: up to `MOST_FAULTS` of
            them are named by line and column.
    """
    columns, rows = _table(path)
    _check_columns(path, columns)
    labelled = "labels" in columns or any(name in columns for name in OBSERVATIONS)
    reader = _RowReader(path, "split" in columns, labelled)
    studies: list[Study] = []
    faults: list[Fault] = []
    for line, row in rows:
        if len(studies) + len(faults) == MAX_ROWS:
            raise UserError(f"{path}: over {MAX_ROWS} rows; part the manifest")
        try:
            if isinstance(row, _FaultError):
                raise row
            studies.append(reader.study(line, row))
        except _FaultError as fault:
            faults.append(Fault(line, fault.column, fault.remedy))
    if faults and not skip_bad:
        raise UserError(_message(path, faults))
    if not studies:
        raise UserError(f"{path}: no row can be used; fill it in as the template of --template shows")
    if "split" not in columns:
        drawn = split_patients((study.patient for study in studies), seed)
        studies = [replace(study, split=drawn[study.patient]) for study in studies]
    return Manifest(tuple(studies), tuple(faults), labelled)


class _RowReader:
    """Turns rows into studies, and knows those before."""

    def __init__(self, path: Path, has_split: bool, labelled: bool) -> None:
        self._folder = path.parent
        self._root = os.path.realpath(path.parent).rstrip(os.sep) + os.sep
        self._has_split, self._labelled = has_split, labelled
        self._lines: dict[str, int] = {}
        self._splits: dict[str, tuple[str, int]] = {}

    def study(self, line: int, row: Mapping[str, Any]) -> Study:
        identifier = _text(row, "study") or f"line-{line}"
        patient = _text(row, "patient") or identifier
        if identifier in self._lines:
            raise _FaultError("study", f"the same as in line {self._lines[identifier]}; give every study its own name")
        split = _text(row, "split") if self._has_split else "train"  # a drawn split is filled in later
        if split not in SPLITS:
            raise _FaultError("split", "is none of train, val and test; write one of them in every row or in none")
        seen = self._splits.get(patient, (split, line))
        if seen[0] != split:
            raise _FaultError("split", f"the patient is in another split in line {seen[1]}; keep a patient in one")
        findings, impression, indication = _sections(row)
        study = Study(
            id=identifier,
            patient=patient,
            split=split,
            findings=findings,
            impression=impression,
            indication=indication,
            images=self._images(row),
            labels=_labels(row) if self._labelled else rule_labels(findings),
        )
        self._lines[identifier], self._splits[patient] = line, seen
        return study

    def _images(self, row: Mapping[str, Any]) -> tuple[ImageFile, ...]:
        names = _list(row, "images")
        if not names:
            raise _FaultError("images", "is empty; name at least one image file")
        views = [view.lower() for view in _list(row, "views")]
        if views and len(views) != len(names):
            raise _FaultError("views", f"{len(views)} positions for {len(names)} images; give one for each or none")
        if unknown := [place for place, view in enumerate(views, 1) if view not in VIEW_POSITIONS]:
            message = f"position {unknown[0]} is none of {', '.join(VIEW_POSITIONS)}; write one of them"
            raise _FaultError("views", message)
        paths = [self._path(name, place) for place, name in enumerate(names, 1)]
        if views and any(path.is_dir() for path in paths):
            raise _FaultError("views", "stands beside a folder; leave it empty or name the folder's files")
        files = [self._views(path, place) for place, path in enumerate(paths, 1)]
        if len({study for described in files for _, study in described.values() if study}) > 1:
            raise _FaultError("images", "StudyInstanceUID differs between them; give each study a row of its own")
        positions = {path: position for described in files for path, (position, _) in described.items()}
        if len(positions) < sum(map(len, files)):
            raise _FaultError("images", "an image is named twice; name each once")
        if views:
            positions = dict(zip(paths, views, strict=True))
        return tuple(ImageFile(path, position) for path, position in positions.items())

    def _path(self, name: str, place: int) -> Path:
        relative = PurePosixPath(name.replace("\\", "/"))
        path = self._folder / relative
        if relative.is_absolute() or not self._is_inside(path) or os.path.realpath(path) + os.sep == self._root:
            raise _FaultError("images", f"image {place} lies outside the manifest's folder; give a path inside it")
        try:
            exists = path.is_file() or path.is_dir()
        except OSError:  # a name that no file system takes
            exists = False
        if not exists:
            raise _FaultError("images", f"image {place} does not exist; paths are relative to the manifest")
        return path

    def _is_inside(self, path: Path) -> bool:
        return (os.path.realpath(path) + os.sep).startswith(self._root)

    def _views(self, path: Path, place: int) -> dict[Path, tuple[str, str]]:
        """Position and study (`describe_image`) of a file, or of the views in a folder, frontal ones first."""
        if not path.is_dir():
            return {path: _described(path)}
        try:
            files = view_files(path)
        except UserError:
            raise _FaultError(
                "images", f"image {place} is a folder without images; name the folder of a study"
            ) from None
        if not all(map(self._is_inside, files)):
            raise _FaultError("images", f"image {place} is a folder with links that leave the manifest's folder")
        described = {file: _described(file) for file in files}
        order = frontal_first({file: position for file, (position, _) in described.items()})
        return {file: described[file] for file in order}


def _described(path: Path) -> tuple[str, str]:
    """What a DICOM file says of its place; a damaged one is rejected later, with the reason, when it is decoded."""
    if SUFFIXES.get(path.suffix.lower(), "DICOM") != "DICOM":
        return "unknown", ""
    try:
        return describe_image(path)
    except UserError:
        return "unknown", ""


def _sections(row: Mapping[str, Any]) -> tuple[str, str, str]:
    report = _text(row, "report", strip=False)
    texts = tuple(_text(row, name) for name in TEXTS)
    if report.strip() and any(texts):
        raise _FaultError("report", "stands beside sections; give the whole report or its sections, not both")
    if report.strip():
        if not has_headings(report):
            return " ".join(report.split()), "", ""
        parts = split_sections(report)
        if not parts.findings:
            raise _FaultError("report", "has no findings section; add one or give the text in the column findings")
        return parts.findings, parts.impression, parts.indication
    findings, impression, indication = texts
    if not findings:
        raise _FaultError("findings", "is empty; give the report's findings, or leave the row out")
    return findings, impression, indication


def _labels(row: Mapping[str, Any]) -> dict[str, str]:
    given = row.get("labels") or {name: row[name] for name in OBSERVATIONS if name in row}
    if not isinstance(given, Mapping):
        raise _FaultError("labels", "is no object; give an object of observations and statuses")
    labels = {}
    for name, value in given.items():
        if name not in OBSERVATIONS:
            raise _FaultError("labels", f"holds an unknown observation; known are {', '.join(OBSERVATIONS)}")
        word = "" if value is None else str(value).strip().lower()
        status = _NUMBERS.get(word, word)
        if status not in STATUSES:
            raise _FaultError(name, f"is none of {', '.join(STATUSES)} (or 1, 0, -1); write one of them")
        labels[name] = status
    return labels


def _text(row: Mapping[str, Any], column: str, *, strip: bool = True) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and column in ("study", "patient"):
        value = str(value)
    if not isinstance(value, str):
        raise _FaultError(column, "is no text; put it in quotation marks")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _FaultError(column, "holds half a character; write the file in UTF-8") from None
    if "\0" in value:
        raise _FaultError(column, "holds a zero character; take it out")
    return value.strip() if strip else value


def _list(row: Mapping[str, Any], column: str) -> list[str]:
    """The texts of a list, or of one text with ";" between them."""
    value = row.get(column)
    if not isinstance(value, list):
        return [part.strip() for part in _text(row, column).split(";") if part.strip()]
    return [_text({column: part}, column) for part in value]


_Rows = Iterator[tuple[int, "dict[str, Any] | _FaultError"]]


def _table(path: Path) -> tuple[set[str], _Rows]:
    """The columns, and line and fields of every row."""
    if path.suffix.lower() == ".jsonl":
        return {key for _, row in _json_rows(path) if isinstance(row, dict) for key in row}, _json_rows(path)
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader(_lines(path), strict=True)
        try:
            return set(reader.fieldnames or ()), _csv_rows(path, reader)
        except csv.Error as error:
            raise UserError(f"{path}: line 1: no CSV ({error}); save the table as CSV again") from None
    raise UserError(f"{path}: is neither .csv nor .jsonl; give a manifest in one of these formats")


def _lines(path: Path) -> Iterator[str]:
    """The lines, with their ends."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: over {MAX_BYTES // 2**20} MiB; part the manifest")
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            while line := file.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise UserError(f"{path}: a line of over {MAX_LINE} characters; write one study a line")
                yield line
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; save it as UTF-8") from None


def _csv_rows(path: Path, reader: "csv.DictReader[str]") -> _Rows:
    try:
        for row in reader:
            if None in row or None in row.values():
                yield reader.line_num, _FaultError("row", "not as many fields as columns; quote texts with commas")
            else:
                yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: no CSV ({error}); save the table as CSV again") from None


def _json_rows(path: Path) -> _Rows:
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            yield number, _json_row(line)


def _json_row(line: str) -> "dict[str, Any] | _FaultError":
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return _FaultError("row", "is no JSON; write one object a line")
    return row if isinstance(row, dict) else _FaultError("row", "is no object; write one object a line")


def _check_columns(path: Path, columns: set[str]) -> None:
    known = {*COLUMNS, *OBSERVATIONS, *(("labels",) if path.suffix.lower() == ".jsonl" else ())}
    if unknown := sorted(str(column) for column in columns - known):
        raise UserError(
            f"{path}: column {unknown[0][:60]!a}: is unknown; known are {', '.join(COLUMNS)} and observations"
        )
    if "images" not in columns or not columns & {"report", "findings"}:
        missing = "images" if "images" not in columns else "findings (or report)"
        raise UserError(f"{path}: column {missing}: is missing; --template writes a manifest to fill in")


def _message(path: Path, faults: list[Fault]) -> str:
    count = f"{len(faults)} bad rows" if len(faults) > 1 else "1 bad row"
    shown = "".join(f"\n  {path.name}: {fault}" for fault in faults[:MOST_FAULTS])
    more = f"\n  and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
    return f"{path}: {count}; correct them, or leave them out with --skip-bad{shown}{more}"
