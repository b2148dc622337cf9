"""Writes a prepared dataset in parallel and atomically; a killed run can be continued (docs/architecture.md).

Workers write shards into a hidden folder; the last step merges their tables and moves their pixels. `dataset.json` is
written last, and a folder without it is not a dataset. The content depends only on the studies, not on the number of
workers or interruptions.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from crossray.data.store import layout
from crossray.data.store.engines import Engine, make_engine
from crossray.data.store.identity import changed
from crossray.data.store.merge import merge
from crossray.data.store.reader import Dataset
from crossray.data.store.shards import Job, content_of, read_summary, shard_folder
from crossray.data.study import Study
from crossray.errors import UserError, choose
from crossray.files.lock import locked
from crossray.files.write import write_whole
from crossray.text.cleaning import CLEANERS

_LOGGER = logging.getLogger(__name__)
#: Seconds for which a part waits for the lock of the whole dataset; other parts hold it only briefly.
_PATIENCE = 5.0

_JOB = "job.json"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Part:
    """The share of one machine out of several: part `number` (from 1) of `of` writes every `of`-th shard."""

    number: int
    of: int

    def holds(self, shard: int) -> bool:
        """Whether the shard belongs to this part."""
        return shard % self.of == self.number - 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Parse a part such as "2/8".

        Raises:
            UserError: the text is invalid, or the number is not between 1 and the number of parts.
        """
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise UserError(f"--shard {text!a}: is not a part such as 1/4 (the first of four); give one")
        return cls(int(number), int(of))


def write_dataset(
    out: Path | str,
    studies: Iterable[Study],
    *,
    size: int,
    source: Mapping[str, Any],
    cleaner: str = "legacy",
    workers: int | None = None,
    notes: Mapping[str, Any] | None = None,
    rejected: Sequence[Mapping[str, str]] = (),
    progress: Progress | None = None,
    engine: Engine = "processes",
    images: Mapping[str, Any] | None = None,
) -> Dataset:
    """Write a prepared dataset; if the process is killed, the same call continues.

    Studies that cannot be used are counted, and listed in `rejected.jsonl` with the reason.

    Args:
        out: folder of the dataset; created if missing.
        studies: the studies, in the same order in every run; their `ImageRef`s must be picklable.
        size: short side of the stored views in pixels.
        source: origin of the studies (name, files, seed) as JSON values; it identifies the run.
        cleaner: report cleaner for counting words and finding empty reports; the stored texts are not cleaned.
        workers: number of processes; None for one per core, 0 for this process only. A script that uses workers must
            guard its main code with `if __name__ == "__main__"`, as `multiprocessing` requires.
        notes: remarks for `dataset.json`, as JSON values.
        rejected: `study`, `step` and `reason` of entries that the source could not read as studies; they are listed and
            counted with the rejected studies.
        progress: called after every shard with the numbers of finished studies and of all studies (0 if unknown).
        engine: "processes" for processes on this machine, "ray" for a Ray cluster whose machines share the disk.
        images: identity of the image files (`identity.identify`). With it, images that changed since `out` was prepared
            are an error; without it, they are not noticed.

    Returns:
        The dataset. If the same dataset already exists, it is opened without reading the studies, and this is logged.

    Raises:
        UserError: `out` contains another dataset or other files, no study can be used, or the disk is full.
    """
    out = Path(out)
    identity = _identity(source, size, cleaner, images)
    if (out / layout.DESCRIPTION).exists():
        return _existing(out, identity)
    total = len(studies) if isinstance(studies, Sized) else 0
    with _unfinished_folder(out, identity) as folder:
        _check_space(out, estimated_bytes(total, size))
        job = Job(folder.resolve(), size, cleaner)
        shards = _write_shards(job, studies, engine, _worker_count(workers, total), total, progress)
        try:
            # the stored identity, because parts do not record the image files
            merge(out, folder, shards, _parsed(folder / _JOB), dict(notes or {}), rejected)
        except OSError as error:
            raise UserError(f"{out}: cannot be written ({error.strerror}); free space, then run the same command "
                            "again: it continues.") from error  # fmt: skip
    return Dataset.open(out)


