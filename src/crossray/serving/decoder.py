"""Decodes images in separate processes, so that a malicious or damaged file cannot affect the service.

Each process has limits on memory and time. If it dies or takes too long, it is replaced, and its study is rejected.
"""

import asyncio
import io
import logging
import multiprocessing
import os
import resource
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pebble import ProcessExpired, ProcessPool
from PIL import Image

from crossray.errors import UserError, counted

#: Longest side of an image for the reading page, in pixels.
PREVIEW = 1400

#: Seconds in which a process starts, on a busy machine.
STARTING = 60.0

#: Number of pools in which a study is tried: a file that crashes its process does not break the pool.
POOLS = 5


@dataclass(frozen=True)
class Decoded:
    """The decoded views of a study, in the order in which models use them.

    Attributes:
        pixels: (H, W) uint8 pixels of each view, resized to the short side that the model needs.
        positions: position of each view, one of `crossray.data.study.VIEW_POSITIONS`.
        places: index of each view among the files of the request.
        previews: PNG of each view for display; empty if not requested.
        remarks: warnings about the files.
        dicom: whether all files are DICOM.
    """

    pixels: tuple[NDArray[np.uint8], ...]
    positions: tuple[str, ...]
    places: tuple[int, ...]
    previews: tuple[bytes, ...]
    remarks: tuple[str, ...]
    dicom: bool


@dataclass(frozen=True)
class _Pool:
    """Processes and their unfinished tasks."""

    processes: ProcessPool
    tasks: set[Future[Decoded]] = field(default_factory=set)

    def end(self) -> None:
        """End the processes, which takes seconds; tasks that pebble leaves unfinished fail."""
        self.processes.stop()
        self.processes.join(timeout=5)
        for task in tuple(self.tasks):
            with suppress(InvalidStateError):
                task.set_exception(BrokenProcessPool("the pool has ended"))


class Decoder:
    """A pool of decoding processes."""

    def __init__(self, processes: int, memory: int, seconds: float) -> None:
        """Start the processes.

        Args:
            processes: number of processes.
            memory: memory limit of each process in bytes, in addition to its memory at the start.
            seconds: time limit per study.
        """
        self._processes, self._memory, self._seconds = processes, memory, seconds
        self._pool, self._replacing = self._start(), threading.Lock()
        self._studies, self._closed = 0, False
        self.deaths = 0

    async def decode(
        self, contents: Sequence[bytes], size: int, views: int, *, preview: bool = False, choose: bool = False
    ) -> Decoded:
        """Decode the files of a study.

        Args:
            contents: contents of the files; DICOM objects without pixels are skipped.
            size: length of the short side that the model needs.
            views: maximum number of views of the model.
            preview: also create images for display.
            choose: leave out images that are not radiographs, if others are; if there are too many views, select a
                frontal one, a lateral one, then others. Both add a remark.

        Raises:
            UserError: a file is not a radiograph, a limit is exceeded, there are too many views, or the files belong to
                several studies or patients.
            CancelledError: the decoder was closed.
        """
        for _ in range(POOLS):  # again if the pool broke, perhaps because of another study or a lack of memory
            pool = self._pool
            try:
                return await self._decoded(pool, list(contents), size, views, preview, choose)
            except BrokenProcessPool:
                self._replace(pool)
            except TimeoutError:
                self.deaths += 1
                raise UserError(
                    f"images: decoding took more than {self._seconds:g} s; export the study again."
                ) from None
            except ProcessExpired:
                self.deaths += 1
                break
        raise UserError("images: a file crashed the decoding process; export the study again.")

    async def _decoded(self, pool: _Pool, *given: Any) -> Decoded:
        """Decode a study in the pool.

        Raises:
            BrokenProcessPool: a process died before it confirmed its task: pebble then gives up the pool, or, if other
                tasks are running, forgets the task. Or the pool was replaced because of another study.
        """
        self._studies += 1
        patience = asyncio.timeout(self._seconds * self._studies + STARTING)
        try:
            try:
                future = pool.processes.submit(_decode, self._seconds, *given)
            except RuntimeError:
                raise BrokenProcessPool("the pool has ended") from None
            pool.tasks.add(future)
            future.add_done_callback(pool.tasks.discard)
            if pool is not self._pool or self._closed:  # since the task was submitted: `end` may have missed it
                raise BrokenProcessPool("the pool has ended")
            async with patience:
                return await asyncio.wrap_future(future)
        except TimeoutError:
            if patience.expired():
                raise BrokenProcessPool("the task was lost") from None
            raise
        finally:
            self._studies -= 1

    def _start(self) -> _Pool:
        processes = ProcessPool(
            max_workers=self._processes,
            initializer=_confine,
            initargs=[self._memory],
            context=multiprocessing.get_context("spawn"),
        )
        return _Pool(processes)

    def _replace(self, pool: _Pool) -> None:
        """Replace a broken pool, unless another study has done so.

        Raises:
            CancelledError: the decoder was closed; the study has not failed, and waits in the journal.
        """
        with self._replacing:
            if self._closed:
                raise asyncio.CancelledError
            if pool is self._pool:
                self._pool = self._start()
                self.deaths += 1
                threading.Thread(target=pool.end, daemon=True).start()

    def close(self) -> None:
        """End the processes."""
        with self._replacing:
            self._closed = True
        self._pool.end()


