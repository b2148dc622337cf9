"""Labels the reports of a CSV file, for `crossray label`."""

import csv
import itertools
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crossray.errors import UserError
from crossray.files.tables import STUDY_COLUMNS, delimiter, is_rich_text, is_separator_line
from crossray.files.write import appearing
from crossray.text.observations import STATUSES, Evidence, language_notes, report_language

STUDY = "study_id"
REPORT = "report"

#: Longest field in characters; Python's default limit is 131,072.
LONGEST_FIELD = 2**26

# Number of reports labeled at once.
_BATCH = 256


class Labeler(Protocol):
    """Determines the observations of reports."""

    @property
    def observations(self) -> tuple[str, ...]:
        """Names of the K columns of the labels."""

    def label(self, reports: Sequence[str]) -> NDArray[np.int8]:
        """(N, K) codes of `STATUSES` for N reports."""


def read_reports(path: Path) -> Iterator[tuple[str, str]]:
    """Iterate over the studies and reports of a CSV file.

    Args:
        path: UTF-8 with or without byte order mark, fields separated by commas, semicolons or tabs, with the columns
            `study_id` (or `study`, or `id`) and `report`. Other columns are ignored. Quoted fields may contain line
            breaks.

    Yields:
        Identifier and report of each row; the report may be empty.

    Raises:
        UserError: the file cannot be read or lacks a column, or a row is too short or has an empty or repeated
            identifier. The message names the line in which the row ends; it never contains report text.
    """
    limit = csv.field_size_limit(LONGEST_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline(LONGEST_FIELD)
            skipped = int(is_separator_line(first))
            if skipped:
                first = file.readline(LONGEST_FIELD)
            lines = itertools.chain([first], file)
            yield from _rows(csv.reader(lines, delimiter=delimiter(first, REPORT), strict=True), path, skipped)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a CSV file of reports") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8; save the file in UTF-8") from None
    finally:
        csv.field_size_limit(limit)


def label_table(
    reports: Path,
    out: Path,
    labeler: Labeler,
    explain: Callable[[str], Iterable[Evidence]],
    evidence: Path | None = None,
) -> tuple[int, list[str]]:
    """Label a table of reports.

    Args:
        reports: CSV file with the columns `study_id` and `report`.
        out: CSV file to write, with `study_id` and a column per observation, whose values are in `STATUSES`. It is
            created once all rows are written.
        labeler: the labeler to use.
        explain: returns the evidence of a report's labels; used for `evidence` only.
        evidence: JSON Lines file to write in addition: per line `study_id` and `evidence`, a list of objects with
            observation, status, start and end.

    Returns:
        Number of reports, and notes on reports in languages other than English (`observations.language_notes`).

    Raises:
        UserError: the input is invalid (`read_reports`), or a file cannot be written.
    """
    places = [path.resolve() for path in (reports, out, evidence) if path is not None]
    if len(set(places)) < len(places):
        raise UserError(
            f"{out}: the same file is given twice; name a file of its own for each of input, --out and --evidence"
        )
    count = 0
    languages: Counter[str] = Counter()
    with ExitStack() as stack:
        table = csv.writer(stack.enter_context(appearing(out, newline="")), lineterminator="\n")
        lines = stack.enter_context(appearing(evidence, newline="")) if evidence else None
        table.writerow([STUDY, *labeler.observations])
        rows = read_reports(reports)
        while batch := list(itertools.islice(rows, _BATCH)):
            codes = labeler.label([report for _, report in batch])
            table.writerows(
                [study, *(STATUSES[code] for code in line)] for (study, _), line in zip(batch, codes, strict=True)
            )
            if lines is not None:
                lines.writelines(_evidence_line(study, explain(report)) for study, report in batch)
            languages.update(report_language(report) for _, report in batch)
            count += len(batch)
    return count, language_notes(languages)


def _rows(rows: Any, path: Path, skipped: int) -> Iterator[tuple[str, str]]:
    first_lines: dict[str, int] = {}
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        named = next((name for name in STUDY_COLUMNS if name in header), STUDY)
        study, report = (_column(header, name, path) for name in (named, REPORT))
        for row in rows:
            if not row:
                continue
            number = rows.line_num + skipped
            place = f"{path}: line {number}"
            if len(row) != len(header):
                raise UserError(f"{place}: {len(row)} columns where the header has {len(header)}; "
                                "put quotes around text with commas")  # fmt: skip
            name = row[study].strip()
            if not name:
                raise UserError(f"{place}: column {named}: is empty; give every report an identifier")
            same = unicodedata.normalize("NFC", name)
            if same in first_lines:
                raise UserError(f"{place}: column {named}: the same as in line {first_lines[same]}; "
                                "give every report an identifier of its own")  # fmt: skip
            first_lines[same] = number
            if is_rich_text(row[report]):
                raise UserError(f"{place}: column {REPORT}: is RTF, not plain text; export plain text")
            yield name, row[report]
    except csv.Error as error:
        line = rows.line_num + skipped
        raise UserError(f"{path}: line {line}: not valid CSV ({error}); save the file as CSV again") from None


def _column(header: Sequence[str], name: str, path: Path) -> int:
    if header.count(name) != 1:
        fault = "is missing" if name not in header else "appears twice"
        raise UserError(
            f"{path}: line 1: column {name} {fault}; name the columns {STUDY} (or study, or id) and {REPORT}, each once"
        )
    return header.index(name)


def _evidence_line(study: str, evidence: Iterable[Evidence]) -> str:
    return json.dumps({STUDY: study, "evidence": [asdict(entry) for entry in evidence]}, ensure_ascii=False) + "\n"
