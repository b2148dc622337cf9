"""Writes a prepared dataset: in parallel, resumable after a kill at any point, atomic (DESIGN 5).

Workers write shards into a hidden folder; the last step merges their tables and moves their pixels. `dataset.json`
comes last of all, and a folder without it is no dataset. What is written depends on the studies alone, not on the
number of workers, nor on how often the run was killed.
"""

import fcntl
import hashlib
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from crossray.data import layout
from crossray.data.merge import merge
from crossray.data.reader import Dataset
from crossray.data.shards import Job, content_of, read_summary, shard_folder, start_worker, write_shard
from crossray.data.study import Study
from crossray.errors import UserError
from crossray.text.cleaning import CLEANERS

_LOGGER = logging.getLogger(__name__)
_JOB = "job.json"

Progress = Callable[[int, int], None]


def write_dataset(
    out: Path | str,
    studies: Iterable[Study],
    *,
    size: int,
    source: Mapping[str, Any],
    cleaner: str = "legacy",
    workers: int | None = None,
    notes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Prepare studies for training; the same call after a kill continues where it was.

    A study that cannot be used goes to `rejected.jsonl` with the reason and is counted.

    Args:
        out: folder of the dataset; made when missing.
        studies: the studies, in an order that is the same at every run; `ImageRef`s must be picklable.
        size: short side of the stored views in pixels.
        source: JSON-ready description of where the studies come from (name, files, seed); it identifies the run.
        cleaner: report cleaner of SPEC 1.2 for counting words and finding empty reports; texts are stored as they are.
        workers: processes; None takes one a core, 0 works in this process. A script that calls this with workers must
            guard its main part with `if __name__ == "__main__"`, as everywhere in `multiprocessing`.
        notes: JSON-ready remarks that are stored in `dataset.json`.
        progress: called with studies done and studies in all (0 when unknown) after every shard.

    Returns:
        The dataset; an equal one that exists already is returned at once.

    Raises:
        UserError: `out` holds another dataset or anything else, no study can be used, or the disk is full.
    """
    out = Path(out)
    if size < 1:
        raise UserError(f"size {size}: the short side of the stored images must be at least one pixel; use 256.")
    if cleaner not in CLEANERS:
        raise UserError(f"cleaner '{cleaner}' does not exist; choose one of {', '.join(CLEANERS)}.")
    identity = {"format": layout.FORMAT, "source": dict(source), "size": size, "cleaner": cleaner}
    if (out / layout.DESCRIPTION).exists():
        return _existing(out, identity)
    total = len(studies) if isinstance(studies, Sized) else 0
    with _unfinished_folder(out, identity) as folder:
        _check_space(out, estimated_bytes(total, size))
        job = Job(folder, size, cleaner)
        shards = _write_shards(job, studies, _worker_count(workers, total), total, progress)
        try:
            merge(out, folder, shards, identity, dict(notes or {}))
        except OSError as error:
            raise UserError(f"{out}: cannot be written ({error.strerror}); free space, then run the same command "
                            "again: it continues.") from error  # fmt: skip
    return Dataset.open(out)


def estimated_bytes(studies: int, size: int, views: int = 2) -> int:
    """Disk space that the pixels of some studies need at least: views are never smaller than size x size."""
    return studies * views * size * size


def _existing(out: Path, identity: Mapping[str, Any]) -> Dataset:
    dataset = Dataset.open(out)
    info = dataset.info
    found = {"format": info.format, "source": dict(info.source), "size": info.size, "cleaner": info.cleaner}
    for field, value in identity.items():
        if layout.json_bytes(found[field]) != layout.json_bytes(value):
            raise UserError(
                f"{out}: holds a dataset with another '{field}'; choose another --out or remove the folder."
            )
    shutil.rmtree(out / layout.UNFINISHED, ignore_errors=True)
    _LOGGER.info("%s is already prepared (%d studies)", out, dataset.studies)
    return dataset


@contextmanager
def _unfinished_folder(out: Path, identity: Mapping[str, Any]) -> Iterator[Path]:
    """The locked folder of an unfinished dataset; a new one leaves no trace when nothing was written into it."""
    folder = out / layout.UNFINISHED
    new = not out.exists()
    if not new and not folder.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not a dataset; choose another --out or remove it.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); choose another --out.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"{out}: another process is writing it; wait for that one to end.") from error
        _claim(out, folder, identity)
        for stale in folder.glob("*.*"):
            if stale.is_dir():
                shutil.rmtree(stale, ignore_errors=True)
        try:
            yield folder
        except BaseException:
            if not any(folder.glob("*/shard.json")):
                shutil.rmtree(folder, ignore_errors=True)
                if new:
                    shutil.rmtree(out, ignore_errors=True)
            raise


def _claim(out: Path, folder: Path, identity: Mapping[str, Any]) -> None:
    """Write what this run is, or see that the run to be continued was the same."""
    path, text = folder / _JOB, layout.json_bytes(identity)
    if not path.exists():
        layout.replace_file(path, text)
    elif path.read_bytes() != text:
        raise UserError(f"{out}: holds an unfinished dataset of another source, size or cleaner; run that command "
                        "again or remove the folder.")  # fmt: skip


def _check_space(out: Path, needed: int) -> None:
    already = sum(path.stat().st_size for path in out.rglob("*.u8"))
    free = shutil.disk_usage(out).free
    if needed // 2 > free + already:
        raise UserError(f"{out}: about {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; "
                        "free space or choose another --out.")  # fmt: skip


def _worker_count(workers: int | None, studies: int) -> int:
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if 0 < studies <= layout.shard_size(0) else workers


def _write_shards(job: Job, studies: Iterable[Study], workers: int, total: int, progress: Progress | None) -> int:
    """Write the shards that are missing, in any order; returns how many there are."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    shards = 0
    pool = _Pool(workers)
    try:
        for shard, members, repeated in _chunks(studies):
            shards += 1
            if _is_written(job, shard, members):
                advance(len(members))
                continue
            for count in pool.submit(job, shard, members, repeated):
                advance(count)
        for count in pool.finish():
            advance(count)
    finally:
        pool.close()
    return shards


def _chunks(studies: Iterable[Study]) -> Iterator[tuple[int, list[Study], frozenset[int]]]:
    """Number, studies and repeated identifiers of every shard."""
    iterator = iter(studies)
    known: set[bytes] = set()
    shard = 0
    while members := list(islice(iterator, layout.shard_size(shard))):
        repeated = set()
        for place, study in enumerate(members):
            key = hashlib.blake2b(study.id.encode(), digest_size=16).digest()
            if key in known:
                repeated.add(place)
            known.add(key)
        yield shard, members, frozenset(repeated)
        shard += 1


def _is_written(job: Job, shard: int, members: list[Study]) -> bool:
    summary = read_summary(job.folder, shard)
    if summary is None:
        return False
    if summary["source"] != content_of(members):
        raise UserError(f"{shard_folder(job.folder, shard)}: the source has changed since this dataset was begun; "
                        "remove the unfinished folder and run the command again.")  # fmt: skip
    return True


class _Pool:
    """Writes shards in some processes, or in this one when `workers` is 0; few are pending at any time."""

    def __init__(self, workers: int) -> None:
        self._pending: deque[Future[int]] = deque()
        self._limit = 2 * workers
        self._executor: ProcessPoolExecutor | None = None
        self._workers = workers

    def submit(self, job: Job, shard: int, members: list[Study], repeated: frozenset[int]) -> Iterator[int]:
        """Hand one shard over; yields the sizes of shards that are done."""
        if self._workers == 0:
            yield write_shard(job, shard, members, repeated)
            return
        if self._executor is None:
            # forked children would inherit the locks of PyTorch's threads
            self._executor = ProcessPoolExecutor(self._workers, get_context("forkserver"), initializer=start_worker)
        self._pending.append(self._executor.submit(write_shard, job, shard, members, repeated))
        while len(self._pending) > self._limit:
            yield self._result()

    def finish(self) -> Iterator[int]:
        """Wait for all shards; yields their sizes."""
        while self._pending:
            yield self._result()

    def _result(self) -> int:
        try:
            return self._pending.popleft().result()
        except BrokenProcessPool as error:
            raise UserError("a worker process was killed, most likely for want of memory; run the same command again "
                            "with fewer --workers: it continues.") from error  # fmt: skip

    def close(self) -> None:
        """Give up what has not begun and wait for the rest."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
