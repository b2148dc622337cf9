"""Reads a prepared dataset by memory mapping: no image is decoded, and opening a dataset only reads its tables."""

import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crossray.data.store import layout
from crossray.data.study import SPLITS
from crossray.errors import UserError, choose

#: Sections of a report that a dataset stores.
SECTIONS: tuple[str, ...] = ("findings", "impression", "indication")


#: Types of the fields of `dataset.json`; of "counts" and two of its fields, these entries are used, too.
_TYPES = {
    "source": dict, "size": int, "cleaner": str, "sha256": str, "observations": list, "counts": dict, "patients": dict,
    "average_length": dict, "notes": dict, "images": dict, "counts.read": int, "counts.rejected": dict,
    "counts.studies": dict, "counts.studies.all": int, "counts.images": dict, "counts.images.all": int,
}  # fmt: skip


@dataclass(frozen=True)
class DatasetInfo:
    """The content of `dataset.json`.

    Attributes:
        format: version of the format on disk.
        source: origin of the studies.
        size: short side of the stored views in pixels.
        cleaner: cleaner that was used to count words and find empty reports.
        sha256: digest of all texts, labels, masks and pixels.
        observations: names of the columns of `StudyRecord.labels`; empty if the source has no labels.
        counts: "read", "rejected" by filter step, "studies" and "images" by split and in total, "warnings" (number of
            images by field), and "patients_in_several_splits" if there are any.
        patients: number of patients by split and in total.
        average_length: mean number of words in a cleaned findings section, by split and in total.
        notes: remarks of the source.
        images: identity of the image files (`crossray.data.store.identity`); empty if it was not recorded.
    """

    format: int
    source: Mapping[str, Any]
    size: int
    cleaner: str
    sha256: str
    observations: tuple[str, ...]
    counts: Mapping[str, Any]
    patients: Mapping[str, int]
    average_length: Mapping[str, float]
    notes: Mapping[str, Any]
    images: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyRecord:
    """One study as stored; `positions` has one entry per view, and `labels` is (K,) status codes or None."""

    id: str
    patient: str
    split: str
    findings: str
    impression: str
    indication: str
    positions: tuple[str, ...]
    labels: NDArray[np.int8] | None
    extra: dict[str, Any]


