"""Exports predictions as files for hospital systems, one per study."""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from crossray.data.images import describe_image
from crossray.errors import UserError
from crossray.evaluation.predictions import Prediction, PredictionFile
from crossray.files.write import write_whole
from crossray.interop.draft import NOTICE, DraftReport, predicted_report
from crossray.interop.fhir import fhir_bundle
from crossray.interop.source import Source, read_sources
from crossray.interop.sr import dicom_bytes, structured_report

Format = Literal["text", "fhir", "sr"]

_SUFFIX = {"text": ".txt", "fhir": ".json", "sr": ".dcm"}

#: Maximum length of a file name in characters and in bytes; file systems allow 255 bytes with temporary suffixes.
_LONGEST, _MOST_BYTES = 100, 150

#: Number of hexadecimal digits that distinguish studies whose names cannot be names of files.
_DIGITS = 8


def export_reports(
    file: PredictionFile,
    folder: Path,
    format: Format,
    *,
    images: Path | None = None,
    subject: str | None = None,
    transaction: bool = False,
) -> int:
    """Export every prediction to a separate file.

    Args:
        file: predictions.
        folder: output folder; created if it does not exist.
        format: "text"; "fhir" for a FHIR bundle; "sr" for a DICOM structured report.
        images: folder to which image paths are relative; by default, the working directory.
        subject: for "fhir", the patient of a single study; see `fhir_bundle`.
        transaction: for "fhir", whether to write transaction bundles.

    Returns:
        Number of files.

    Raises:
        UserError: an image cannot be read, a study for "sr" has no DICOM images, `subject` is given for several
            studies, or a file of `folder` that is no export would be replaced.
    """
    if subject is not None and (format != "fhir" or len(file.rows) > 1):
        raise UserError(
            "--subject names the patient of a single study with --format fhir; select the study with --studies."
        )
    written = datetime.now(UTC)
    targets = {
        study: folder / f"{name}{_SUFFIX[format]}" for study, name in _names([row.id for row in file.rows]).items()
    }
    for target in targets.values():
        _keep(target)
    for row in file.rows:
        draft = predicted_report(row, file.provenance, written)
        sources = () if format == "text" else _sources(row, file, images)
        write_whole(targets[row.id], _content(draft, sources, format, subject, transaction))
    return len(file.rows)


def report_text(draft: DraftReport) -> str:
    """Format a report as plain text, with the notice."""
    return (
        f"{draft.text}\n\n{NOTICE}\nModel: {draft.model.name} ({draft.model.system}), CrossRay {draft.model.version}\n"
    )


def _keep(target: Path) -> None:
    """Refuse to replace a file that is no export: it may be the radiograph, or a report of a person."""
    try:
        own = not target.is_file() or NOTICE.encode() in target.read_bytes()
    except OSError as error:
        raise UserError(f"--out: {target} cannot be replaced ({error.strerror}); choose another folder.") from None
    if not own:
        raise UserError(f"--out: {target} exists and is no export of CrossRay; choose another folder.")


def _content(
    draft: DraftReport, sources: tuple[Source, ...], format: Format, subject: str | None, transaction: bool
) -> str | bytes:
    if format == "text":
        return report_text(draft)
    if format == "sr":
        return dicom_bytes(structured_report(draft, sources))
    bundle = fhir_bundle(draft, sources, subject=subject, kind="transaction" if transaction else "collection")
    return json.dumps(bundle, ensure_ascii=False, indent=1) + "\n"


def _sources(row: Prediction, file: PredictionFile, images: Path | None) -> tuple[Source, ...]:
    """Read the DICOM images of a study; empty if they have another format or come from a prepared dataset."""
    if file.provenance.data is not None:
        return ()
    paths = [_image((images or Path()) / name) for name in row.images]
    if not all(describe_image(path).study for path in paths) or not paths:
        return ()
    return read_sources(paths)


def _image(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"{path}: the image does not exist; give --images, the folder to which the paths are relative.")
    return path


def _names(studies: list[str]) -> Mapping[str, str]:
    """Choose a unique file name for each study, which does not depend on the other studies.

    A name that differs from the study's ends with a digest of it. Otherwise, an export of "ward:a" alone would replace
    an earlier report of "ward/a". Only names that differ in case are numbered, because a disk may not tell them apart.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for study in studies:
        stem = re.sub(r"[^\w.+-]+", "_", study).strip("._")[:_LONGEST]
        stem = stem.encode()[:_MOST_BYTES].decode(errors="ignore") or "study"
        if stem != study:
            stem += "-" + hashlib.sha256(study.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names[study] = name
    return names
