"""PNG with 16 bits a sample, and pictures that show nothing: the same levels and warnings for every format."""

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.data.images.test_dicom_contradictions import SIZE, film

from crossray.data.images import read_image
from crossray.errors import UserError

GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6


def png16(samples: NDArray[np.integer], kind: int, interlaced: bool = False, key: tuple[int, ...] = ()) -> bytes:
    """(H, W) or (H, W, samples) as a PNG with 16 bits a sample, its rows filtered as the first byte of each says.

    `key` is the level, or levels, of transparent pixels.
    """

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    def rows(part: NDArray[np.integer]) -> bytes:
        lines = [row.astype(">u2").tobytes() for row in part]
        # filter 2 (up) is what the row above is taken off by, and it is undone byte by byte
        up = [np.frombuffer(line, np.uint8) for line in lines]
        filtered = [up[0], *(now - before for before, now in itertools.pairwise(up))]
        return b"".join(bytes([2 if place else 0]) + line.tobytes() for place, line in enumerate(filtered))

    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in passes] if interlaced else [samples]
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, kind, 0, 0, int(interlaced))
    data = zlib.compress(b"".join(map(rows, parts)))
    transparent = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b""
    body = chunk(b"IHDR", header) + transparent + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def samples(values: NDArray[np.integer], kind: int, alpha: int = 65535) -> NDArray[np.integer]:
    opaque = np.full_like(values, alpha)
    return {
        GREY: values,
        RGB: np.stack([values] * 3, -1),
        GREY_ALPHA: np.stack([values, opaque], -1),
        RGBA: np.stack([values] * 3 + [opaque], -1),
    }[kind]


@pytest.mark.parametrize("kind", [GREY, RGB, GREY_ALPHA, RGBA])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("interlaced", [False, True])
def test_the_bits_in_use_decide_for_every_colour_type(kind: int, bits: int, interlaced: bool) -> None:
    values = np.round(film() / 255.0 * (2**bits - 1)).astype(np.int64)
    values[-1, -1] = 2**bits - 1
    pixels = read_image(png16(samples(values, kind), kind, interlaced))
    expected = film()
    expected[-1, -1] = 255
    assert np.abs(pixels.astype(int) - expected).max() == 0


@pytest.mark.parametrize("kind", [GREY, RGB, GREY_ALPHA, RGBA])
def test_hot_pixels_and_markers_do_not_darken(kind: int, caplog: pytest.LogCaptureFixture) -> None:
    values = film().astype(np.int64) * 16
    values[0, 0] = values[5:15, 5:15] = 65535
    pixels = read_image(png16(samples(values, kind), kind), "film")
    assert (pixels[5:15, 5:15] == 255).all()
    np.testing.assert_allclose(pixels[20:], film()[20:], atol=1)
    assert caplog.messages == ["film: samples use 12 bits, but for a few far above; these are white"]


def test_levels_without_a_gap_are_the_image(caplog: pytest.LogCaptureFixture) -> None:
    values = film().astype(np.int64) * 16
    values[:, 0] = np.linspace(0, 65535, SIZE)  # few pixels, but they reach up step by step
    assert read_image(png16(values, GREY)).max() == 255
    assert read_image(png16(values, GREY))[50, 50] == values[50, 50] * 255 // 65535
    assert not caplog.messages


@pytest.mark.parametrize("kind", [GREY_ALPHA, RGBA])
def test_alpha_of_another_width(kind: int, caplog: pytest.LogCaptureFixture) -> None:
    values = film().astype(np.int64) * 16
    pixels = read_image(png16(samples(values, kind, alpha=4095), kind), "film")
    np.testing.assert_allclose(pixels, film(), atol=1)
    assert caplog.messages == [
        "film: transparency has one value everywhere, not the highest; the image is taken for opaque"
    ]


