"""Reads the tables of MIMIC-CXR-JPG: split, view and shape of every image, and CheXpert's labels of every study.

The 377,110 rows take about 40 MB as Arrow columns; studies are created one at a time.
"""

import gzip
import hashlib
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv

from crossray.data.study import Split
from crossray.errors import UserError
from crossray.text.observations import CHEXPERT

#: Maximum size of an unpacked table in bytes; the largest published one has about 60 million.
MAX_BYTES = 2**28

#: Position by the table's ViewPosition. Others (oblique, decubitus, axial, swimmer's) and the 15,769 empty ones are
#: "unknown"; nothing is guessed.
POSITIONS = {"PA": "pa", "AP": "ap", "LATERAL": "lateral", "LL": "lateral", "XTABLE LATERAL": "lateral"}

_SPLITS: dict[str, Split] = {"train": "train", "validate": "val", "test": "test"}
_IMAGE = r"^[0-9a-f]{8}(-[0-9a-f]{8}){4}$"
_STATUSES = {1.0: "positive", 0.0: "negative", -1.0: "uncertain"}

#: Columns to read from each table, and their types.
_SPLIT = {"dicom_id": pa.string(), "study_id": pa.int64(), "subject_id": pa.int64(), "split": pa.string()}
_METADATA = {"dicom_id": pa.string(), "ViewPosition": pa.string(), "Rows": pa.int32(), "Columns": pa.int32()}
_CHEXPERT = {"study_id": pa.int64(), **{name.title().replace("_", " "): pa.float32() for name in CHEXPERT}}


@dataclass(frozen=True, slots=True)
class MimicImage:
    """One image: its dicom_id, and its position, one of `crossray.data.study.VIEW_POSITIONS`."""

    name: str
    position: str


@dataclass(frozen=True, slots=True)
class MimicStudy:
    """One study: the numbers of its patient (subject_id) and itself (study_id), its official split and its images."""

    patient: int
    study: int
    split: Split
    images: tuple[MimicImage, ...]


