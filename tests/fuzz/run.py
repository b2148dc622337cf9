"""Runs mutations in a process of their own, so that a crash, a hang or a flood of memory is seen and named."""

import logging
import multiprocessing
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from tests.fuzz.inputs import FORMATS, Format
from tests.fuzz.mutation import mutated

from crossray.errors import UserError

#: Longest time for one input, in seconds, on a machine under load.
TIME_LIMIT = 20.0

#: Most memory of the process that reads, in bytes.
MEMORY_LIMIT = 2**30


@dataclass
class Outcome:
    """What became of the mutations of one format.

    Attributes:
        format: its name.
        accepted: mutations that were read; `rejected`: that ended in a `UserError`.
        faults: seed and description of all others.
        slowest: longest time for one of them, in seconds.
        memory: highest resident memory of the process, in bytes.
        reasons: how often each kind of rejection occurred.
    """

    format: str
    accepted: int = 0
    rejected: int = 0
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    memory: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def fuzz(
    name: str,
    count: int,
    first: int = 0,
    *,
    formats: Mapping[str, Callable[[], Format]] = FORMATS,
    time_limit: float = TIME_LIMIT,
) -> Outcome:
    """Read the mutations `first` ... `first + count - 1` of a format; after a fault a new process takes the next.

    Args:
        name: one of `formats`.
        count: number of mutations.
        first: seed of the first one.
        formats: what makes each format, callable in another process.
        time_limit: longest time for one input, in seconds.
    """
    outcome = Outcome(name)
    context = multiprocessing.get_context("spawn")
    seed, end = first, first + count
    while seed < end:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_read_all, args=(formats[name], seed, end, sender))
        process.start()
        sender.close()
        seed = _follow(receiver, outcome, seed, end, time_limit)
        if seed < end:
            process.join(timeout=1)
            state = "took too long" if process.is_alive() else f"ended the process with code {process.exitcode}"
            process.kill()
            outcome.faults.append(f"{name} {seed}: {state}")
            seed += 1
        process.join()
    if outcome.memory > MEMORY_LIMIT:
        outcome.faults.append(f"{name}: {outcome.memory / 1e9:.1f} GB of memory")
    return outcome


def _follow(receiver: Connection, outcome: Outcome, seed: int, end: int, time_limit: float) -> int:
    """Take down what the process tells until it ends or goes quiet; returns the seed that it did not come through."""
    try:
        # starting Python and building the files to start from is no input's fault
        receiver.recv()
    except EOFError:
        return seed
    while seed < end:
        try:
            if not receiver.poll(time_limit):
                break
            verdict, detail, seconds, memory = receiver.recv()
        except EOFError:
            break
        outcome.slowest = max(outcome.slowest, seconds)
        outcome.memory = max(outcome.memory, memory)
        if verdict == "fault":
            outcome.faults.append(f"{outcome.format} {seed}: {detail}")
        elif verdict == "rejected":
            outcome.rejected += 1
            outcome.reasons[detail] += 1
        else:
            outcome.accepted += 1
        seed += 1
    return seed


def _read_all(make: Callable[[], Format], first: int, end: int, sender: Connection) -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")  # Pillow's, about damaged EXIF data
    made = make()
    limit_memory(MEMORY_LIMIT)
    sender.send("ready")
    for seed in range(first, end):
        content = mutated(made.seeds[seed % len(made.seeds)], seed)
        started = time.perf_counter()
        verdict, detail = "accepted", ""
        try:
            made.read(content)
        except UserError as error:
            verdict, detail = "rejected", _reason(error)
            if "\n" in str(error) and not made.lists:
                verdict, detail = "fault", "a message of several lines"
        except BaseException as error:
            verdict, detail = "fault", f"{type(error).__name__}: {error}"[:200]
        sender.send((verdict, detail, time.perf_counter() - started, peak_memory()))


def _reason(error: UserError) -> str:
    """The message without the name of the file and without numbers; of a list of rows, the first one."""
    words = str(error).split("\n")[:2][-1].split(": ", 1)[-1]
    return "".join("#" if character.isdigit() else character for character in words)[:70]


def limit_memory(size: int) -> None:
    """Let this process ask for that many bytes beyond what it has, written to or not: more is a `MemoryError`."""
    status = Path("/proc/self/status")
    if status.exists():  # elsewhere the system counts otherwise, and only `peak_memory` is held
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmData"))
        limit = int(line.split()[1]) * 1024 + size
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def peak_memory() -> int:
    """Highest resident memory of this process in bytes; `getrusage` would count what its parent had at the start."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
