"""Images are decoded where they can do no harm."""

import asyncio
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.serving.conftest import png
from tests.serving.harm import die, hang

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