@pytest.mark.parametrize(("kind", "key"), [(GREY, (65535,)), (RGB, (65535,) * 3)])
def test_a_transparent_level_is_black_and_does_not_darken(kind: int, key: tuple[int, ...]) -> None:
    values = film().astype(np.int64) * 16
    values[: SIZE // 4] = 65535
    pixels = read_image(png16(samples(values, kind), kind, key=key))
    assert (pixels[: SIZE // 4] == 0).all()
    np.testing.assert_allclose(pixels[SIZE // 4 :], film()[SIZE // 4 :], atol=1)


@pytest.mark.parametrize("kind", [GREY_ALPHA, RGBA])
def test_what_is_transparent_does_not_darken(kind: int) -> None:
    values = film().astype(np.int64) * 16
    values[: SIZE // 4] = 65535
    stored = samples(values, kind)
    stored[: SIZE // 4, :, -1] = 0
    pixels = read_image(png16(stored, kind))
    assert (pixels[: SIZE // 4] == 0).all()
    np.testing.assert_allclose(pixels[SIZE // 4 :], film()[SIZE // 4 :], atol=1)


def test_a_transparent_colour_needs_all_of_its_levels() -> None:
    values = film().astype(np.int64) * 16
    values[0, 0] = 1000
    expected = read_image(png16(samples(values, RGB), RGB))
    np.testing.assert_array_equal(read_image(png16(samples(values, RGB), RGB, key=(1000, 1000, 999))), expected)


@pytest.mark.parametrize("kind", [RGB, RGBA])
def test_a_colour_photograph_of_16_bits_is_refused(kind: int) -> None:
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    colours = np.stack([2000 + 1500 * np.sin(6 * y), 2000 + 1500 * np.sin(6 * x + 2), 2000 - 1500 * np.sin(6 * y)], -1)
    stored = colours if kind == RGB else np.concatenate([colours, np.full((SIZE, SIZE, 1), 65535)], -1)
    with pytest.raises(UserError, match="color"):
        read_image(png16(stored.astype(np.int64), kind))


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


class TestBlankPictures:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    @pytest.mark.parametrize("level", [0, 128, 255])
    def test_one_level(self, kind: str, level: int, caplog: pytest.LogCaptureFixture) -> None:
        read_image(encoded(Image.new("L", (64, 64), level), kind), "blank")
        assert caplog.messages[0].startswith("blank: pixels have one gray level in the whole image")

    @pytest.mark.parametrize("mode", ["LA", "RGBA"])
    def test_transparent(self, mode: str, caplog: pytest.LogCaptureFixture) -> None:
        image = Image.fromarray(film()).convert(mode)
        image.putalpha(0)
        assert read_image(encoded(image, "PNG"), "glass").max() == 0
        assert [message.split()[1] for message in caplog.messages] == ["transparency", "pixels"]

    @pytest.mark.parametrize("kind", [GREY_ALPHA, RGBA])
    def test_transparent_with_16_bits(self, kind: int, caplog: pytest.LogCaptureFixture) -> None:
        assert read_image(png16(samples(film().astype(np.int64) * 16, kind, alpha=0), kind), "glass").max() == 0
        assert [message.split()[1] for message in caplog.messages] == ["transparency", "pixels"]

    def test_nearly_one_level(self, caplog: pytest.LogCaptureFixture) -> None:
        levels = np.random.default_rng(0).integers(0, 2, (200, 200), dtype=np.uint8)
        levels[:5, :5] = 255
        read_image(encoded(Image.fromarray(levels), "PNG"), "label")
        assert "in nearly the whole image" in caplog.text

    def test_what_an_earlier_program_made_black(self, caplog: pytest.LogCaptureFixture) -> None:
        read_image(encoded(Image.fromarray(film() // 16), "PNG"), "dark")
        assert "fewer than 16 of 256 gray levels" in caplog.text

    def test_a_film_is_not_blank(self, caplog: pytest.LogCaptureFixture) -> None:
        read_image(encoded(Image.fromarray(film()), "PNG"))
        assert not caplog.messages


def test_a_jpeg_that_pillow_cannot_read_is_called_what_it_is() -> None:
    content = bytearray(encoded(Image.fromarray(film()), "JPEG"))
    start = content.index(b"\xff\xc0")
    content[start + 4] = 12
    with pytest.raises(UserError, match="a JPEG of 12 bits is not supported"):
        read_image(bytes(content))
    content[start + 1], content[start + 4] = 0xC3, 8
    with pytest.raises(UserError, match="a lossless JPEG is not supported"):
        read_image(bytes(content))
