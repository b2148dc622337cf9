"""Predictions from and for other programs: adding true reports, choosing studies, and converting formats.

Reports from elsewhere, such as a language model or a submission, are ordinary text, while the references of a protocol
are cleaned. Both sides go through the same cleaner here; otherwise every capital letter and full stop would count as an
error.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from crossray.data.store import Dataset, StudyRecord
from crossray.errors import UserError
from crossray.evaluation.predictions import PredictionFile, rexrank
from crossray.files.names import printable
from crossray.files.write import write_whole
from crossray.text.cleaning import clean

#: Formats of `export`: CrossRay's JSON lines; a submission to ReXrank; two lists, as other metric packages expect.
Format = Literal["jsonl", "rexrank", "pairs"]

_DIGITS = 12


def open_predictions(
    path: Path | str,
    *,
    dataset: Dataset | Path | str | None = None,
    references: Path | str | None = None,
    section: str | None = None,
    cleaner: str | None = None,
    studies: Path | str | None = None,
    sample: int | None = None,
    seed: int = 0,
) -> PredictionFile:
    """Read predictions, and add the references that they need for scoring.

    Args:
        path: file that `PredictionFile.load` can read.
        dataset: prepared dataset with the true reports, for a file without references; if None, the one named in its
            header.
        references: predictions file of another system with the true reports, under both protocols.
        section: section that a file without references describes, or that is compared in a submission to ReXrank; if
            None, the one in the file's header, or else "findings".
        cleaner: cleaner of the predictions and references of such a file; if None, the one in the file's header, or
            else "legacy". If given, it is also applied to both sides of a file that has references.
        studies: text file with the identifiers of the studies to keep, one per line.
        sample: number of studies to keep, drawn at random.
        seed: seed of the random draw.

    Raises:
        UserError: a file or dataset is invalid or lacks a study.
    """
    file = PredictionFile.load(path, section=section or "findings", cleaner=cleaner or "legacy")
    if references is not None:
        file = with_references_of(file, PredictionFile.load(references))
    elif not file.protocols() and (dataset or file.provenance.data):
        source = file.provenance
        opened = Dataset.open(dataset or str(source.data))
        # "none" also stands for a file without a header, or a header that names no cleaner
        stated = "legacy" if source.cleaner == "none" else source.cleaner
        file = with_references(file, opened, section or source.section, cleaner or stated)
    elif cleaner is not None and file.provenance.cleaner != cleaner:
        file = recleaned(file, cleaner)
    if studies is not None:
        file = choose(file, identifiers(Path(studies)))
    return file if sample is None else draw(file, sample, seed)


def recleaned(file: PredictionFile, cleaner: str) -> PredictionFile:
    """Clean predictions and references in the same way; text that is already cleaned does not change."""
    rows = tuple(
        replace(
            row,
            prediction=rexrank.cleaned(row.prediction, cleaner),
            references={name: rexrank.cleaned(text, cleaner) for name, text in row.references.items()},
        )
        for row in file.rows
    )
    return replace(file, rows=rows, provenance=replace(file.provenance, cleaner=cleaner))


def with_references(file: PredictionFile, dataset: Dataset, section: str, cleaner: str) -> PredictionFile:
    """Add a dataset's true reports as references of protocol `full`, and clean both sides.

    There is no `r2gen` reference, because it depends on the vocabulary of one model (see `with_references_of`).

    Args:
        file: predictions as ordinary text; headings ("Findings: ...") are recognized.
        dataset: dataset that contains every study of the file.
        section: "findings" or "impression".
        cleaner: one of `crossray.text.cleaning.CLEANERS`.

    Raises:
        UserError: a study is not in the dataset or has no such section.
    """
    records = _records(file, dataset)
    texts = {study: _section(record, section, dataset.path) for study, record in records.items()}
    rows = [
        replace(
            row,
            prediction=rexrank.comparable(row.prediction, section, cleaner),
            references={"full": clean(text, cleaner)},
        )
        for row, text in zip(file.rows, texts.values(), strict=True)
    ]
    splits = {record.split for record in records.values()}
    provenance = replace(
        file.provenance,
        data=printable(dataset.path.resolve()),
        data_sha256=dataset.info.sha256,
        split=splits.pop() if len(splits) == 1 else "",
        section=section,
        cleaner=cleaner,
        max_length=None,
        min_count=None,
        tokenizer=None,
    )
    return replace(file, provenance=provenance, rows=tuple(rows))


def with_references_of(file: PredictionFile, other: PredictionFile) -> PredictionFile:
    """Add the references of another system's predictions, and clean the predictions in the same way for comparison.

    Raises:
        UserError: the other file lacks a study.
    """
    theirs = {row.id: row.references for row in other.rows}
    described = other.provenance
    rows = []
    for row in file.rows:
        if row.id not in theirs:
            raise UserError(
                f"{other.path}: study {row.id!r} of {file.path} is missing; give predictions of all studies"
            )
        prediction = rexrank.comparable(row.prediction, described.section, described.cleaner)
        rows.append(replace(row, prediction=prediction, references=theirs[row.id]))
    provenance = replace(
        described,
        model=file.provenance.model,
        system=file.provenance.system,
        views=file.provenance.views,
        shuffled_images=file.provenance.shuffled_images,
        decoding=file.provenance.decoding,
        versions=file.provenance.versions,
        subset="",
    )
    return replace(file, provenance=provenance, rows=tuple(rows))


def choose(file: PredictionFile, studies: Iterable[str]) -> PredictionFile:
    """Select the predictions of some studies; the selection becomes part of the protocol.

    Args:
        file: predictions.
        studies: identifiers of the studies to keep, in any order.

    Raises:
        UserError: a study is not in the file, or none is given.
    """
    wanted = set(studies)
    rows = tuple(row for row in file.rows if row.id in wanted)
    missing = sorted(wanted - {row.id for row in rows})
    if missing:
        raise UserError(
            f"{file.path}: {len(missing)} of {len(wanted)} chosen ids are not in it, such as {missing[0]!r}; choose "
            f"ids of its studies"
        )
    if not rows:
        raise UserError(f"{file.path}: no study is chosen; give at least one identifier")
    return replace(file, rows=rows, provenance=replace(file.provenance, subset=_digest(wanted)))


def draw(file: PredictionFile, count: int, seed: int) -> PredictionFile:
    """Select studies at random: the same ones for every file with the same studies, in any order.

    Raises:
        UserError: the file has fewer studies.
    """
    identifiers = sorted(row.id for row in file.rows)
    if not 1 <= count <= len(identifiers):
        raise UserError(
            f"{file.path}: sample is {count}, but it has {len(identifiers)} studies; draw from 1 to all of them"
        )
    return choose(file, np.random.default_rng(seed).choice(identifiers, size=count, replace=False).tolist())


def export(
    file: PredictionFile,
    target: Path | str,
    format: Format,
    *,
    studies: Path | str | None = None,
    dataset: Dataset | Path | str | None = None,
    protocol: str = "full",
) -> int:
    """Write predictions for another program; a failed write leaves no partial file.

    Args:
        file: predictions.
        target: file to write.
        format: "jsonl"; "rexrank", a submission; or "pairs", `{"ids", "references", "hypotheses"}`, each a list.
        studies: for a submission, the benchmark's file with the fields of every study.
        dataset: for a submission without that file, the prepared dataset with the true reports; if None, the one that
            the predictions name.
        protocol: protocol whose references are written in the format "pairs".

    Returns:
        Number of studies.

    Raises:
        UserError: references or the fields of a study are missing.
    """
    if format == "jsonl":
        file.save(target)
    elif format == "pairs":
        columns = {
            "ids": [row.id for row in file.rows],
            "references": file.references(protocol),
            "hypotheses": file.hypotheses(),
        }
        write_whole(target, json.dumps(columns, ensure_ascii=False, indent=1) + "\n")
    else:
        fields = _benchmark(Path(studies)) if studies is not None else _fields(file, dataset)
        content = rexrank.submission({row.id: row.prediction for row in file.rows}, fields)
        for row in file.rows:
            if row.seconds is not None:
                content[row.id]["seconds"] = row.seconds
        write_whole(target, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    return len(file.rows)


def _records(file: PredictionFile, dataset: Dataset) -> dict[str, StudyRecord]:
    row_of = {study: row for row, study in enumerate(dataset.ids(np.arange(dataset.studies)))}
    for row in file.rows:
        if row.id not in row_of:
            raise UserError(
                f"{file.path}: id {row.id!r} is not a study of {dataset.path}; give the dataset of the predictions"
            )
    return {row.id: dataset.record(row_of[row.id]) for row in file.rows}


def _section(record: StudyRecord, section: str, path: Path) -> str:
    if section not in ("findings", "impression"):
        raise UserError(f"section {section!r} does not exist in a dataset; choose findings or impression")
    text = record.findings if section == "findings" else record.impression
    if not text.strip():
        raise UserError(f"{path}: study {record.id!r} has no section {section!r}; leave it out with --studies")
    return text


def _fields(file: PredictionFile, dataset: Dataset | Path | str | None) -> dict[str, dict[str, Any]]:
    folder = dataset or file.provenance.data
    if folder is None:
        raise UserError(
            f"{file.path}: a submission holds the true sections of every study; give the benchmark's own file or --data"
        )
    return {
        study: rexrank.study_fields(record.findings, record.impression, record.indication, record.positions)
        for study, record in _records(file, Dataset.open(folder)).items()
    }


def _benchmark(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the benchmark's file of studies") from None
    except ValueError:
        content = None
    if not isinstance(content, dict) or not all(isinstance(fields, dict) for fields in content.values()):
        raise UserError(
            f"{path}: not a JSON object of studies; give the benchmark's file of studies, such as its test file"
        )
    return content


def identifiers(path: Path) -> Sequence[str]:
    """Identifiers of studies from a text file, one per line.

    Raises:
        UserError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{path}: cannot be read; give a UTF-8 text file with one identifier per line") from None
    return [line.strip() for line in lines if line.strip()]


def _digest(studies: set[str]) -> str:
    return hashlib.sha256("\n".join(sorted(studies)).encode()).hexdigest()[:_DIGITS]
