"""Reads a user's own studies from a manifest, a CSV or JSONL table with one study per row.

Columns: `images` (files, or folders of a study's files, relative to the manifest; in CSV separated by ";"), then either
`report` (free text, split at its headings) or `findings`, `impression`, `indication`; and optionally `study`,
`patient`, `split`, `views` (a position for every image) and one column for each labeled observation. All faults are
found before anything is written. Frontal views come first in a study, whatever the order of the list.
"""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossray.data.images import SUFFIXES, FileDescription, ImageFile, describe_image, view_position
from crossray.data.images.folders import listed_frontal_first, study_views
from crossray.data.sources.identifiers import PathError, PathFinder, identifier
from crossray.data.sources.labels import OWN_CONVENTION, label_origin, rule_labels
from crossray.data.sources.manifest_faults import Fault, FaultError, message
from crossray.data.sources.manifest_table import read_table
from crossray.data.sources.sections import Sections, split_sections
from crossray.data.sources.source import Collection, source
from crossray.data.sources.splits import split_patients, warn_of_shared_images
from crossray.data.store.identity import image_paths
from crossray.data.study import SPLITS, VIEW_POSITIONS, Study
from crossray.errors import LONGEST_QUOTE, UserError, choose, counted, did_you_mean, quoted
from crossray.files.digest import file_digest
from crossray.files.names import is_text, printable
from crossray.files.tables import is_rich_text
from crossray.text.lines import one_line
from crossray.text.missing import or_empty
from crossray.text.observations import OBSERVATIONS, STATUSES

TEXTS = ("findings", "impression", "indication")
COLUMNS = ("study", "patient", "split", "images", "views", "report", *TEXTS)

_LOGGER = logging.getLogger(__name__)

#: Maximum number of rows; MIMIC-CXR has 227,835 studies.
MAX_ROWS = 2**18

#: Maximum number of unknown columns that are named.
_MOST_COLUMNS = 5

#: CheXpert's codes of the statuses.
_NUMBERS = {"": "blank", "1": "positive", "1.0": "positive", "0": "negative", "0.0": "negative", "-1": "uncertain",
            "-1.0": "uncertain"}  # fmt: skip

_TEMPLATE_ROWS = (
    ("study-1", "patient-1", "train", "images/1/frontal.png;images/1/lateral.png", "pa;lateral",
     "The heart is normal in size. The lungs are clear.", "No acute disease.", "Cough.", "negative"),
    ("study-2", "patient-2", "test", "images/2/frontal.png", "ap", "Small left pleural effusion.", "", "", "positive"),
)  # fmt: skip


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest.

    Attributes:
        studies: studies of the valid rows, in the order of the file.
        faults: faults of the other rows, by line.
        labelled: whether the manifest contains labels; otherwise, the rule labeler reads them from the reports.
    """

    studies: tuple[Study, ...]
    faults: tuple[Fault, ...]
    labelled: bool


def filled_template() -> str:
    """Return a CSV manifest with two invented studies, as an example to fill in."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(column for column in COLUMNS if column != "report"), "pleural_effusion"])
    writer.writerows(_TEMPLATE_ROWS)
    return text.getvalue()


@source("manifest", cleaner="fixed", positional="manifest", alone={"template": "-"}, always_writes=False)
def manifest(
    manifest: Path | None = None,
    template: Path | None = None,
    skip_bad: bool = False,
    seed: int = 0,
    convention: str = OWN_CONVENTION,
) -> Collection | str:
    """Prepare your own studies from a CSV or JSONL table of image paths and reports.

    Args:
        manifest: CSV or JSONL table with one study per row; image paths are relative to its folder.
        template: only write a table to fill in, to this .csv file; without a file name, print it.
        skip_bad: skip bad rows and list them in rejected.jsonl instead of rejecting the table.
        seed: random seed of the 70/10/20 split by patient, for a table without the column split.
        convention: how the rules define the observations: crossray, or chexpert, as the CheXpert labeler does.
    """
    if template == Path("-"):
        return filled_template().rstrip()
    if template is not None:
        write_template(template)
        return f"{template} written: fill it in, then `crossray prepare manifest {template} --out FOLDER`"
    if manifest is None:
        raise UserError("the manifest and --out are needed (or --template FILE.csv, which writes a table to fill in).")
    read = read_manifest(manifest, seed=seed, skip_bad=skip_bad, convention=convention)
    described = {
        "kind": "manifest",
        "manifest": file_digest(manifest),
        "seed": seed,
        "skip_bad": skip_bad,
        "synthetic_images": False,
        "labels": label_origin("manifest" if read.labelled else None, convention),
    }
    skipped = [{"study": f"line-{f.line}", "step": "manifest", "reason": str(f)} for f in read.faults]
    return Collection(read.studies, described, rejected=skipped, files=image_paths(read.studies))


