"""Opening images: every mode and depth against a hand-made array, and one clear error for everything else."""

import io
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from crossray.data.images import ImageFile, pixels, read_image, resize_short_side
from crossray.data.images import read as images
from crossray.errors import UserError

HEIGHT, WIDTH = 48, 40


def ramp() -> NDArray[np.uint8]:
    """(48, 40) gray levels that tell rows, columns and flips apart; 0 and 255 occur."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.round(rows / (HEIGHT - 1) * 155 + columns / (WIDTH - 1) * 100).astype(np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(
    rows: NDArray[np.uint8], depth: int, colour_type: int, width: int, chunks: tuple[tuple[bytes, bytes], ...] = ()
) -> bytes:
    """A PNG file written by hand, for depths and color types that Pillow does not write.

    Args:
        rows: (H, bytes a row) packed samples.
        depth: bits a sample.
        colour_type: 0 gray, 2 RGB, 4 gray and alpha, 6 RGBA.
        width: in pixels.
        chunks: further chunks before the data.
    """

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    body = [chunk(b"IHDR", header), *(chunk(*extra) for extra in chunks), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def deep(values: NDArray[np.integer]) -> NDArray[np.uint8]:
    """16-bit samples as the bytes of a PNG's rows."""
    return np.ascontiguousarray(values.astype(">u2")).view(np.uint8).reshape(len(values), -1)


