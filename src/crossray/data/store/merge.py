"""The last step of writing a dataset: merges the shards' tables and writes `dataset.json`, which completes the dataset.

Every step can be interrupted and repeated: tables are replaced atomically, pixels are moved by renaming, and the hidden
folder is deleted only after `dataset.json` is on disk.
"""

import hashlib
import shutil
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crossray.data.images.remarks import field_of
from crossray.data.store import layout
from crossray.data.store.shards import PIXELS, read_summary, shard_folder
from crossray.data.study import SPLITS
from crossray.errors import UserError, counted
from crossray.files.write import sync, write_whole
from crossray.text.observations import OBSERVATIONS


def merge(
    out: Path,
    folder: Path,
    shards: int,
    identity: Mapping[str, Any],
    notes: Mapping[str, Any],
    before: Sequence[Mapping[str, str]] = (),
) -> None:
    """Merge finished shards into a dataset.

    Args:
        out: folder of the dataset.
        folder: its hidden folder, with shards 0 to `shards` - 1.
        shards: number of shards.
        identity: format, source, size and cleaner, for `dataset.json`.
        notes: remarks for `dataset.json`.
        before: entries of `rejected.jsonl` for studies that the source itself rejected.

    Raises:
        UserError: there are no studies, or all were rejected.
    """
    summaries = [_summary(folder, shard) for shard in range(shards)]
    rejected: list[Mapping[str, str]] = [entry for summary in summaries for entry in summary["rejected"]]
    if sum(summary["read"] for summary in summaries) == len(rejected):
        shutil.rmtree(folder)
        _refuse(out, rejected)
    rejected = [*before, *rejected]
    observations = [name for name in OBSERVATIONS if any(name in summary["observations"] for summary in summaries)]
    studies = _studies(folder, shards, observations)
    sizes = [_rows(folder, shard, layout.STUDIES) for shard in range(shards)]
    images = _shifted(folder, shards, layout.IMAGES, layout.IMAGES_SCHEMA, sizes)
    images = images.set_column(0, "row", pa.array(np.arange(images.num_rows)))
    findings = _shifted(folder, shards, layout.FINDINGS, layout.FINDINGS_SCHEMA, sizes)

    for shard, summary in enumerate(summaries):
        _move_pixels(shard_folder(folder, shard) / PIXELS, out / layout.pixels_name(shard), summary["bytes"])
    write_whole(out / layout.STUDIES, layout.parquet_bytes(studies))
    write_whole(out / layout.IMAGES, layout.parquet_bytes(images))
    if findings.num_rows:
        write_whole(out / layout.FINDINGS, layout.parquet_bytes(findings))
    write_whole(out / layout.REJECTED, b"".join(layout.json_bytes(entry) for entry in rejected))
    digest = hashlib.sha256("".join(summary["sha256"] for summary in summaries).encode())
    description = {
        **identity,
        "sha256": digest.hexdigest(),
        "observations": observations,
        **_statistics(studies, images, rejected),
        "notes": dict(notes),
    }
    write_whole(out / layout.DESCRIPTION, layout.json_bytes(description, indent=2))
    shutil.rmtree(folder, ignore_errors=True)


def _summary(folder: Path, shard: int) -> dict[str, Any]:
    summary = read_summary(folder, shard)
    if summary is None:
        raise UserError(f"{shard_folder(folder, shard)}: disappeared while it was read; run the same command again.")
    return summary


def _refuse(out: Path, rejected: Sequence[Mapping[str, str]]) -> None:
    if not rejected:
        raise UserError(f"{out}: the source has no study; check the paths and filters of the command.")
    steps = ", ".join(f"{step}: {count}" for step, count in Counter(entry["step"] for entry in rejected).most_common())
    raise UserError(
        f"{out}: {counted(len(rejected), 'study')} read and none accepted ({steps}; the first: "
        f"{rejected[0]['reason']}); correct the source and run the command again."
    )


def _table(folder: Path, shard: int, name: str) -> pa.Table:
    return pq.read_table(shard_folder(folder, shard) / name)


def _rows(folder: Path, shard: int, name: str) -> int:
    rows: int = pq.read_metadata(shard_folder(folder, shard) / name).num_rows
    return rows


def _studies(folder: Path, shards: int, observations: Sequence[str]) -> pa.Table:
    """Return the table of all studies, with labels for `observations` only."""
    table = pa.concat_tables([_table(folder, shard, layout.STUDIES) for shard in range(shards)]).combine_chunks()
    labels = table.column("labels")
    columns = [OBSERVATIONS.index(name) for name in observations]
    kept = [None if codes is None else [codes[column] for column in columns] for codes in labels.to_pylist()]
    place = layout.STUDIES_SCHEMA.get_field_index("labels")
    return table.set_column(place, layout.STUDIES_SCHEMA.field("labels"), pa.array(kept, pa.list_(pa.int8())))


def _shifted(folder: Path, shards: int, name: str, schema: pa.Schema, sizes: Sequence[int]) -> pa.Table:
    """Concatenate one table of all shards, with study numbers of the whole dataset."""
    tables, first = [], 0
    place = schema.get_field_index("study")
    for shard in range(shards):
        table = _table(folder, shard, name)
        tables.append(table.set_column(place, schema.field("study"), pc.add(table.column("study"), first)))
        first += sizes[shard]
    return pa.concat_tables(tables).combine_chunks()


def _move_pixels(source: Path, target: Path, size: int) -> None:
    if source.exists():
        if size:
            source.replace(target)
            sync(target.parent)
    elif size and (not target.exists() or target.stat().st_size != size):
        raise UserError(f"{target} is incomplete; remove the folder {target.parent} and run the command again.")


def _statistics(studies: pa.Table, images: pa.Table, rejected: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Compute the counts by filter step, and studies, images, patients and mean report length by split."""
    split = np.array(studies.column("split").to_pylist())
    patient = np.array(studies.column("patient").to_pylist())
    views = studies.column("views").to_numpy()
    words = studies.column("words").to_numpy()
    members = {name: split == name for name in SPLITS}
    steps = Counter(entry["step"] for entry in rejected)
    warned = Counter(name for texts in images.column("warnings").to_pylist() for name in {field_of(t) for t in texts})
    in_several = sum(len(splits) > 1 for splits in _splits_of_patients(patient, split).values())
    return {
        "counts": {
            "read": studies.num_rows + len(rejected),
            "rejected": dict(sorted(steps.items())),
            "studies": {"all": studies.num_rows, **{name: int(rows.sum()) for name, rows in members.items()}},
            "images": {"all": int(views.sum()), **{name: int(views[rows].sum()) for name, rows in members.items()}},
            **({"warnings": dict(sorted(warned.items()))} if warned else {}),
            **({"patients_in_several_splits": in_several} if in_several else {}),
        },
        "patients": {"all": len(set(patient)), **{name: len(set(patient[rows])) for name, rows in members.items()}},
        "average_length": {name: round(float(words[rows].mean()), 4) for name, rows in members.items() if rows.any()}
        | {"all": round(float(words.mean()), 4)},
    }


def _splits_of_patients(patients: NDArray[Any], splits: NDArray[Any]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for patient, split in zip(patients.tolist(), splits.tolist(), strict=True):
        found.setdefault(unicodedata.normalize("NFC", patient), set()).add(split)
    return found
