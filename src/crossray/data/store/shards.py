"""Writes the shards of a prepared dataset; each contains some studies and is written by one worker.

The folder of a shard gets its final name only after everything in it is on disk, so a killed run leaves either a
complete shard or temporary files. This module does not import PyTorch, so workers start quickly.
"""

import hashlib
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crossray.data.store import layout
from crossray.data.study import SPLITS, FindingMask, Study, View
from crossray.errors import UserError
from crossray.files.write import sync
from crossray.text.cleaning import clean
from crossray.text.missing import is_missing
from crossray.text.observations import OBSERVATIONS, STATUSES

SUMMARY = "shard.json"
PIXELS = "pixels.u8"


@dataclass(frozen=True)
class Job:
    """Settings that all shards share; picklable.

    Attributes:
        folder: folder of the shards.
        size: short side of the stored views in pixels.
        cleaner: cleaner that decides whether a report is empty.
    """

    folder: Path
    size: int
    cleaner: str


class _RejectedError(Exception):
    """A study cannot be used; `step` is the filter that rejected it."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(reason)
        self.step = step


def shard_folder(folder: Path, shard: int) -> Path:
    """Return the folder of a finished shard."""
    return folder / f"{shard:05d}"


def content_of(studies: Sequence[Study]) -> str:
    """Compute a digest of the studies' identifiers, splits and texts, to notice a changed source."""
    digest = hashlib.sha256()
    for study in studies:
        digest.update(layout.json_bytes([study.id, study.patient, study.split, study.findings, study.impression]))
    return digest.hexdigest()


def read_summary(folder: Path, shard: int) -> dict[str, Any] | None:
    """Read the summary of a shard; return None if the shard is not finished."""
    path = shard_folder(folder, shard) / SUMMARY
    if not path.exists():
        return None
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return summary


def write_shard(job: Job, shard: int, studies: Sequence[Study], repeated: frozenset[int]) -> int:
    """Read the images of a shard's studies and write them with the texts.

    Args:
        job: settings of all shards.
        shard: number of the shard.
        studies: the studies of this shard, in the order of the source.
        repeated: indices of those `studies` whose identifier occurred before.

    Returns:
        Number of studies in the shard, accepted or rejected.

    Raises:
        UserError: the disk is full or not writable.
    """
    target = shard_folder(job.folder, shard)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=job.folder))
        try:
            _fill(job, shard, studies, repeated, temporary)
            sync(temporary)
            if not target.exists():
                temporary.rename(target)
                sync(job.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{job.folder.parent}: cannot be written ({error.strerror}); free space or choose another "
                        "--out, then run the same command again: it continues.") from error  # fmt: skip
    return len(studies)


def _fill(job: Job, shard: int, studies: Sequence[Study], repeated: frozenset[int], folder: Path) -> None:
    accepted: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    findings: list[dict[str, Any]] = []
    rejected: list[dict[str, str]] = []
    named: set[str] = set()
    digest = hashlib.sha256()
    offset = 0
    with (folder / PIXELS).open("wb") as file:
        for place, study in enumerate(studies):
            try:
                record = _record(study, job.cleaner, repeated=place in repeated)
                views = _views(study, job.size)
            except _RejectedError as error:
                rejected.append({"study": study.id, "step": error.step, "reason": str(error)})
                continue
            digest.update(layout.json_bytes(record))
            number = len(accepted)
            accepted.append(record)
            named.update(study.labels or ())
            for view, (image, seen) in enumerate(zip(study.images, views, strict=True)):
                height, width = seen.pixels.shape
                entry = {"study": number, "view": view, "position": image.position, "height": height, "width": width}
                masks = [{"study": number, "view": view, **_mask(mask)} for mask in seen.findings]
                digest.update(layout.json_bytes([entry, masks]))
                pixels = np.ascontiguousarray(seen.pixels).data
                digest.update(pixels)
                file.write(pixels)
                stored = {"offset": offset, "shard": shard, "warnings": list(seen.warnings)}
                images.append({"row": len(images), **entry, **stored})
                findings += masks
                offset += pixels.nbytes
        file.flush()
        os.fsync(file.fileno())
    for name, rows, schema in (
        (layout.STUDIES, accepted, layout.STUDIES_SCHEMA),
        (layout.IMAGES, images, layout.IMAGES_SCHEMA),
        (layout.FINDINGS, findings, layout.FINDINGS_SCHEMA),
    ):
        layout.write_file(folder / name, layout.parquet_bytes(pa.Table.from_pylist(rows, schema=schema)))
    summary = {
        "source": content_of(studies),
        "read": len(studies),
        "bytes": offset,
        "rejected": rejected,
        "observations": sorted(named),
        "sha256": digest.hexdigest(),
    }
    layout.write_file(folder / SUMMARY, layout.json_bytes(summary))