def colour_photograph() -> Image.Image:
    """Smooth patches of different hues and equal brightness."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] / HEIGHT
    channels = [120 + 100 * np.sin(6 * rows), 120 + 100 * np.sin(6 * columns + 2), 120 - 100 * np.sin(6 * rows)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


class TestModes:
    def test_grey(self) -> None:
        pixels = read_image(encoded(Image.fromarray(ramp())))
        assert pixels.dtype == np.uint8
        assert pixels.flags.writeable
        assert pixels.flags.c_contiguous
        np.testing.assert_array_equal(pixels, ramp())

    def test_one_bit(self) -> None:
        image = Image.fromarray(ramp()).convert("1")
        np.testing.assert_array_equal(read_image(encoded(image)), np.asarray(image) * np.uint8(255))

    @pytest.mark.parametrize("depth", [1, 2, 4])
    def test_few_bits(self, depth: int) -> None:
        levels = (ramp() >> (8 - depth)).astype(np.uint8)
        bits = np.unpackbits(levels[..., None], axis=-1)[..., -depth:]
        packed = np.packbits(bits.reshape(HEIGHT, -1), axis=1)
        expected = np.round(levels * (255 / (2**depth - 1)))
        np.testing.assert_array_equal(read_image(png(packed, depth, 0, WIDTH)), expected)

    def test_palette(self) -> None:
        image = Image.fromarray(ramp()).convert("RGB").quantize(256)
        assert image.mode == "P"
        difference = read_image(encoded(image)).astype(int) - ramp()
        assert np.abs(difference).max() <= 3

    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    def test_grey_in_three_channels(self, kind: str) -> None:
        pixels = read_image(encoded(Image.fromarray(ramp()).convert("RGB"), kind))
        assert np.abs(pixels.astype(int) - ramp()).max() <= (0 if kind == "PNG" else 4)

    @pytest.mark.parametrize("mode", ["LA", "RGBA"])
    def test_transparent_pixels_lie_on_black(self, mode: str) -> None:
        image = Image.fromarray(ramp()).convert(mode)
        opacity = np.full((HEIGHT, WIDTH), 255, np.uint8)
        opacity[:, :10], opacity[:, 10:20] = 0, 128
        image.putalpha(Image.fromarray(opacity))
        expected = np.round(ramp() * (opacity / 255.0))
        assert np.abs(read_image(encoded(image)) - expected).max() <= 1

    @pytest.mark.parametrize("mode", ["L", "RGB", "P"])
    def test_transparent_colour_lies_on_black(self, mode: str) -> None:
        grey = np.where(ramp() > 200, np.uint8(255), ramp() // 2)
        image = Image.fromarray(grey).convert(mode)
        marked = {"L": 255, "RGB": (255, 255, 255), "P": 255}[mode]
        pixels = read_image(encoded(image, transparency=marked))
        assert (pixels[grey == 255] == 0).all()
        assert pixels[grey < 255].max() > 50

    def test_cmyk_jpeg(self) -> None:
        pixels = read_image(encoded(Image.fromarray(ramp()).convert("RGB").convert("CMYK"), "JPEG", quality=95))
        assert np.abs(pixels.astype(int) - ramp()).max() <= 6

    def test_sixteen_bits_in_full_use_become_their_upper_eight(self) -> None:
        np.testing.assert_array_equal(read_image(png(deep(ramp().astype(np.uint16) * 257), 16, 0, WIDTH)), ramp())

    @pytest.mark.parametrize("bits", [9, 10, 12, 14])
    def test_sixteen_bits_in_partial_use_are_not_black(self, bits: int) -> None:
        values = np.round(ramp() * ((2**bits - 1) / 255)).astype(np.int64)
        np.testing.assert_array_equal(read_image(png(deep(values), 16, 0, WIDTH)), ramp())

    def test_eight_bits_in_a_sixteen_bit_file_stay_as_they_are(self) -> None:
        np.testing.assert_array_equal(read_image(png(deep(ramp() // 4), 16, 0, WIDTH)), ramp() // 4)

    def test_pillows_sixteen_bits(self) -> None:
        image = Image.fromarray(ramp().astype(np.uint16) * 257)
        assert image.mode == "I;16"
        np.testing.assert_array_equal(read_image(encoded(image)), ramp())

    def test_sixteen_bit_colour_and_alpha(self) -> None:
        colour = np.repeat(ramp()[..., None], 3, axis=-1).astype(np.int64) * 257
        np.testing.assert_array_equal(read_image(png(deep(colour.reshape(HEIGHT, -1)), 16, 2, WIDTH)), ramp())
        opaque = np.stack([ramp().astype(np.int64) * 257, np.full_like(ramp(), 255).astype(np.int64) * 257], axis=-1)
        np.testing.assert_array_equal(read_image(png(deep(opaque.reshape(HEIGHT, -1)), 16, 4, WIDTH)), ramp())

    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    def test_orientation_is_as_on_a_screen(self, kind: str) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        turned = np.rot90(ramp(), 1)
        pixels = read_image(encoded(Image.fromarray(turned.copy()), kind, exif=exif.tobytes()))
        assert pixels.shape == (HEIGHT, WIDTH)
        assert np.abs(pixels.astype(int) - ramp()).max() <= 4

    def test_progressive_jpeg_and_interlaced_content(self) -> None:
        pixels = read_image(encoded(Image.fromarray(ramp()), "JPEG", progressive=True, quality=95))
        assert np.abs(pixels.astype(int) - ramp()).max() <= 4


class TestColour:
    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    def test_a_colour_photograph_is_refused(self, kind: str) -> None:
        with pytest.raises(UserError, match=r"holiday.*color"):
            read_image(encoded(colour_photograph(), kind), "holiday")

    def test_true_photographs_are_refused(self) -> None:
        datasets = pytest.importorskip("sklearn.datasets")
        for photograph in datasets.load_sample_images().images:
            with pytest.raises(UserError, match="color"):
                read_image(encoded(Image.fromarray(photograph), "JPEG"))

    @pytest.mark.parametrize("tint", [(1.0, 0.95, 0.85), (0.85, 0.95, 1.0), (1.0, 0.8, 0.6)])
    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    def test_a_tinted_film_passes(self, tint: tuple[float, float, float], kind: str) -> None:
        film = Image.fromarray((ramp()[..., None] * np.array(tint)).astype(np.uint8))
        assert read_image(encoded(film, kind)).shape == (HEIGHT, WIDTH)

    def test_a_small_coloured_mark_passes(self) -> None:
        pixels = np.repeat(ramp()[..., None], 3, axis=-1)
        pixels[2:4, 2:4] = (255, 255, 0)
        assert read_image(encoded(Image.fromarray(pixels))).shape == (HEIGHT, WIDTH)


class TestBadInput:
    def write(self, folder: Path, name: str, content: bytes) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    def assert_one_error(self, path: Path, *words: str) -> None:
        with pytest.raises(UserError) as caught:
            read_image(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        assert all(word in message for word in words), message

    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    @pytest.mark.parametrize("kept", [0.02, 0.3, 0.9, 0.999])
    def test_truncated(self, tmp_path: Path, kind: str, kept: float) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8)
        content = encoded(Image.fromarray(noise), kind)
        path = self.write(tmp_path, f"cut.{kind.lower()}", content[: int(len(content) * kept)])
        self.assert_one_error(path, kind, "truncated")

    @pytest.mark.parametrize("missing", [5, 12, 13])
    def test_png_without_its_end(self, tmp_path: Path, missing: int) -> None:
        path = self.write(tmp_path, "cut.png", encoded(Image.fromarray(ramp()))[:-missing])
        self.assert_one_error(path, "truncated")

    def test_png_with_a_flipped_bit(self, tmp_path: Path) -> None:
        content = bytearray(encoded(Image.fromarray(ramp())))
        content[len(content) // 2] ^= 1
        self.assert_one_error(self.write(tmp_path, "flipped.png", bytes(content)), "damaged")

    def test_a_decompression_bomb_is_never_decoded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def decode(*_: object) -> None:
            raise AssertionError("decoded")

        monkeypatch.setattr(images.PngImageFile, "load", decode)
        monkeypatch.setattr(images.PngImageFile, "verify", decode)
        bomb = png(np.zeros((1, 1), np.uint8), 8, 0, WIDTH)
        header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
        bomb = bomb[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + bomb[33:]
        self.assert_one_error(self.write(tmp_path, "bomb.png", bomb), "60000 x 60000", "million")

    def test_the_pixel_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pixels, "MAX_PIXELS", HEIGHT * WIDTH)
        assert read_image(encoded(Image.fromarray(ramp()))).size == HEIGHT * WIDTH
        monkeypatch.setattr(pixels, "MAX_PIXELS", HEIGHT * WIDTH - 1)
        with pytest.raises(UserError, match="million"):
            read_image(encoded(Image.fromarray(ramp())))

    def test_a_huge_file_is_never_read(self, tmp_path: Path) -> None:
        path = tmp_path / "huge.png"
        with path.open("wb") as stream:
            stream.truncate(images.MAX_BYTES + 1)
        self.assert_one_error(path, "MiB")

    def test_empty(self, tmp_path: Path) -> None:
        self.assert_one_error(self.write(tmp_path, "empty.png", b""), "empty")

    def test_text(self, tmp_path: Path) -> None:
        self.assert_one_error(self.write(tmp_path, "note.png", b"to be scanned"), "not a PNG, JPEG")

    @pytest.mark.parametrize(
        ("suffix", "kind", "said"), [(".png", "JPEG", "PNG"), (".JPG", "PNG", "JPEG"), (".dcm", "PNG", "DICOM")]
    )
    def test_wrong_suffix(self, tmp_path: Path, suffix: str, kind: str, said: str) -> None:
        path = self.write(tmp_path, f"image{suffix}", encoded(Image.fromarray(ramp()), kind))
        self.assert_one_error(path, f"suffix says {said}", f"content is {kind}", "rename")

    @pytest.mark.parametrize("name", ["image", "image.PNG", "1.2.840.10008"])
    def test_other_names_are_fine(self, tmp_path: Path, name: str) -> None:
        path = self.write(tmp_path, name, encoded(Image.fromarray(ramp())))
        np.testing.assert_array_equal(read_image(path), ramp())

    @pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "WEBP"])
    def test_other_formats(self, tmp_path: Path, kind: str) -> None:
        path = self.write(tmp_path, f"image.{kind.lower()}", encoded(Image.fromarray(ramp()), kind))
        self.assert_one_error(path, "is not supported", "PNG or JPEG")

    def test_dicom(self, tmp_path: Path) -> None:
        self.assert_one_error(self.write(tmp_path, "image.dcm", bytes(128) + b"DICM" + bytes(64)), "DICOM", "no pixels")

    @pytest.mark.parametrize(
        ("size", "words"), [((31, 40), "at least 32"), ((40, 31), "at least 32"), ((32, 257), "shape")]
    )
    def test_sizes(self, tmp_path: Path, size: tuple[int, int], words: str) -> None:
        path = self.write(tmp_path, "image.png", encoded(Image.new("L", size)))
        self.assert_one_error(path, f"{size[0]} x {size[1]}", words)

    def test_no_file(self, tmp_path: Path) -> None:
        self.assert_one_error(tmp_path / "absent.png", "no such image file")
        self.assert_one_error(tmp_path, "no such image file")
        self.assert_one_error(tmp_path / ("long" * 100), "cannot be read")

    def test_bytes_are_called_what_the_caller_calls_them(self) -> None:
        with pytest.raises(UserError, match=r"^upload 3: "):
            read_image(b"", "upload 3")
        with pytest.raises(UserError, match=r"^image: "):
            read_image(b"nothing")

    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    @given(data=st.data())
    def test_damage_anywhere_is_an_image_or_one_error(self, kind: str, data: st.DataObject) -> None:
        content = bytearray(encoded(Image.fromarray(ramp()), kind))
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(content)))
        try:
            pixels = read_image(bytes(content[:cut] if data.draw(st.booleans()) else content))
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 2


class TestResize:
    @pytest.mark.parametrize(
        ("shape", "expected"), [((300, 400), (64, 85)), ((400, 300), (85, 64)), ((40, 50), (64, 80))]
    )
    def test_short_side(self, shape: tuple[int, int], expected: tuple[int, int]) -> None:
        assert resize_short_side(np.zeros(shape, np.uint8), 64).shape == expected

    def test_the_right_size_is_left_alone(self) -> None:
        pixels = ramp()
        assert resize_short_side(pixels, WIDTH) is pixels

    def test_smooths_over_what_it_leaves_out(self) -> None:
        stripes = np.zeros((256, 256), np.uint8)
        stripes[:, ::2] = 255
        small = resize_short_side(stripes, 32)
        assert np.abs(small[:, 2:-2].astype(int) - 127).max() <= 2

    def test_keeps_the_mean_and_the_orientation(self) -> None:
        large = np.kron(ramp(), np.ones((8, 8), np.uint8))
        difference = resize_short_side(large, WIDTH).astype(int) - ramp()
        assert np.abs(difference).max() <= 3

    def test_averaging_blocks_first_changes_next_to_nothing(self) -> None:
        """A picture as a radiograph is, smooth with noise, against the exact filter."""
        generator = np.random.default_rng(0)
        coarse = Image.fromarray(generator.integers(0, 256, (24, 20), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((1024, 1250), Image.Resampling.BICUBIC), dtype=np.int16)
        large = np.clip(smooth + generator.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)
        exact = np.asarray(Image.fromarray(large).resize((128, 156), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(resize_short_side(large, 128) - exact).max() <= 2


class TestImageFile:
    def test_reads_a_view(self, tmp_path: Path) -> None:
        path = tmp_path / "view.png"
        Image.fromarray(ramp()).resize((80, 96)).save(path)
        reference = pickle.loads(pickle.dumps(ImageFile(path, "lateral")))
        view = reference.read(WIDTH)
        assert view.pixels.shape == (HEIGHT, WIDTH)
        assert view.findings == ()
        assert (reference.name, reference.position) == (str(path), "lateral")

    def test_a_draft_is_smaller_and_nearly_the_same(self, tmp_path: Path) -> None:
        path = tmp_path / "view.jpg"
        large = Image.fromarray(ramp()).resize((1600, 1920), Image.Resampling.BICUBIC)
        large.save(path, quality=95)
        assert read_image(path, draft_size=2 * WIDTH).shape == (240, 200)
        exact, draft = ImageFile(path).read(WIDTH).pixels, ImageFile(path, draft=True).read(WIDTH).pixels
        assert exact.shape == draft.shape
        assert np.abs(exact.astype(int) - draft).max() <= 4

    def test_an_unreadable_file_is_the_users_error(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="no such image file"):
            ImageFile(tmp_path / "absent.png").read(64)

    def test_positions_are_checked(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"position 'above' is not one of unknown, frontal"):
            ImageFile(tmp_path / "view.png", "above")
