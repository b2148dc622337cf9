"""Reads the rows of a manifest from a CSV or JSONL file."""

import csv
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from crossray.data.sources.manifest_faults import FaultError
from crossray.errors import UserError, quoted
from crossray.files.tables import delimiter, is_separator_line

#: Maximum size of a manifest in bytes. With `manifest.MAX_ROWS`, it keeps the memory below 1 GB.
MAX_BYTES = 2**28

#: Maximum length of a line and of a field, in characters.
MAX_LINE = 2**20

Row = Mapping[str, Any]
Rows = Iterator[tuple[int, "Row | FaultError"]]


def read_table(path: Path, needed: str) -> tuple[Sequence[str], Rows]:
    """Read the columns of a table, and create an iterator over its rows.

    Args:
        path: .csv or .jsonl file in UTF-8.
        needed: a required column, with which the delimiter of a CSV file is detected.

    Returns:
        Names of the columns, and an iterator over line number and fields of each row, or `FaultError` instead of the
        fields if the row cannot be read.

    Raises:
        UserError: the file cannot be read or has another suffix, or a column has no name or appears twice.
    """
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return list(dict.fromkeys(key for _, row in _json_rows(path) if isinstance(row, dict) for key in row)), \
            _json_rows(path)  # fmt: skip
    if suffix == ".csv":
        return _csv_table(path, needed)
    raise UserError(f"{path}: is neither .csv nor .jsonl but {quoted(suffix)}; give a manifest in one of these formats")


def _csv_table(path: Path, needed: str) -> tuple[Sequence[str], Rows]:
    lines = _lines(path)
    first = next(lines, "")
    skipped = int(is_separator_line(first))
    if skipped:
        first = next(lines, "")
    reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter(first, needed), strict=True)
    columns = [name.strip().lower() for name in next(_guarded(path, reader, skipped), (0, []))[1]]
    if "" in columns:
        raise UserError(f"{path}: column {columns.index('') + 1} has no name; name it or remove it")
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise UserError(f"{path}: column {quoted(twice[0])}: appears twice; keep one of the two")
    return columns, _csv_rows(path, reader, columns, skipped)


def _csv_rows(path: Path, reader: Any, columns: Sequence[str], skipped: int) -> Rows:
    for line, fields in _guarded(path, reader, skipped):
        if not fields:
            continue
        if len(fields) != len(columns):
            yield line, FaultError("row", "another number of fields than the header has; quote texts with commas")
        else:
            yield line, dict(zip(columns, fields, strict=True))


def _guarded(path: Path, reader: Any, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Yield line and fields of every row; Python's limit of 131,072 characters per field is raised meanwhile."""
    while True:
        limit = csv.field_size_limit(MAX_LINE)
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            line = reader.line_num + skipped
            raise UserError(f"{path}: line {line}: not valid CSV ({error}); save the table as CSV again") from None
        finally:
            csv.field_size_limit(limit)
        yield reader.line_num + skipped, fields


def _json_rows(path: Path) -> Rows:
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            yield number, _json_row(line)


def _json_row(line: str) -> "Row | FaultError":
    try:
        row = json.loads(line, object_pairs_hook=_without_repetition)
    except FaultError as fault:
        return fault
    except (ValueError, RecursionError):
        return FaultError("row", "is not JSON; write one object per line")
    return row if isinstance(row, dict) else FaultError("row", "is not an object; write one object per line")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise FaultError("row", "is a key that appears twice; keep one of the two", twice)
    return found


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines with their line endings."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES // 2**20} MiB; split the manifest")
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            while line := file.readline(MAX_LINE + 1):
                if len(line) > MAX_LINE:
                    raise UserError(f"{path}: a line has more than {MAX_LINE} characters; write one study per line")
                yield line
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
