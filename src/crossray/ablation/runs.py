"""The runs of an ablation: each is trained, writes the reports of a split, and is scored, optionally in parallel.

A run is a folder, and finished parts are kept: if it is killed at any point, the same call continues.
"""

import contextlib
import multiprocessing
import os
import shutil
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from crossray.ablation.comparison import PREDICTIONS, SCORES
from crossray.errors import UserError
from crossray.evaluation.evaluate import evaluate
from crossray.evaluation.metrics.family import MeteorChoice
from crossray.files import lock
from crossray.training.config import Recipe
from crossray.training.folder import RECIPE
from crossray.training.run import resume, train

#: Writes the reports of a split with the best model of a run: folder of the run, dataset, split, predictions file.
Writer = Callable[[Path, Path, str, Path], object]

#: Called for every run that ends, with the reason for a failure, or None.
Ended = Callable[["Run", str | None], None]


@dataclass(frozen=True)
class Run:
    """One row with one seed.

    Attributes:
        name: name in messages.
        folder: folder of all its files.
        recipe: recipe with its seed.
    """

    name: str
    folder: Path
    recipe: Recipe

    @property
    def finished(self) -> bool:
        """Whether the run is scored."""
        return (self.folder / SCORES).exists()


@dataclass(frozen=True)
class Task:
    """The settings that all runs share.

    Attributes:
        data: prepared dataset.
        split: split that is scored once, with the model selected on the validation split.
        write: writes the reports; it must be importable by name.
        meteor: whether METEOR is computed, as for `crossray evaluate`.
    """

    data: Path
    split: str
    write: Writer
    meteor: MeteorChoice = "auto"


def perform(run: Run, task: Task) -> None:
    """Train, write the reports and score; finished parts are skipped.

    Raises:
        UserError: a part failed.
        KeyboardInterrupt: Ctrl-C; the run can be continued.
    """
    predictions = run.folder / PREDICTIONS
    if run.finished:
        return
    if not predictions.exists():
        if (run.folder / RECIPE).exists():
            resume(run.folder, task.data)
        else:
            shutil.rmtree(run.folder, ignore_errors=True)  # it was killed before its files were complete
            train(run.recipe, task.data, run.folder)
        task.write(run.folder, task.data, task.split, predictions)
    evaluate(predictions, dataset=task.data, meteor=task.meteor).save(run.folder / SCORES)


def perform_all(runs: Sequence[Run], task: Task, ended: Ended, *, jobs: int = 1) -> None:
    """Perform runs, one at a time in this process or several in parallel processes.

    Args:
        runs: runs in the order in which they start.
        task: settings that they share.
        ended: called for every run that ends; a run that fails does not stop the others.
        jobs: number of parallel runs; they share the CPU cores and are distributed over the GPUs.

    Raises:
        KeyboardInterrupt: Ctrl-C; the same call continues.
    """
    if jobs > 1:
        _perform_at_once(runs, task, ended, jobs)
        return
    for run in runs:
        reason = None
        try:
            perform(run, task)
        except UserError as error:
            reason = str(error)
        ended(run, reason)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder of an ablation.

    Raises:
        UserError: another process is using it.
    """
    with lock.locked(folder / ".lock", f"{folder}: another process works in it; wait for that one to end."):
        yield


def _perform_at_once(runs: Sequence[Run], task: Task, ended: Ended, jobs: int) -> None:
    context = multiprocessing.get_context("spawn")
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    waiting, places = deque(runs), deque(_devices(jobs))
    working: dict[int, tuple[SpawnProcess, Run, str | None, Connection]] = {}
    try:
        while waiting or working:
            while waiting and places:
                run, device = waiting.popleft(), places.popleft()
                told, tell = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(run, task, device, threads, tell))
                process.start()
                tell.close()
                working[process.sentinel] = (process, run, device, told)
            for sentinel in wait(list(working)):
                assert isinstance(sentinel, int)
                process, run, device, told = working.pop(sentinel)
                process.join()
                places.append(device)
                ended(run, None if process.exitcode == 0 else _reason(process, run, told))
    except KeyboardInterrupt:
        for process, *_ in working.values():
            if process.pid is not None:
                os.kill(process.pid, signal.SIGINT)  # each writes a checkpoint
        for process, *_ in working.values():
            process.join()
        raise


def _work(run: Run, task: Task, device: str | None, threads: int, tell: Connection) -> None:
    """The whole life of a process: one run, with its output in a file beside its folder."""
    os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which passes it on once: a second one would not wait
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if device is None:
        torch.set_num_threads(threads)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        _log(run).open("a", encoding="utf-8", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            perform(run, task)
        except UserError as error:
            tell.send(str(error))
            raise SystemExit(1) from None
        except KeyboardInterrupt:
            raise SystemExit(1) from None  # the parent says how to go on


def _end_with_parent() -> None:
    """Two processes must never train in one folder: none is left when the parent is killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _reason(process: SpawnProcess, run: Run, told: Connection) -> str:
    if told.poll():
        with contextlib.suppress(EOFError):
            return str(told.recv())
    return f"its process ended with code {process.exitcode}; {_log(run)} says more"


def _log(run: Run) -> Path:
    return run.folder.with_name(f"{run.folder.name}.log")


def _devices(jobs: int) -> list[str | None]:
    """Which GPU each of `jobs` runs sees, as CUDA_VISIBLE_DEVICES has it; None where there is none."""
    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = named or [str(number) for number in range(count)]
    return [names[job % count] if count else None for job in range(jobs)]