def _record(study: Study, cleaner: str, *, repeated: bool) -> dict[str, Any]:
    """Convert a study to a row of the table; raise `_RejectedError` if it cannot be used."""
    if repeated:
        raise _RejectedError("repeated", "another study of the source has the same identifier")
    if study.refusal is not None:
        raise _RejectedError(*study.refusal)
    if study.split not in SPLITS:
        raise _RejectedError("split", f"split '{study.split}' is not one of {', '.join(SPLITS)}")
    if not study.images:
        raise _RejectedError("no_image", "the study has no image")
    words = clean(study.findings, cleaner).split()
    if is_missing(study.findings) or not any(character.isalnum() for word in words for character in word):
        raise _RejectedError("empty_report", "the findings section is empty after cleaning")
    return {
        "id": study.id,
        "patient": study.patient,
        "split": study.split,
        "findings": study.findings,
        "impression": study.impression,
        "indication": study.indication,
        "views": len(study.images),
        "words": len(words),
        "labels": _label_codes(study),
        "extra": json.dumps(dict(study.extra), ensure_ascii=False, sort_keys=True),
    }


def _label_codes(study: Study) -> list[int] | None:
    """Return the status codes of all `OBSERVATIONS`; `merge` keeps the columns that any study labels."""
    if study.labels is None:
        return None
    for observation, status in study.labels.items():
        if observation not in OBSERVATIONS:
            raise _RejectedError("label", f"label '{observation}' is not a known observation")
        if status not in STATUSES:
            raise _RejectedError(
                "label", f"status '{status}' of label '{observation}' is not one of {', '.join(STATUSES)}"
            )
    return [STATUSES.index(study.labels.get(name, "blank")) for name in OBSERVATIONS]


def _views(study: Study, size: int) -> list[View]:
    """Read the pixels of the views; raise `_RejectedError` with the reader's message for an unreadable image."""
    views = []
    for image in study.images:
        try:
            view = image.read(size)
        except UserError as error:
            raise _RejectedError("broken_image", str(error)) from error
        _check_pixels(view.pixels, image.name)
        views.append(view)
    return views


def _check_pixels(pixels: NDArray[Any], name: str) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or 0 in pixels.shape:
        raise TypeError(f"{name}: an image must be (H, W) uint8, got {pixels.dtype} {pixels.shape}")


def _mask(mask: FindingMask) -> dict[str, Any]:
    return {
        "finding": mask.finding,
        "side": mask.side,
        "place": mask.place,
        "degree": mask.degree,
        "status": mask.status,
        "height": mask.height,
        "width": mask.width,
        "runs": [int(run) for run in mask.runs],
    }


def start_worker() -> None:
    """Make a worker exit with its parent process, even if the parent is killed; otherwise, it would wait forever.

    Ctrl-C is handled by the parent, which lets running shards finish.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is None:
        return

    def watch(seconds: float | None = None) -> None:
        if connection.wait([parent.sentinel], seconds):
            os._exit(1)

    # if the parent has already ended, the worker must not begin a shard: another run may have cleaned up
    watch(0)
    threading.Thread(target=watch, daemon=True).start()
