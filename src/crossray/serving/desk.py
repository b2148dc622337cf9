"""The path of a study through the service: journal, decoder, model, journal. Every study is processed exactly once."""

import asyncio
import hashlib
import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from crossray.errors import UserError
from crossray.generation.files import FileStudy
from crossray.serving.answers import Answer, answer_of, flags_of
from crossray.serving.batcher import Job
from crossray.serving.decoder import Decoded, Decoder
from crossray.serving.dicom import ORIGIN
from crossray.serving.entries import SERVICE_FAILED, Entry, File
from crossray.serving.journal import Journal
from crossray.serving.metrics import Metrics
from crossray.serving.problems import Problem
from crossray.serving.settings import Settings
from crossray.serving.shelf import Shelf, described
from crossray.text.display import readable

_LOGGER = logging.getLogger("crossray.serving")

T = TypeVar("T")

#: Seconds between two checks for waiting studies in the journal.
LOOK = 0.25

#: Minimum number of seconds between two deletions of old studies.
SWEEP = 30.0

#: Longest pause in seconds before a failed write to the journal is repeated.
LONGEST_PAUSE = 30.0

#: Number of similar training studies listed with a report.
SIMILAR = 3


@dataclass(frozen=True)
class Reported:
    """A study with its report.

    Attributes:
        answer: response as stored in the journal.
        decoded: decoded views of the study.
    """

    answer: Answer
    decoded: Decoded