#: Limit of this process on memory in bytes while it decodes a study.
_limit = resource.RLIM_INFINITY


def _confine(memory: int) -> None:
    """Limit this process: no core files, a single thread; `_decode` limits its memory."""
    global _limit
    import crossray.data.images.dicom
    import crossray.data.images.folders  # noqa: F401  imported before the limit is set

    os.environ["OMP_NUM_THREADS"] = "1"
    warnings.simplefilter("ignore")  # warnings quote values of headers
    statistics = Path("/proc/self/statm")  # Linux only; elsewhere, the limit includes all memory
    pages = int(statistics.read_text().split()[0]) if statistics.exists() else 0
    limit = pages * resource.getpagesize() + memory
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    _limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class _Collecting(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _decode(contents: list[bytes], size: int, views: int, preview: bool, choose: bool = False) -> Decoded:
    # only here: a process that runs out of memory while it receives its task breaks the pool
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_limit, before[1]))
    try:
        return _read(contents, size, views, preview, choose)
    except MemoryError:
        pass  # the error holds references to what filled the memory, so it must be released before the next study
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    raise UserError("images: decoding needs more memory than the service allows; send smaller images.")


def _read(contents: list[bytes], size: int, views: int, preview: bool, choose: bool) -> Decoded:
    from crossray.data.images import describe_content, read_image, resize_short_side
    from crossray.data.images.folders import listed_frontal_first

    # file names can contain patient names, so messages use numbers
    described = {place: describe_content(content, f"image {place + 1}") for place, content in enumerate(contents)}
    given = [place for place, found in described.items() if found.is_image]
    if not given:
        raise UserError("images: there are none; send the PNG, JPEG or DICOM files of a study.")
    if len({described[place].study for place in given if described[place].study}) > 1:
        raise UserError("images: their StudyInstanceUID differs; send one study at a time.")
    # also if one is empty: nobody could tell whose report it is
    if len({described[place].patient for place in given if described[place].patient is not None}) > 1:
        raise UserError("images: their PatientID differs; send the images of one patient, or correct them first.")
    remarks = _Collecting()
    radiographs = [place for place in given if described[place].is_radiograph]
    if choose and 0 < len(radiographs) < len(given):
        others = counted(len(given) - len(radiographs), "image")
        remarks.texts.append(f"{others} of another modality left out")
        given = radiographs
    if len(given) > views and not choose:
        raise UserError(f"images: {counted(len(given), 'view')}, but the model takes at most {views}; leave some out.")
    positions = [described[place].position for place in given]
    order = listed_frontal_first(positions)
    log = logging.getLogger("crossray")
    if len(order) > views:
        remarks.texts.append(f"{views} of {len(order)} views were selected, as many as the model takes")
        firsts = {positions[number] == "lateral": number for number in reversed(order)}
        leading = [firsts[kind] for kind in (False, True) if kind in firsts]
        order = [*leading, *(number for number in order if number not in leading)][:views]
    log.handlers, log.propagate = [remarks], False
    pixels, previews = [], []
    for number in order:
        place = given[number]
        whole = read_image(contents[place], f"image {place + 1}")
        pixels.append(resize_short_side(whole, size))
        if preview:
            previews.append(_picture(whole))
    return Decoded(
        tuple(pixels),
        tuple(positions[number] for number in order),
        tuple(given[number] for number in order),
        tuple(previews),
        tuple(remarks.texts),
        all(content[128:132] == b"DICM" for content in (contents[place] for place in given)),
    )


def _picture(pixels: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(pixels)
    image.thumbnail((PREVIEW, PREVIEW), Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
