"""Images are decoded where they can do no harm."""

import asyncio
import io
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.serving.conftest import png, wait
from tests.serving.harm import die, hang, process

pytest.importorskip("pebble")

from crossray.data.images import read_image, resize_short_side
from crossray.errors import UserError
from crossray.serving import decoder as module
from crossray.serving.decoder import Decoder


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    made = Decoder(1, 2**25, 60.0)
    yield made
    made.close()


def black(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def decode(decoder: Decoder, *contents: bytes, **options: Any) -> module.Decoded:
    # in a thread: Playwright's loop may be running in this one, from a test of a page
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, decoder.decode(contents, 40, 2, **options)).result()


def test_pixels_are_those_of_the_library(decoder: Decoder) -> None:
    decoded = decode(decoder, png(1), png(2), preview=True)
    for number, pixels in enumerate(decoded.pixels):
        assert np.array_equal(pixels, resize_short_side(read_image(png(number + 1), "x"), 40))
    with Image.open(io.BytesIO(decoded.previews[0])) as picture:
        assert np.array_equal(np.asarray(picture), read_image(png(1), "x"))
    assert (decoded.positions, decoded.places, decoded.dicom) == (("unknown",) * 2, (0, 1), False)


def test_mistakes_come_back_as_sentences(decoder: Decoder) -> None:
    with pytest.raises(UserError, match="image 2: not a PNG"):
        decode(decoder, png(), b"nonsense")
    with pytest.raises(UserError, match="3 views"):
        decode(decoder, png(), png(), png())
    with pytest.raises(UserError, match="needs more memory"):
        decode(decoder, black(5700), preview=True)
    assert len(decode(decoder, png()).pixels) == 1


def test_a_chosen_study_leaves_out_what_is_no_radiograph(decoder: Decoder) -> None:
    pytest.importorskip("pydicom")
    from tests.interop.studies import image

    views, capture = (image(1, ViewPosition="PA"), image(2, ViewPosition="LL")), image(3, Modality="SC")
    decoded = decode(decoder, capture, *views, choose=True)
    assert (decoded.positions, decoded.places) == (("pa", "lateral"), (1, 2))
    assert decoded.remarks[0] == "1 image of another modality left out"
    for contents, choose in (((capture,), True), ((capture, views[0]), False)):
        with pytest.raises(UserError, match="image 1: Modality is SC"):
            decode(decoder, *contents, choose=choose)


@pytest.mark.parametrize("other", ["P-2", "", None])
def test_images_of_two_patients_are_refused(decoder: Decoder, other: str | None) -> None:
    pytest.importorskip("pydicom")
    from tests.interop.studies import image

    one = image(1)
    for choose in (False, True):
        with pytest.raises(UserError, match="images: their PatientID differs"):
            decode(decoder, one, image(2, PatientID=other), choose=choose)
    assert len(decode(decoder, one, image(2)).pixels) == len(decode(decoder, one, png()).pixels) == 2


def test_a_process_that_dies_or_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Decoder(1, 2**28, 3.0)
    try:
        decode(made, png())  # the process is up
        monkeypatch.setattr(module, "_decode", die)
        with pytest.raises(UserError, match="crashed the decoding process"):
            decode(made, png())
        monkeypatch.setattr(module, "_decode", hang)
        with pytest.raises(UserError, match="took more than 3 s"):
            decode(made, png())
        monkeypatch.undo()
        assert len(decode(made, png()).pixels) == 1
        assert made.deaths == 2
    finally:
        made.close()


def test_a_process_that_dies_idle_costs_no_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the kernel runs out of memory: pebble gives up its pool."""
    made = Decoder(1, 2**28, 60.0)
    try:
        monkeypatch.setattr(module, "_decode", process)
        number: Any = decode(made, png())
        monkeypatch.undo()
        os.kill(number, signal.SIGKILL)
        assert len(decode(made, png()).pixels) == 1
        assert len(decode(made, png()).pixels) == 1
        assert made.deaths == 1
    finally:
        made.close()


def test_a_study_larger_than_the_limit_leaves_the_pool_whole(decoder: Decoder) -> None:
    with suppress(UserError):
        decode(decoder, png() + bytes(2**27))
    assert len(decode(decoder, png()).pixels) == 1
    assert decoder.deaths == 0


def test_a_lost_task_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pebble forgets the task of a process that died before it confirmed it, if others are working."""
    made = Decoder(1, 2**28, 60.0)
    lost: list[Future[Any]] = []

    def lose(*_: Any) -> Future[Any]:
        monkeypatch.undo()
        lost.append(Future())
        return lost[0]

    monkeypatch.setattr(module, "STARTING", -59.9)
    monkeypatch.setattr(made._pool.processes, "submit", lose)
    try:
        assert len(decode(made, png()).pixels) == 1
        assert (len(lost), lost[0].cancelled(), made.deaths) == (1, True, 1)
    finally:
        made.close()


def test_a_pool_that_is_replaced_costs_no_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """More often than once, and without waiting until the task seems to be lost."""
    made = Decoder(1, 2**28, 600.0)
    monkeypatch.setattr(module, "_decode", hang)
    try:
        with ThreadPoolExecutor(1) as thread:
            answer = thread.submit(decode, made, png())
            for last in (False, False, True):
                pool = made._pool
                wait(lambda pool=pool: any(task.running() for task in pool.tasks))
                if last:
                    monkeypatch.undo()
                made._replace(pool)
                wait(lambda pool=pool: not pool.tasks)
            assert len(answer.result(60).pixels) == 1
        assert made.deaths == 3
    finally:
        made.close()


def test_a_closed_decoder_starts_no_pool_and_fails_no_study(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Decoder(1, 2**28, 600.0)
    monkeypatch.setattr(module, "_decode", hang)
    pool = made._pool
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(decode, made, png())
        wait(lambda: any(task.running() for task in pool.tasks))
        made.close()
        with pytest.raises(asyncio.CancelledError):
            answer.result(60)
    with pytest.raises(asyncio.CancelledError):
        decode(made, png())
    assert (made._pool, made.deaths) == (pool, 0)
