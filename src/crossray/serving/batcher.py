"""Dynamic batching: studies that arrive at about the same time share a batch, and a single study hardly waits."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from crossray.api import Report, Reporter
from crossray.generation.files import FileStudy

_LOGGER = logging.getLogger(__name__)


@dataclass
class Job:
    """A study that is waiting for its report.

    Attributes:
        study: views of the study.
        name: name of the study, which seeds its sampling.
        attention: whether to return the cross-attention.
        watch: called with the text so far, in the batcher's thread.
        future: future of the report.
        since: arrival time, by `time.monotonic`.
    """

    study: FileStudy
    name: str
    attention: bool = False
    watch: Callable[[str], None] | None = None
    future: "Future[Report]" = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """A thread that runs one model.

    The first study of a batch waits at most `window` seconds for others. Studies that arrive while a batch runs form
    the next one, which starts without waiting.
    """

    def __init__(
        self, reporter: Reporter, size: int, window: float, observe: Callable[[int, float], None] | None = None
    ) -> None:
        """Start the thread.

        Args:
            reporter: the model.
            size: maximum number of studies per batch.
            window: maximum number of seconds that a study waits for others.
            observe: called with the number of studies and seconds of each batch.
        """
        self._reporter, self._size, self._window, self._observe = reporter, size, window, observe
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name=f"model {reporter.system}", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a study."""
        self._jobs.put(job)

    def stop(self) -> None:
        """End the thread after the queued studies; returns immediately."""
        self._jobs.put(None)

    def join(self, seconds: float | None = None) -> None:
        """Wait for the thread to end."""
        self._thread.join(seconds)

    def _run(self) -> None:
        ending = False
        while not ending:
            first = self._jobs.get()
            if first is None:
                return
            jobs = [first]
            deadline = first.since + self._window
            while len(jobs) < self._size:
                left = deadline - time.monotonic()
                try:
                    job = self._jobs.get(timeout=left) if left > 0 else self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    ending = True
                    break
                jobs.append(job)
            self._write(jobs)

    def _write(self, jobs: list[Job]) -> None:
        def watch(place: int, text: str) -> None:
            told = jobs[place].watch
            if told is not None:
                told(text)

        started = time.monotonic()
        try:
            reports = self._reporter.write(
                [job.study for job in jobs],
                [job.name for job in jobs],
                need_attention=any(job.attention for job in jobs),
                watch=watch if any(job.watch for job in jobs) else None,
            )
        except Exception as error:
            if len(jobs) > 1:  # an error in one study, or too little memory for all, should not affect the others
                half = len(jobs) // 2
                self._write(jobs[:half])
                self._write(jobs[half:])
            else:
                jobs[0].future.set_exception(error)
            return
        if self._observe is not None:
            self._observe(len(jobs), time.monotonic() - started)
        for job, report in zip(jobs, reports, strict=True):
            job.future.set_result(report)