class MimicTables:
    """The joined tables, ordered by patient, study and image."""

    def __init__(self, images: pa.Table, chexpert: pa.Table | None, digests: Mapping[str, str]) -> None:
        """Create from tables that `read` has checked."""
        #: SHA-256 of every table's file, by file name.
        self.digests = digests
        self._images = images
        studies = images.column("study_id").to_numpy()
        self._starts = np.flatnonzero(np.diff(studies, prepend=-1, append=-1))
        self._positions: list[str] = images.column("position").to_pylist()
        self._chexpert = chexpert
        self._rows = (
            {} if chexpert is None else {int(s): i for i, s in enumerate(chexpert.column("study_id").to_numpy())}
        )

    @classmethod
    def read(cls, folder: Path, *, chexpert: bool = False) -> "MimicTables":
        """Read the tables, compressed (.csv.gz) or not (.csv).

        Args:
            folder: folder of a version of MIMIC-CXR-JPG.
            chexpert: also read the labels.

        Raises:
            UserError: a table is missing or damaged, lacks a column, or contradicts itself or another table.
        """
        split_path, split = _table(folder, "split", _SPLIT)
        meta_path, metadata = _table(folder, "metadata", _METADATA)
        _check(split_path, split)
        joined = split.join(metadata, keys="dicom_id")
        if joined.num_rows != split.num_rows:
            raise UserError(f"{meta_path}: dicom_id: an image occurs twice; download the table again")
        if joined.column("Rows").null_count or pc.min(joined.column("Rows")).as_py() < 1:
            raise UserError(
                f"{meta_path}: images of the table 'split', or their Rows, are missing; use tables of one version"
            )
        if joined.column("Columns").null_count or pc.min(joined.column("Columns")).as_py() < 1:
            raise UserError(f"{meta_path}: Columns: a size is missing; download the table again")
        positions = [POSITIONS.get(view or "", "unknown") for view in joined.column("ViewPosition").to_pylist()]
        joined = joined.drop_columns("ViewPosition").append_column("position", pa.array(positions).dictionary_encode())
        joined = joined.sort_by([("subject_id", "ascending"), ("study_id", "ascending"), ("dicom_id", "ascending")])
        paths, labels = [split_path, meta_path], None
        if chexpert:
            path, labels = _table(folder, "chexpert", _CHEXPERT)
            paths.append(path)
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
        return cls(joined.combine_chunks(), labels, digests)

    @property
    def studies(self) -> int:
        """Number of studies."""
        return len(self._starts) - 1

    def __iter__(self) -> Iterator[MimicStudy]:
        names, patients, studies, splits = (
            self._images.column(name) for name in ("dicom_id", "subject_id", "study_id", "split")
        )
        for start, stop in zip(self._starts, self._starts[1:], strict=False):
            images = zip(names[start:stop].to_pylist(), self._positions[start:stop], strict=True)
            yield MimicStudy(
                patients[start].as_py(),
                studies[start].as_py(),
                _SPLITS[splits[start].as_py()],
                tuple(MimicImage(name, position) for name, position in images),
            )

    def positions(self) -> dict[str, int]:
        """Return the number of images by position."""
        names, counts = np.unique(self._positions, return_counts=True)
        return {str(name): int(count) for name, count in zip(names, counts, strict=True)}

    def studies_with(self, keep: Callable[[str], bool]) -> int:
        """Return the number of studies with an image whose position is kept."""
        return len(np.unique(self._images.column("study_id").to_numpy()[self._kept(keep)]))

    def stored_bytes(self, size: int, keep: Callable[[str], bool]) -> int:
        """Return the size in bytes of the images whose position is kept, with a short side of `size` pixels."""
        sides = np.stack([self._images.column(name).to_numpy() for name in ("Rows", "Columns")])[:, self._kept(keep)]
        short, long = sides.min(0).astype(np.int64), sides.max(0).astype(np.int64)
        return int((size * (long * size // short)).sum())

    def labels(self, study: int) -> dict[str, str] | None:
        """Return CheXpert's status of each of its 14 observations; None for a study that is not in its table."""
        row = self._rows.get(study)
        if row is None or self._chexpert is None:
            return None
        values: dict[str, Any] = self._chexpert.slice(row, 1).to_pylist()[0]
        return {
            name: _STATUSES.get(values[column], "blank")
            for name, column in zip(CHEXPERT, list(_CHEXPERT)[1:], strict=True)
        }

    def _kept(self, keep: Callable[[str], bool]) -> NDArray[np.bool_]:
        return np.array([keep(position) for position in self._positions])


def _table(folder: Path, name: str, columns: dict[str, pa.DataType]) -> tuple[Path, pa.Table]:
    paths = [folder / f"mimic-cxr-2.0.0-{name}.csv{suffix}" for suffix in (".gz", "")]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise UserError(f"{paths[0]}: is missing; download it from MIMIC-CXR-JPG (and name its folder with --tables)")
    convert = csv.ConvertOptions(column_types=columns, include_columns=list(columns), strings_can_be_null=True)
    try:
        # unpacked here to limit the size
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES // 2**20} MiB when unpacked; give the published table")
        table = csv.read_csv(pa.BufferReader(content), convert_options=convert)
    except KeyError:
        raise UserError(
            f"{path}: one of the columns {', '.join(columns)} is missing; give the published table"
        ) from None
    except (pa.ArrowInvalid, OSError, EOFError, zlib.error) as error:
        place = re.search(r"column #\d+|[Rr]ow #\d+", str(error))
        where = f" ({place[0]})" if place else ""
        raise UserError(f"{path}: the table is truncated or damaged{where}; download it again") from None
    if not table.num_rows:
        raise UserError(f"{path}: has no rows; download it again")
    return path, table


def _check(path: Path, table: pa.Table) -> None:
    """Check that every image has a valid identifier, numbers and a split, and every study a single split."""
    for name in _SPLIT:
        if table.column(name).null_count:
            raise UserError(f"{path}: {name}: is empty in some row; download the table again")
    bad = pc.invert(pc.match_substring_regex(table.column("dicom_id"), _IMAGE))
    if pc.any(bad).as_py():
        raise UserError(
            f"{path}: row {pc.index(bad, True).as_py() + 1}: dicom_id: is not an identifier; download it again"
        )
    if pc.count_distinct(table.column("dicom_id")).as_py() != table.num_rows:
        raise UserError(f"{path}: dicom_id: an image occurs twice; download the table again")
    for name in ("subject_id", "study_id"):
        if pc.min(table.column(name)).as_py() < 10_000_000:
            raise UserError(f"{path}: {name}: is not an eight-digit number in some row; download the table again")
    if unknown := set(pc.unique(table.column("split")).to_pylist()) - _SPLITS.keys():
        raise UserError(
            f"{path}: split: {min(unknown)[:30]!a} is not one of {', '.join(_SPLITS)}; use the official table"
        )
    pairs = table.group_by("study_id").aggregate([("split", "count_distinct"), ("subject_id", "count_distinct")])
    for name in ("split", "subject_id"):
        if pc.max(pairs.column(f"{name}_count_distinct")).as_py() > 1:
            raise UserError(f"{path}: {name}: a study has two values; use the official table")
