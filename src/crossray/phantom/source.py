"""Data sources of drawn studies: fully synthetic, or real reports with images drawn from their tags."""

import csv
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from crossray.data.sources.r2gen import read_annotation
from crossray.data.sources.source import Collection, source
from crossray.data.study import SPLITS, Split, Study, View
from crossray.errors import UserError
from crossray.files.digest import file_digest
from crossray.phantom.draw import draw
from crossray.phantom.labels import labels_of
from crossray.phantom.report import write_report
from crossray.phantom.sample import sample_scene, split_of
from crossray.phantom.scene import Scene, Severity
from crossray.phantom.tags import coverage, scene_from_tags

#: The columns used from `indiana_reports.csv`.
TAGS_COLUMNS = ("uid", "MeSH", "indication", "impression")


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """A view of a scene, drawn when it is read."""

    scene: Scene
    view: Literal["frontal", "lateral"]

    @property
    def position(self) -> str:
        """Position of the view: "lateral", or the direction of the scene's frontal view, "pa" or "ap"."""
        return "lateral" if self.view == "lateral" else self.scene.exposure.position

    @property
    def name(self) -> str:
        """Name of the drawing in messages."""
        return f"drawing {self.scene.seed} ({self.view})"

    def read(self, size: int) -> View:
        """Draw the view with a short side of `size` pixels, and a mask of each visible finding."""
        return draw(self.scene, self.view, size)


@dataclass(frozen=True)
class PhantomStudies(Sequence[Study]):
    """Drawn studies, created on demand; study i depends only on (seed, i, severity)."""

    length: int
    seed: int
    severity: Severity

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> Study: ...
    @overload
    def __getitem__(self, index: slice) -> list[Study]: ...
    def __getitem__(self, index: int | slice) -> Study | list[Study]:
        if isinstance(index, slice):
            return [self._study(i) for i in range(self.length)[index]]
        return self._study(range(self.length)[index])

    def _study(self, index: int) -> Study:
        scene = sample_scene(self.seed, index, self.severity)
        split = split_of(self.seed, index)
        report = write_report(scene, split, np.random.default_rng((self.seed, index, 2)))
        name = f"phantom-{self.seed}-{index:06d}"
        return Study(
            id=name,
            patient=name,
            split=split,
            findings=report.findings,
            impression=report.impression,
            indication=report.indication,
            images=_images(scene, both=scene.exposure.position == "pa"),
            labels=labels_of(scene),
        )


@source("phantom")
def phantom(
    studies: int = 600,
    seed: int = 0,
    severity: Literal["easy", "realistic"] = "realistic",
    like: Path | None = None,
    tags: Path | None = None,
) -> Collection:
    """Draw synthetic radiographs with known findings, masks and reports; or images for real reports (--like, --tags).

    Args:
        studies: number of studies to draw (without --like).
        seed: random seed; the studies do not depend on the number of workers.
        severity: how clearly findings show: easy or realistic.
        like: R2Gen's annotation.json, to use its reports and splits and draw only the images.
        tags: indiana_reports.csv with the MeSH tags from which images are drawn for --like.
    """
    if (like is None) != (tags is None):
        raise UserError("--like and --tags belong together: give R2Gen's annotation.json and indiana_reports.csv.")
    described: dict[str, Any] = {"kind": "phantom", "seed": seed, "severity": severity, "synthetic_images": True}
    if like is not None and tags is not None:
        records = like_studies(like, tags, seed, severity)
        described |= {"like": file_digest(like), "tags": file_digest(tags)}
        return Collection(records, described, tag_notes(records))
    if studies < 1:
        raise UserError(f"--studies {studies}: draw at least 1.")
    return Collection(phantom_studies(studies, seed, severity), described | {"studies": studies})


def phantom_studies(count: int, seed: int = 0, severity: Severity = "realistic") -> Sequence[Study]:
    """Create synthetic studies `phantom-<seed>-<index>`: 70 % training, 10 % validation, 20 % test.

    Studies have a frontal and a lateral view, except those taken at the bedside (AP), which have only a frontal view.

    Args:
        count: number of studies; a longer sequence begins with the same studies.
        seed: seed of the dataset, 0 or more.
        severity: "easy" or "realistic"; see `sample_scene`.

    Returns:
        A picklable sequence that creates each study on demand.

    Raises:
        UserError: `count` or `seed` is negative.
    """
    if count < 0 or seed < 0:
        raise UserError(f"studies {count}, seed {seed}: must not be negative; give numbers from 0 on")
    return PhantomStudies(count, seed, severity)


