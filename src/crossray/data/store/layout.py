"""File names, schemas and serialization of a prepared dataset, shared by its writer and reader."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crossray.data.study import VIEW_POSITIONS
from crossray.files.write import sync

#: Version of the format; readers reject other versions.
FORMAT = 1

DESCRIPTION = "dataset.json"
STUDIES = "studies.parquet"
IMAGES = "images.parquet"
FINDINGS = "findings.parquet"
REJECTED = "rejected.jsonl"
FEATURES = "features"

#: Folder with the data of an incomplete dataset.
UNFINISHED = ".unfinished"

STUDIES_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("patient", pa.string()),
        ("split", pa.string()),
        ("findings", pa.string()),
        ("impression", pa.string()),
        ("indication", pa.string()),
        ("views", pa.int32()),
        ("words", pa.int32()),
        ("labels", pa.list_(pa.int8())),
        ("extra", pa.string()),
    ]
)
IMAGES_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("study", pa.int64()),
        ("view", pa.int32()),
        ("position", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("offset", pa.int64()),
        ("shard", pa.int32()),
        ("warnings", pa.list_(pa.string())),
    ]
)
FINDINGS_SCHEMA = pa.schema(
    [
        ("study", pa.int64()),
        ("view", pa.int32()),
        ("finding", pa.string()),
        ("side", pa.string()),
        ("place", pa.string()),
        ("degree", pa.string()),
        ("status", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("runs", pa.list_(pa.int32())),
    ]
)

#: Code of every view position in `Inputs.view_position`.
POSITION_CODES = {name: code for code, name in enumerate(VIEW_POSITIONS)}


def pixels_name(shard: int) -> str:
    """Return the file name of the pixels of one shard."""
    return f"images-{shard:05d}.u8"


def shard_size(shard: int) -> int:
    """Return the number of studies in a shard.

    It grows with the index of the shard, so a small dataset is spread over all workers and a dataset as large as
    MIMIC-CXR (227,835 studies) has about 320 files. It depends on nothing else, so the bytes on disk depend only on the
    source.
    """
    return 64 << min(shard // 32, 4)


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file and flush its content to disk, but not its folder entry."""
    path.write_bytes(content)
    sync(path)


def parquet_bytes(table: pa.Table) -> memoryview:
    """Serialize a table as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return memoryview(sink.getvalue())


def json_bytes(value: Any, *, indent: int | None = None) -> bytes:
    """Serialize a value as JSON with sorted keys and a final newline."""
    return (json.dumps(value, ensure_ascii=False, sort_keys=True, indent=indent) + "\n").encode()