def write_template(path: Path) -> None:
    """Write `filled_template` to a new file.

    Raises:
        UserError: the file already exists or cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(filled_template())
    except FileExistsError:
        raise UserError(f"{path}: exists already; choose another name for the template") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another place") from None


def read_manifest(path: Path, *, seed: int = 0, skip_bad: bool = False, convention: str = OWN_CONVENTION) -> Manifest:
    """Read the studies of a manifest and find its faults.

    Args:
        path: .csv or .jsonl file in UTF-8.
        seed: random seed of the 70/10/20 split by patient, for a table without the column `split`.
        skip_bad: skip rows with a fault instead of rejecting the manifest.
        convention: convention of the rule labeler.

    Returns:
        The studies and the faults. A row without `study` is named `line-<number>`; one without `patient` counts as a
        separate patient. Labels are those of the columns, or those of the rule labeler if there are no such columns.

    Raises:
        UserError: the file cannot be read, has an unknown column or lacks a required one, or has bad rows, which are
            listed by line and column (`manifest_faults.message`).
    """
    columns, rows = read_table(path, "images")
    _check_columns(path, set(columns))
    labelled = "labels" in columns or any(name in columns for name in OBSERVATIONS)
    reader = _RowReader(path, "split" in columns, labelled, convention)
    studies: list[Study] = []
    faults: list[Fault] = []
    for line, row in rows:
        if len(studies) + len(faults) == MAX_ROWS:
            raise UserError(f"{path}: more than {MAX_ROWS} rows; split the manifest")
        try:
            if isinstance(row, FaultError):
                raise row
            studies.append(reader.study(line, row))
        except FaultError as fault:
            faults.append(fault.at(line))
    if faults and not skip_bad:
        raise UserError(message(path, faults))
    if not studies:
        raise UserError(f"{path}: no row can be used; fill it in as the template of --template shows")
    if "split" not in columns:
        drawn = split_patients((study.patient for study in studies), seed)
        studies = [replace(study, split=drawn[study.patient]) for study in studies]
    warn_of_shared_images(path, studies, "columns images and patient")
    _remark_shared_headers(path, reader.headers)
    return Manifest(tuple(studies), tuple(faults), labelled)


def _remark_shared_headers(path: Path, headers: Mapping[str, Mapping[str, set[str]]]) -> None:
    """Warn of patients that the table tells apart but the DICOM files do not, because splits are drawn by patient."""
    for field, patients in headers.items():
        if shared := [found for found in patients.values() if len(found) > 1]:
            _LOGGER.warning(
                "%s: %d patients share their %s in the DICOM files with another patient, so that training may see "
                "patients of the test; give the same patient the same name in the column patient",
                path,
                len(set().union(*shared)),
                field,
            )


class _RowReader:
    """Converts rows to studies, and checks them against earlier rows.

    Attributes:
        headers: the patients of the table in whose DICOM files a field has a value, by field and value.
    """

    def __init__(self, path: Path, has_split: bool, labelled: bool, convention: str) -> None:
        self._finder = PathFinder(path.parent)
        self._has_split, self._labelled, self._convention = has_split, labelled, convention
        self.headers: dict[str, dict[str, set[str]]] = {"PatientID": {}, "StudyInstanceUID": {}}
        self._lines: dict[str, int] = {}
        self._splits: dict[str, tuple[str, int]] = {}

    def study(self, line: int, row: Mapping[str, Any]) -> Study:
        name = identifier(_text(row, "study")) or f"line-{line}"
        # "nan" in many rows is not one patient
        patient = identifier(or_empty(_text(row, "patient"))) or name
        if name in self._lines:
            raise FaultError("study", f"the same as in line {self._lines[name]}; give every study its own name", name)
        split = _text(row, "split") if self._has_split else "train"  # replaced by a random split later
        if split not in SPLITS:
            raise FaultError("split", "is not train, val or test; write one of them in every row or in none", split)
        seen = self._splits.get(patient, (split, line))
        if seen[0] != split:
            raise FaultError("split", f"the patient is in another split in line {seen[1]}; keep a patient in one")
        sections = _sections(row)
        findings = sections.findings
        images, described = self._images(row)
        study = Study(
            id=name,
            patient=patient,
            split=split,
            findings=findings,
            impression=sections.impression,
            indication=sections.indication,
            images=images,
            labels=_labels(row) if self._labelled else rule_labels(findings, self._convention),
            extra=sections.extra(),
        )
        self._lines[name], self._splits[patient] = line, seen
        for found in described:
            for field, value in (("PatientID", found.patient), ("StudyInstanceUID", found.study)):
                if value:
                    self.headers[field].setdefault(value, set()).add(patient)
        return study

    def _images(self, row: Mapping[str, Any]) -> tuple[tuple[ImageFile, ...], list[FileDescription]]:
        """Return the views of a row, frontal ones first, and the descriptions of their files."""
        names = _list(row, "images")
        if not names:
            raise FaultError("images", "is empty; name at least one image file")
        paths = [self._path(name) for name in names]
        views = listed_positions(row, paths)
        files = [self._described(path, name) for path, name in zip(paths, names, strict=True)]
        described = {path: found for views_of_one in files for path, found in views_of_one.items()}
        if len({found.study for found in described.values() if found.study}) > 1:
            raise FaultError("images", "StudyInstanceUID differs between them; give each study a row of its own")
        if len(described) < sum(map(len, files)):
            raise FaultError("images", "an image is named twice; name each once")
        positions = views or [found.position for found in described.values()]
        images = [ImageFile(path, position) for path, position in zip(described, positions, strict=True)]
        return tuple(images[place] for place in listed_frontal_first(positions)), list(described.values())

    def _path(self, name: str) -> Path:
        try:
            return self._finder.existing(name)
        except PathError as error:
            raise FaultError("images", str(error).replace("the folder", "the manifest's folder"), _end(name)) from None

    def _described(self, path: Path, name: str) -> dict[Path, FileDescription]:
        """Return the descriptions of a file, or of the views in a folder."""
        if not path.is_dir():
            return {path: _described(path)}
        try:
            views = study_views(path)
        except UserError as error:
            reason = str(error).removeprefix(f"{printable(path)}: ").rstrip(".")
            raise FaultError("images", f"is a folder that cannot be used: {reason}", _end(name)) from None
        if not all(map(self._finder.is_inside, views)):
            raise FaultError("images", "is a folder with links to places outside the manifest's folder", _end(name))
        return views


def listed_positions(row: Mapping[str, Any], paths: Sequence[Path]) -> list[str]:
    """Return the positions in the column `views`, one for each image; none if the column is missing or empty.

    Raises:
        FaultError: a word is no position, their number differs from that of the images, or an image is a folder.
    """
    views = [_position(view) for view in _list(row, "views")]
    if views and len(views) != len(paths):
        raise FaultError(
            "views",
            f"{counted(len(views), 'position')} for {counted(len(paths), 'image')}; give one for each or none",
        )
    if views and any(path.is_dir() for path in paths):
        raise FaultError("views", "cannot be given for a folder; leave it empty or list the folder's files")
    return views


def _position(word: str) -> str:
    position = word.lower() if word.lower() in VIEW_POSITIONS else view_position(word)
    if position is None:
        raise FaultError("views", f"is not one of {', '.join(VIEW_POSITIONS)}; write one of them", word)
    return position


def _end(name: str) -> str:
    """Return the end of a long path, which is more informative than its start."""
    return name if len(name) <= LONGEST_QUOTE else f"...{name[3 - LONGEST_QUOTE :]}"


def _described(path: Path) -> FileDescription:
    """Describe a DICOM file; a damaged one is rejected with the reason later, when it is decoded."""
    if SUFFIXES.get(path.suffix.lower(), "DICOM") != "DICOM":
        return FileDescription()
    try:
        return describe_image(path)
    except UserError:
        return FileDescription()


def _sections(row: Mapping[str, Any]) -> Sections:
    report = or_empty(_text(row, "report", strip=False))
    for name in ("report", *TEXTS):
        if is_rich_text(_text(row, name)):
            raise FaultError(name, "is RTF, not plain text; export plain text")
    findings, impression, indication = (one_line(or_empty(_text(row, name))) for name in TEXTS)
    if report.strip() and (findings or impression or indication):
        raise FaultError("report", "is given together with sections; give the whole report or its sections, not both")
    if not report.strip():
        if not findings:
            raise FaultError("findings", "is empty; give the report's findings, or leave the row out")
        return Sections(findings, impression, indication, "", "heading")
    parts = split_sections(report)
    if parts.origin == "last_paragraph" and not parts.headings:
        return parts if not parts.remainder else Sections(one_line(report), "", "", "", "heading")
    if parts.findings and parts.origin != "last_paragraph":  # the last paragraph may also be a signature
        return parts
    named = ", ".join(repr(name) for name in dict.fromkeys(parts.unknown))
    seen = f" (not understood: {named[:200]})" if named else ""
    raise FaultError("report", f"has no findings section{seen}; head it FINDINGS: or use the column findings")


def _labels(row: Mapping[str, Any]) -> dict[str, str] | None:
    own = {name: row[name] for name in OBSERVATIONS if name in row} or None
    given = own if row.get("labels") is None else row["labels"]
    if given is None:  # nobody labeled the study, which is not that its observations are blank
        return None
    if not isinstance(given, Mapping):
        raise FaultError("labels", "is not an object; give an object of observations and statuses")
    if given is not own and own:
        raise FaultError(
            "labels", "is given together with columns of observations; give one of the two", next(iter(own))
        )
    labels = {}
    for name, value in given.items():
        if name not in OBSERVATIONS:
            raise FaultError("labels", f"is an unknown observation; {choose(name, OBSERVATIONS)}", name)
        word = "" if value is None else str(value).strip().lower()
        status = _NUMBERS.get(word, word)
        if status not in STATUSES:
            raise FaultError(name, f"is not one of {', '.join(STATUSES)} (or 1, 0, -1); write one of them", value)
        labels[name] = status
    return labels


def _text(row: Mapping[str, Any], column: str, *, strip: bool = True) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool) and column in ("study", "patient"):
        value = str(value)
    if not isinstance(value, str):
        raise FaultError(column, "is not text; put it in quotation marks")
    if not is_text(value):
        raise FaultError(column, "contains an incomplete character; write the file in UTF-8")
    if "\0" in value:
        raise FaultError(column, "contains a zero character; remove it")
    return value.strip() if strip else value


def _list(row: Mapping[str, Any], column: str) -> list[str]:
    """Return the texts of a list, or the parts of one text that are separated by ";"."""
    value = row.get(column)
    if not isinstance(value, list):
        return [part.strip() for part in _text(row, column).split(";") if part.strip()]
    return [_text({column: part}, column) for part in value]


def _check_columns(path: Path, columns: set[str]) -> None:
    known = {*COLUMNS, *OBSERVATIONS, *(("labels",) if path.suffix.lower() == ".jsonl" else ())}
    if unknown := sorted(str(column) for column in columns - known):
        one = len(unknown) == 1
        listed = ", ".join(map(quoted, unknown[:_MOST_COLUMNS])) + ", ..." * (len(unknown) > _MOST_COLUMNS)
        raise UserError(
            f"{path}: column{'s' * (not one)} {listed} {'is' if one else 'are'} unknown"
            f"{did_you_mean(unknown[0], known) if one else ''}; remove {'it' if one else 'them'} or use the columns "
            f"{', '.join(COLUMNS)} and names of observations"
        )
    if "images" not in columns or not columns & {"report", "findings"}:
        missing = "images" if "images" not in columns else "findings (or report)"
        raise UserError(f"{path}: column {missing}: is missing; --template writes a manifest to fill in")