def like_studies(annotation: Path, tags_csv: Path, seed: int = 0, severity: Severity = "realistic") -> Sequence[Study]:
    """Combine real reports of IU X-Ray with images drawn from the MeSH tags of the same studies.

    Args:
        annotation: R2Gen's `annotation.json`, with findings, ids (`CXR<uid>_...`) and splits.
        tags_csv: `indiana_reports.csv`, with tags, impression and indication by `uid`.
        seed: random seed for everything that the tags do not specify, 0 or more.
        severity: amount of variation of patient and exposure.

    Returns:
        Studies in the annotation's order, each with a frontal and a lateral view, the labels of the drawn scene, and
        all of its `tags` and `undrawn_tags` in `extra`.

    Raises:
        UserError: a file cannot be read or lacks a column, or a study of the annotation has no tags.
    """
    rows = _read_tags_csv(tags_csv)
    entries = read_annotation(annotation)
    return [
        _like_study(entry, split, _tags_row(entry["id"], rows, annotation, tags_csv), seed, severity)
        for split in SPLITS
        for entry in entries[split]
    ]


def tag_notes(studies: Iterable[Study]) -> dict[str, Any]:
    """Count the tags that `like_studies` draws, for the notes of the prepared dataset.

    Returns:
        `abnormal_tags` and `drawn_tags` (numbers of occurrences), `drawn_share`, and `undrawn_tags`: occurrences by
        tag, the most frequent first.
    """
    counts = coverage(";".join(study.extra["tags"]) for study in studies)
    return {
        "abnormal_tags": counts.abnormal,
        "drawn_tags": counts.drawn,
        "drawn_share": round(counts.share, 4),
        "undrawn_tags": dict(counts.undrawn),
    }


def _images(scene: Scene, *, both: bool) -> tuple[DrawnImage, ...]:
    frontal = DrawnImage(scene, "frontal")
    return (frontal, DrawnImage(scene, "lateral")) if both else (frontal,)


def _like_study(entry: Mapping[str, Any], split: Split, row: Mapping[str, str], seed: int, severity: Severity) -> Study:
    # The seed depends on the id, so that studies with equal tags show different patients.
    scene = scene_from_tags(row["MeSH"], zlib.crc32(f"{seed}/{entry['id']}".encode()), severity)
    return Study(
        id=entry["id"],
        patient=entry["id"],
        split=split,
        findings=entry["report"],
        impression=row["impression"],
        indication=row["indication"],
        images=_images(scene, both=True),
        labels=labels_of(scene),
        extra={
            "tags": [tag.strip() for tag in row["MeSH"].split(";") if tag.strip()],
            "undrawn_tags": list(scene.undrawn),
        },
    )


def _tags_row(study: str, rows: Mapping[str, Mapping[str, str]], annotation: Path, tags_csv: Path) -> Mapping[str, str]:
    match = re.match(r"CXR(\d+)_", study)
    if not match:
        raise UserError(
            f"{annotation}: id {study!r}: is not of IU X-Ray's form CXR<uid>_IM-<n>; use its annotation.json"
        )
    if match[1] not in rows:
        raise UserError(f"{tags_csv}: uid {match[1]}: no such row for a study of {annotation}; use the complete file")
    return rows[match[1]]


def _read_tags_csv(path: Path) -> dict[str, dict[str, str]]:
    """Rows by uid, each with all `TAGS_COLUMNS`."""
    rows: dict[str, dict[str, str]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [column for column in TAGS_COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path}: column {missing[0]} is missing; use Open-i's indiana_reports.csv")
            for row in reader:
                place = f"{path}: line {reader.line_num}"
                if any(row[column] is None for column in TAGS_COLUMNS) or None in row:
                    raise UserError(f"{place}: not as many fields as columns; use the unchanged indiana_reports.csv")
                if row["uid"] in rows:
                    raise UserError(f"{place}: uid {row['uid']} occurs twice; remove one of the rows")
                rows[row["uid"]] = row
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give Open-i's indiana_reports.csv") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; use the unchanged indiana_reports.csv") from None
    except csv.Error as error:
        raise UserError(f"{path}: is not a CSV file ({error}); use the unchanged indiana_reports.csv") from None
    return rows