class Dataset:
    """A prepared dataset on disk.

    Studies and images are addressed by row. Instances can be pickled; a worker process then opens the folder again.
    """

    def __init__(self, path: Path, info: DatasetInfo, images: pa.Table) -> None:
        self.path = path
        self.info = info
        #: (images, 2) int64, height and width of every stored view.
        self.image_sizes = np.stack([_integers(images, "height"), _integers(images, "width")], axis=1)
        #: (images,) int64, code of every view's position.
        self.image_positions = np.array(
            [layout.POSITION_CODES.get(name, 0) for name in images.column("position").to_pylist()], np.int64
        )
        self._shard = _integers(images, "shard")
        self._offset = _integers(images, "offset")
        self._positions: list[str] = images.column("position").to_pylist()
        self._warnings = images.column("warnings")
        self._maps: dict[int, NDArray[np.uint8]] = {}
        self.studies = int(info.counts["studies"]["all"])
        #: (studies + 1,) int64; the views of study i are the image rows from entry i up to entry i + 1.
        self.first_image = np.searchsorted(_integers(images, "study"), np.arange(self.studies + 1))

    @classmethod
    def open(cls, path: "Path | str | Dataset") -> "Dataset":
        """Open the folder of a prepared dataset; an open `Dataset` is returned unchanged.

        Raises:
            UserError: the folder is not a dataset, or is unfinished, damaged or of another version.
        """
        if isinstance(path, Dataset):
            return path
        path = Path(path)
        info = _read_info(path)
        try:
            images = pq.read_table(path / layout.IMAGES)
            if "warnings" not in images.column_names:  # written before warnings were stored
                column = layout.IMAGES_SCHEMA.field("warnings")
                images = images.append_column(column, pa.array([[]] * images.num_rows, column.type))
            known = pq.read_schema(path / layout.STUDIES)
        except (OSError, pa.ArrowInvalid) as error:
            raise _damaged(path, f"{layout.IMAGES} or {layout.STUDIES} cannot be read") from error
        if not images.schema.equals(layout.IMAGES_SCHEMA) or not known.equals(layout.STUDIES_SCHEMA):
            raise _damaged(path, f"{layout.IMAGES} or {layout.STUDIES} has other columns than format {layout.FORMAT}")
        _check_pixels(path, images)
        return cls(path, info, images)

    def __reduce__(self) -> tuple[Any, ...]:
        return Dataset.open, (self.path,)

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self._shard)

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the rows of the studies of a split, in ascending order, (n,) int64.

        Raises:
            UserError: the split does not exist or is empty.
        """
        if split not in SPLITS:
            raise UserError(f"split '{split}' does not exist; {choose(split, SPLITS)}.")
        rows = np.flatnonzero(self._splits == split)
        if not len(rows):
            raise UserError(
                f"{self.path}: split '{split}' has no studies; prepare the dataset with some, or choose another split "
                "if the command has an option for it."
            )
        return rows

    def record(self, row: int) -> StudyRecord:
        """Return everything about one study except its pixels."""
        values = self._table.slice(int(row), 1).to_pylist()[0]
        labels = values["labels"]
        return StudyRecord(
            id=values["id"],
            patient=values["patient"],
            split=values["split"],
            findings=values["findings"],
            impression=values["impression"],
            indication=values["indication"],
            positions=tuple(self._positions[image] for image in self.views(row)),
            labels=None if labels is None else np.array(labels, np.int8),
            extra=json.loads(values["extra"]),
        )

    def reports(self, rows: Sequence[int] | NDArray[np.int64], section: str = "findings") -> list[str]:
        """Return the uncleaned texts of a section: "findings", "impression" or "indication"."""
        return self._take(rows, _known_section(section))

    def ids(self, rows: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Return the identifiers of studies."""
        return self._take(rows, "id")

    def extras(self) -> Iterator[dict[str, Any]]:
        """Yield the source-specific values of every study, in row order."""
        for values in self._table.column("extra").to_pylist():
            yield json.loads(values)

    def patients(self, rows: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """Return the identifiers of the studies' patients."""
        return self._take(rows, "patient")

    @cached_property
    def labels(self) -> NDArray[np.int8] | None:
        """Status codes, (studies, K) int8, -1 for a study without labels; None if the source has no labels."""
        if not self.info.observations:
            return None
        result = np.full((self.studies, len(self.info.observations)), -1, np.int8)
        for row, codes in enumerate(self._table.column("labels").to_pylist()):
            if codes is not None:
                result[row] = codes
        return result

    def views(self, row: int) -> range:
        """Return the image rows of a study, in the order of the source."""
        return range(int(self.first_image[row]), int(self.first_image[row + 1]))

    def image(self, image_row: int) -> NDArray[np.uint8]:
        """Return the pixels of an image, (H, W) uint8, as a read-only slice of the memory map."""
        height, width = self.image_sizes[image_row]
        start = self._offset[image_row]
        return self._pixels(int(self._shard[image_row]))[start : start + height * width].reshape(height, width)

    def warnings(self, image_row: int) -> tuple[str, ...]:
        """Return the warnings about the file of an image; each begins with the name of a field."""
        return tuple(self._warnings[int(image_row)].as_py() or ())

    def findings(self) -> pa.Table | None:
        """Return the findings drawn in the views; None if there are none, as in every source but the phantom.

        The table has the columns of `layout.FINDINGS_SCHEMA`, with masks as run lengths.
        """
        path = self.path / layout.FINDINGS
        return pq.read_table(path) if path.exists() else None

    def features_path(self, fingerprint: str) -> Path:
        """Return the folder for cached features with this fingerprint."""
        return self.path / layout.FEATURES / fingerprint

    @cached_property
    def _table(self) -> pa.Table:
        return pq.read_table(self.path / layout.STUDIES).combine_chunks()

    @cached_property
    def _splits(self) -> NDArray[Any]:
        return np.array(self._table.column("split").to_pylist())

    def _take(self, rows: Sequence[int] | NDArray[np.int64], column: str) -> list[str]:
        chosen: list[str] = self._table.column(column).take(pa.array(np.asarray(rows, np.int64))).to_pylist()
        return chosen

    def _pixels(self, shard: int) -> NDArray[np.uint8]:
        if shard not in self._maps:
            with (self.path / layout.pixels_name(shard)).open("rb") as file:
                view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._maps[shard] = np.frombuffer(view, np.uint8)
        return self._maps[shard]


def _integers(table: pa.Table, column: str) -> NDArray[np.int64]:
    values: NDArray[np.int64] = table.column(column).to_numpy().astype(np.int64)
    return values


def _known_section(section: str) -> str:
    if section not in SECTIONS:
        raise UserError(f"section '{section}' does not exist; {choose(section, SECTIONS)}.")
    return section


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what}; remove the folder and prepare it again.")


def _read_info(path: Path) -> DatasetInfo:
    description = path / layout.DESCRIPTION
    if not description.exists():
        if (path / layout.UNFINISHED).exists():
            raise UserError(f"{path} is unfinished; run the same prepare command again.")
        raise UserError(f"{path}: {layout.DESCRIPTION} is missing; name the folder that `crossray prepare` wrote.")
    try:
        values = json.loads(description.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, f"{layout.DESCRIPTION} cannot be read") from error
    if not isinstance(values, dict) or values.get("format") != layout.FORMAT:
        raise _damaged(path, f"field 'format' of {layout.DESCRIPTION} is not {layout.FORMAT}")
    values.setdefault("images", {})
    for name, kind in _TYPES.items():
        value: Any = values
        for part in name.split("."):  # its type was checked before
            value = value.get(part)
        if not isinstance(value, kind):
            raise _damaged(path, f"field '{name}' of {layout.DESCRIPTION} is missing or of the wrong type")
    chosen = {entry.name: values[entry.name] for entry in fields(DatasetInfo)}
    return DatasetInfo(**{**chosen, "observations": tuple(chosen["observations"])})


def _check_pixels(path: Path, images: pa.Table) -> None:
    """Check the length of every pixel file; otherwise, a truncated copy would only be noticed in training."""
    shard = _integers(images, "shard")
    size = _integers(images, "height") * _integers(images, "width")
    expected = np.bincount(shard, weights=size).astype(np.int64) if len(shard) else np.zeros(0, np.int64)
    for number in np.flatnonzero(expected):
        file = path / layout.pixels_name(int(number))
        found = file.stat().st_size if file.exists() else 0
        if found != expected[number]:
            raise _damaged(path, f"{file.name} has {found} bytes instead of {expected[number]}")