class Desk:
    """Accepts studies and ensures that each one is reported."""

    def __init__(self, settings: Settings, journal: Journal, shelf: Shelf, decoder: Decoder, metrics: Metrics) -> None:
        """Use `crossray.serving.app.create_app` instead."""
        self.settings, self.journal, self.shelf, self.decoder, self.metrics = settings, journal, shelf, decoder, metrics
        #: Returns the ids of studies whose sender is still connected.
        self.receiving: Callable[[], list[str]] = list
        self._tasks: set[asyncio.Task[Reported]] = set()
        self._seconds = 1.0  # moving average of the time per study
        self._coming = 0
        metrics.in_flight.set_function(lambda: self.in_flight)

    @property
    def in_flight(self) -> int:
        """Number of studies that are being uploaded or have no report yet."""
        return len(self._tasks) + self._coming

    @contextmanager
    def place(self) -> Iterator[None]:
        """Reserve capacity for one study, from the first byte of its upload until `accept` has returned.

        Raises:
            Problem: 429, if the service is at capacity.
        """
        most = self.settings.limits.in_flight
        if self.in_flight >= most:
            self.metrics.refused.labels("full").inc()
            wait = round(self._seconds * self.in_flight / self.settings.batch) + 1
            raise Problem(429, f"{most} studies are being received or reported; try again later.", retry=min(wait, 60))
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    async def accept(
        self,
        files: Sequence[File],
        model: str,
        owner: str,
        *,
        key: str | None = None,
        options: dict[str, object] | None = None,
        watch: Callable[[str], None] | None = None,
        preview: bool = False,
    ) -> "tuple[Entry, asyncio.Task[Reported] | None]":
        """Accept a study inside `place`; on return, it is in the journal, and its report is being generated.

        Args:
            files: files of the study.
            model: name of the model.
            owner: owner of the study.
            key: the caller's identifier of the study.
            options: options of the request.
            watch: called with the text so far, in the event loop.
            preview: create images of the views.

        Returns:
            The study and its task; no task if a study with this key was accepted before.

        Raises:
            Problem: 404, if the model does not exist; 422, if the key belongs to another request.
        """
        self.shelf.get(model)
        accept = partial(self.journal.accept, files, model=model, owner=owner, origin="http", key=key, claim=True)
        entry, new = await asyncio.to_thread(accept, options=options)
        if new:
            return entry, self._begin(entry, files, watch, preview)
        known = await asyncio.to_thread(self.journal.files, entry.id)
        # otherwise, the answer would be the report of another study, perhaps of another patient
        if (entry.model, entry.options, known) != (model, options or {}, list(files)):
            raise Problem(
                422, "Idempotency-Key: an earlier request has it with other files, model or options; give a new one."
            )
        return entry, None

    async def finish(self, study: str) -> Entry | None:
        """Wait until a study that was accepted before is done or failed; None if it is deleted."""
        while True:
            entry = await asyncio.to_thread(self.journal.entry, study)
            if entry is None or entry.state in ("done", "failed"):
                return entry
            await asyncio.sleep(LOOK / 5)

    async def run(self) -> None:
        """Process waiting studies and delete old ones, until canceled."""
        swept = 0.0
        while True:
            try:
                await asyncio.to_thread(self.journal.release, self.settings.quiet, self.receiving())
                room = self.settings.limits.in_flight - len(self._tasks)  # uploads do not delay accepted studies
                for entry in await asyncio.to_thread(self.journal.claim, max(0, min(room, self.settings.batch))):
                    self._begin(self._served(entry), None, None, preview=False)
                if self.settings.keep is not None and time.monotonic() - swept > SWEEP * bool(self.settings.keep):
                    owed = ORIGIN if self.settings.send_to is not None else None
                    await asyncio.to_thread(self.journal.sweep, self.settings.keep, owed=owed)
                    swept = time.monotonic()
            except Exception as error:
                log_failure("journal", error)
                await asyncio.sleep(4 * LOOK)
            await asyncio.sleep(LOOK)

    def _served(self, entry: Entry) -> Entry:
        """Assign the default model to a study whose own model is no longer served after a restart."""
        if entry.model in self.shelf.names:
            return entry
        default = self.shelf.default
        _LOGGER.warning("study %s: its model is no longer served; using the model %s instead.", entry.id, default)
        return replace(entry, model=default)

    async def drain(self, seconds: float) -> None:
        """Wait at most `seconds` for running reports."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def _begin(
        self, entry: Entry, files: Sequence[File] | None, watch: Callable[[str], None] | None, preview: bool
    ) -> "asyncio.Task[Reported]":
        task = asyncio.create_task(self._report(entry, files, watch, preview))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Reported]") -> None:
        self._tasks.discard(task)
        self.metrics.deaths.set(self.decoder.deaths)
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it; the journal records the failure

    async def _report(
        self, entry: Entry, files: Sequence[File] | None, watch: Callable[[str], None] | None, preview: bool
    ) -> Reported:
        """Generate the report of a claimed study.

        Raises:
            Problem: the study is rejected (422), or the service failed (500).
        """
        started = time.monotonic()
        try:
            if files is None:
                files = await _insist(partial(self.journal.files, entry.id))
            reported = await self._write(entry, files, watch, preview)
        except (UserError, Problem) as error:
            self.metrics.refused.labels("study").inc()
            await self._fail(entry, str(error))
            if isinstance(error, Problem):
                raise
            raise Problem(422, str(error)) from None
        except Exception as error:
            where = log_failure("study", error)
            reason = f"{SERVICE_FAILED} ({where}); send the study again."
            await self._fail(entry, reason)
            raise Problem(500, reason) from None
        if not await _insist(partial(self.journal.complete, entry, json.dumps(reported.answer))):
            raise Problem(409, "the study was taken over or deleted in the meantime.")
        self.metrics.reported.labels(entry.model).inc()
        self._seconds = 0.9 * self._seconds + 0.1 * (time.monotonic() - started)
        return reported

    async def _fail(self, entry: Entry, reason: str) -> None:
        if await _insist(partial(self.journal.fail, entry, reason)) and entry.origin == ORIGIN:
            # nobody asks for a study that was received by DICOM; the reason can quote a value of its header
            _LOGGER.warning("study %s: not reported; the journal says why", entry.id)
            await _insist(partial(self.journal.note, entry.owner, "report", "failed", entry.id))

    async def _write(
        self, entry: Entry, files: Sequence[File], watch: Callable[[str], None] | None, preview: bool
    ) -> Reported:
        generator = self.shelf.get(entry.model).reporter.generator
        with self.metrics.decoding.time():
            decoded = await self.decoder.decode(
                [file.content for file in files],
                generator.stored,
                generator.model.config.views,
                preview=preview,
                choose=bool(entry.options.get("choose")),
            )
        loop = asyncio.get_running_loop()

        def told(text: str) -> None:
            if watch is not None:
                loop.call_soon_threadsafe(watch, readable(text))

        attention = bool(entry.options.get("attention"))
        job = Job(
            study=FileStudy((), decoded.pixels, decoded.positions),
            # the same images give the same report, even with sampling
            name=hashlib.sha256(b"".join(pixels.tobytes() for pixels in decoded.pixels)).hexdigest(),
            attention=attention,
            watch=None if watch is None else told,
        )
        writing = self.shelf.submit(entry.model, job)
        report = await asyncio.wrap_future(job.future)
        check = report.check
        if self.settings.strict or entry.options.get("strict"):
            if check is None:
                raise Problem(422, "strict: this model has no input check; send the request without strict.")
            if not check.ok:
                raise Problem(422, f"images: refused by the input check. {check}", more={"flags": flags_of(check)})
        model = described(entry.model, writing)  # the folder may have been reloaded in the meantime
        details = partial(
            answer_of, entry.id, report, decoded, model, doubt=self.settings.doubt, attention=attention, similar=SIMILAR
        )
        return Reported(await asyncio.to_thread(details), decoded)


async def _insist(ask: Callable[[], T]) -> T:
    """Retry until the journal responds, because the outcome of a claimed study must be recorded."""
    pause = LOOK
    while True:
        try:
            return await asyncio.to_thread(ask)
        except Exception as error:
            log_failure("journal", error)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def log_failure(what: str, error: BaseException) -> str:
    """Log the type and location of an error, but not its message, which may contain patient data; return the type."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-4:]))
    _LOGGER.error("%s: %s at %s", what, type(error).__name__, places)
    return type(error).__name__