def write_part(
    out: Path | str,
    studies: Iterable[Study],
    part: Part,
    *,
    size: int,
    source: Mapping[str, Any],
    cleaner: str = "legacy",
    workers: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Write the share of one machine, without completing the dataset.

    A later `write_dataset` with the same studies finds the shares in `out`, writes missing shards and completes the
    dataset. Machines can write to a shared `out` at the same time; otherwise, copy their hidden folders into one.

    Args:
        out: folder of the dataset; see `write_dataset` for all arguments but `part`.
        studies: all studies, not only those of this part.
        part: the part to write.
        size: short side of the stored views in pixels.
        source: origin of the studies.
        cleaner: report cleaner.
        workers: number of processes.
        progress: called with the number of finished studies and the approximate number in this part.

    Returns:
        Number of shards in this part; 0 if the dataset is already complete.

    Raises:
        UserError: `out` contains another dataset or other files, or the disk is full.
    """
    out = Path(out)
    identity = _identity(source, size, cleaner)
    if (out / layout.DESCRIPTION).exists():
        _existing(out, identity)
        return 0
    total = len(studies) // part.of if isinstance(studies, Sized) else 0
    with _unfinished_folder(out, identity, part) as folder:
        job = Job(folder.resolve(), size, cleaner)
        shards = _write_shards(job, studies, "processes", _worker_count(workers, total), total, progress, part)
    return len(range(part.number - 1, shards, part.of))


def _identity(
    source: Mapping[str, Any], size: int, cleaner: str, images: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    if size < 1:
        raise UserError(f"size {size}: the short side of the stored images must be at least one pixel; use 256.")
    if cleaner not in CLEANERS:
        raise UserError(f"cleaner '{cleaner}' does not exist; {choose(cleaner, CLEANERS)}.")
    identity = {"format": layout.FORMAT, "source": dict(source), "size": size, "cleaner": cleaner}
    return identity | ({"images": dict(images)} if images else {})


def estimated_bytes(studies: int, size: int, views: int = 2) -> int:
    """Return the minimum disk space for pixels, in bytes, because views are never smaller than size x size."""
    return studies * views * size * size


def _existing(out: Path, identity: Mapping[str, Any]) -> Dataset:
    dataset = Dataset.open(out)
    info = dataset.info
    found = {"format": info.format, "source": dict(info.source), "size": info.size, "cleaner": info.cleaner}
    if changed(identity.get("images", {}), info.images):
        raise UserError(f"{out}: the image files or --identity have changed since this dataset was prepared; "
                        "remove the folder to read them again, or choose another --out.")  # fmt: skip
    for field, value in identity.items():
        if field != "images" and layout.json_bytes(found[field]) != layout.json_bytes(value):
            raise UserError(
                f"{out}: contains a dataset with another '{field}'; choose another --out or remove the folder."
            )
    shutil.rmtree(out / layout.UNFINISHED, ignore_errors=True)
    _LOGGER.warning("%s: is already prepared and was not read again; remove the folder to prepare it anew", out)
    return dataset


@contextmanager
def _unfinished_folder(out: Path, identity: Mapping[str, Any], part: Part | None = None) -> Iterator[Path]:
    """Create and lock the folder of an unfinished dataset; after an error, remove it if no shard was finished.

    Parts share the folder and never remove it. Each part excludes runs of the same part, and all of them exclude a run
    for the whole dataset.
    """
    folder = out / layout.UNFINISHED
    new = not out.exists()
    if not new and not folder.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: the folder exists and is not a dataset; choose another --out or remove it.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); choose another --out.") from error
    with _locked(out, folder, part):
        _claim(out, folder, identity)
        for stale in folder.glob("*.*"):
            if stale.is_dir() and (part is None or part.holds(int(stale.name.split(".")[0]))):
                shutil.rmtree(stale, ignore_errors=True)
        try:
            yield folder
        except BaseException:
            if part is None and not any(folder.glob("*/shard.json")):
                shutil.rmtree(folder, ignore_errors=True)
                if new:
                    shutil.rmtree(out, ignore_errors=True)
            raise


@contextmanager
def _locked(out: Path, folder: Path, part: Part | None) -> Iterator[None]:
    """Lock the folder: a run for the whole dataset excludes all other runs, a part excludes runs of the same part."""
    busy = f"{out}: another process is writing it; wait for that one to end."
    with ExitStack() as held:
        if part is None:
            held.enter_context(locked(folder / "lock", busy))
            for other in folder.glob("lock-*"):
                held.enter_context(locked(other, busy))
        else:
            held.enter_context(locked(folder / f"lock-{part.number}-{part.of}", busy))
            with locked(folder / "lock", busy, patience=_PATIENCE):
                pass
        yield


def _claim(out: Path, folder: Path, identity: Mapping[str, Any]) -> None:
    """Record the identity of this run, or check that the unfinished run has the same identity."""
    path, text = folder / _JOB, layout.json_bytes(identity)
    if not path.exists():
        # parts on several machines may do this at the same time: each atomically replaces the file with equal content
        write_whole(path, text)
    elif path.read_bytes() != text:
        begun, same = _parsed(path), json.loads(text)  # tuples of the source are lists in both
        if {**begun, "images": 0} == {**same, "images": 0}:
            if "images" not in begun:  # begun in parts, whose copies of the images may have other times
                return
            raise UserError(f"{out}: the image files or --identity have changed since this dataset was begun; "
                            "remove the folder and run the command again.")  # fmt: skip
        raise UserError(f"{out}: contains an unfinished dataset of another source, size or cleaner; run that command "
                        "again or remove the folder.")  # fmt: skip


def _parsed(path: Path) -> dict[str, Any]:
    try:
        begun = json.loads(path.read_bytes())
    except ValueError:
        return {}
    return begun if isinstance(begun, dict) else {}


def _check_space(out: Path, needed: int) -> None:
    already = sum(path.stat().st_size for path in out.rglob("*.u8"))
    free = shutil.disk_usage(out).free
    if needed // 2 > free + already:
        raise UserError(f"{out}: about {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; "
                        "free space or choose another --out.")  # fmt: skip


def count_workers(workers: int | None) -> int:
    """Return the number of processes: `workers`, or one per core if it is None."""
    if workers is not None:
        return workers
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _worker_count(workers: int | None, studies: int) -> int:
    workers = count_workers(workers)
    return 0 if 0 < studies <= layout.shard_size(0) else workers


def _write_shards(
    job: Job,
    studies: Iterable[Study],
    engine: Engine,
    workers: int,
    total: int,
    progress: Progress | None,
    part: Part | None = None,
) -> int:
    """Write the missing shards, or only those of a part, in any order; return the total number of shards."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    shards = 0
    pool = make_engine(engine, workers)
    try:
        for shard, members, repeated in _chunks(studies):
            shards += 1
            if part is not None and not part.holds(shard):
                continue
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
    """Yield the number of every shard, its studies, and the indices of studies with a repeated identifier."""
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
