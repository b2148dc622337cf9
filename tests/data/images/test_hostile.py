"""Files made to do harm: lying headers, bombs, and some seeded damage; `python -m tests.fuzz` does more of it."""

import io
import multiprocessing
import os
import struct
import time
import zlib
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pydicom")

from pydicom import uid
from pydicom.encaps import encapsulate
from tests.data.images.dicom_files import dicom, dicom_bytes, dicom_dataset
from tests.fuzz.inputs import FORMATS, Format
from tests.fuzz.mutation import mutated
from tests.fuzz.run import fuzz, peak_memory

from crossray.data.images import pixels, read_image
from crossray.data.images.read import ImageFile
from crossray.errors import UserError

GREY = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bomb(width: int, height: int, colour_type: int, depth: int) -> bytes:
    """Zeros, a thousand times as many as its bytes."""
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    data = zlib.compress(bytes(height * (1 + width * samples * depth // 8)), 9)
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def compressed(frames: list[bytes], syntax: uid.UID, **fields: object) -> bytes:
    image = dicom_dataset(GREY, PixelData=encapsulate(frames), **fields)
    image.file_meta.TransferSyntaxUID = syntax
    image["PixelData"].is_undefined_length = True
    return dicom_bytes(image)


def jpeg_2000() -> bytes:
    made = dicom_dataset(GREY)
    made.compress(uid.JPEG2000Lossless, encoding_plugin="pylibjpeg")
    pixels = made.PixelData
    return bytes(pixels[pixels.index(b"\xff\x4f\xff\x51") :])


def rejection(content: bytes) -> str:
    with pytest.raises(UserError) as caught:
        read_image(content)
    return str(caught.value)


def warned(content: bytes, folder: Path) -> str:
    path = folder / "image.dcm"
    path.write_bytes(content)
    return " ".join(ImageFile(path).read(40).warnings)


class TestLyingHeaders:
    @pytest.mark.parametrize("fields", [{"Rows": 65535, "Columns": 65535}, {"Rows": 65535, "Columns": 9000}])
    def test_dicom_says_it_is_huge(self, fields: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
        from crossray.data.images import dicom_pixels as reader

        def decode(*_: object, **__: object) -> None:
            raise AssertionError("decoded")

        monkeypatch.setattr(reader, "pixel_array", decode)
        assert "million" in rejection(dicom(GREY, **fields))

    def test_dicom_says_more_than_it_holds(self) -> None:
        assert "truncated" in rejection(dicom(GREY, Rows=5000, Columns=5000))

    def test_jpeg_2000_within_dicom(self, tmp_path: Path) -> None:
        def lying(size: int) -> bytes:
            frame = bytearray(jpeg_2000())
            frame[8:16] = struct.pack(">II", size, size)
            return compressed([bytes(frame)], uid.JPEG2000Lossless)

        assert "8000 x 8000 pixels" in rejection(lying(8000))
        assert "those of the compressed image are 65 and 65" in warned(lying(65), tmp_path)

    def test_jpeg_2000_of_many_tiles(self) -> None:
        frame = bytearray(jpeg_2000())
        frame[8:16] = struct.pack(">II", 2**32 - 1, 2**32 - 1)
        assert "damaged" in rejection(compressed([bytes(frame)], uid.JPEG2000Lossless))

    def test_jpeg_within_dicom(self, tmp_path: Path) -> None:
        stream = io.BytesIO()
        Image.fromarray((GREY // 16).astype(np.uint8)).save(stream, "JPEG")
        start = stream.getvalue().index(b"\xff\xc0")

        def lying(size: int) -> bytes:
            frame = bytearray(stream.getvalue())
            frame[start + 5 : start + 9] = struct.pack(">HH", size, size)
            return compressed([bytes(frame)], uid.JPEGBaseline8Bit, BitsAllocated=8, BitsStored=8, HighBit=7)

        assert "65500 x 65500 pixels" in rejection(lying(65_500))
        assert "those of the compressed image are 65 and 65" in warned(lying(65), tmp_path)

    def test_progressive_jpeg_is_no_baseline(self) -> None:
        stream = io.BytesIO()
        Image.fromarray((GREY // 16).astype(np.uint8)).save(stream, "JPEG", progressive=True)
        assert "damaged" in rejection(
            compressed([stream.getvalue()], uid.JPEGBaseline8Bit, BitsAllocated=8, BitsStored=8)
        )

    @pytest.mark.parametrize("kind", ["JPEG", "PNG"])
    def test_pictures_that_say_they_are_huge(self, kind: str) -> None:
        stream = io.BytesIO()
        Image.fromarray((GREY // 16).astype(np.uint8)).save(stream, kind)
        content = bytearray(stream.getvalue())
        if kind == "JPEG":
            start = content.index(b"\xff\xc0")
            content[start + 5 : start + 9] = b"\xff\xff\xff\xff"
        else:
            content[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
            content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
        assert "million" in rejection(bytes(content))


class TestBombs:
    def test_a_deflated_dicom_is_not_inflated(self) -> None:
        image = dicom_dataset(GREY)
        image.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
        image.add_new(0x00091001, "OB", bytes(2**24))
        assert "deflated" in rejection(dicom_bytes(image))

    def test_run_lengths_stop_at_the_size_of_the_image(self) -> None:
        segment = b"\x81\x07" * 2**22
        frame = struct.pack("<16I", 2, 64, 64 + len(segment), *[0] * 13) + segment + segment
        pixels = read_image(compressed([frame], uid.RLELossless))
        assert pixels.shape == (64, 64)

    def test_run_lengths_that_end_early(self) -> None:
        frame = struct.pack("<16I", 2, 64, 66, *[0] * 13) + b"\x81\x07\x81\x07"
        assert "damaged" in rejection(compressed([frame], uid.RLELossless))

    def test_many_fragments(self) -> None:
        assert "pieces" in rejection(compressed([b"\0\0"] * 20_000, uid.RLELossless))

    def test_a_header_without_end(self) -> None:
        image = dicom_dataset(GREY)
        image.add_new(0x00091001, "OB", bytes(2**23))
        assert "header is larger than 4 MiB" in rejection(dicom_bytes(image))

    def test_nested_sequences(self) -> None:
        opening = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
            "<HHI", 0xFFFE, 0xE000, 2**32 - 1
        )
        content = dicom(GREY)
        start = content.index(struct.pack("<HH", 0x0028, 0x0002))
        assert "damaged" in rejection(content[:start] + opening * 20_000 + content[start:])

    def test_a_jpeg_of_thousands_of_scans(self) -> None:
        stream = io.BytesIO()
        Image.fromarray((GREY // 16).astype(np.uint8)).save(stream, "JPEG", progressive=True)
        content = stream.getvalue()
        scan = content[content.rindex(b"\xff\xda") : -2]
        assert read_image(content).shape == (64, 64)
        assert "scans" in rejection(content[:-2] + scan * 200 + content[-2:])

    def test_scans_that_no_decoder_reads(self) -> None:
        """Of a sequential gray JPEG one scan is decoded, and a second refused at once, however many there are."""
        stream = io.BytesIO()
        Image.fromarray(np.tile((GREY // 16).astype(np.uint8), (8, 8))).save(stream, "JPEG")
        content = stream.getvalue()
        scan = content[content.rindex(b"\xff\xda") : -2]
        started = time.process_time()
        assert "damaged" in rejection(content[:-2] + scan * 5000 + content[-2:])
        assert time.process_time() - started < 1

    def test_png_text_that_inflates(self) -> None:
        plain = png_bomb(64, 64, 0, 8)
        bomb = plain[:33] + png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**26), 9)) + plain[33:]
        assert "damaged" in rejection(bomb)


def _read_and_measure(make: Callable[[], bytes], sender: Connection) -> None:
    shape = read_image(make()).shape
    sender.send((shape, peak_memory()))


def largest_rgba() -> bytes:
    return png_bomb(2**13, pixels.MAX_PIXELS // 2**13, 6, 8)


def largest_deep_rgba() -> bytes:
    return png_bomb(2**13, pixels.MAX_PIXELS // 2**13, 6, 16)


def largest_deep_grey() -> bytes:
    return png_bomb(2**13, pixels.MAX_PIXELS // 2**13, 0, 16)


def largest_progressive_cmyk() -> bytes:
    stream = io.BytesIO()
    Image.new("CMYK", (2**13, pixels.MAX_PIXELS // 2**13)).save(stream, "JPEG", progressive=True)
    return stream.getvalue()


def largest_dicom() -> bytes:
    values = np.zeros((pixels.MAX_PIXELS // 2**13, 2**13), np.uint16)
    values[0, 0] = 1
    return dicom(values)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [largest_rgba, largest_deep_rgba, largest_deep_grey, largest_progressive_cmyk, largest_dicom]
)
def test_the_largest_image_stays_below_one_gigabyte(make: Callable[[], bytes]) -> None:
    """Making the file counts too, so that the true peak is lower still."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_read_and_measure, args=(make, sender))
    process.start()
    sender.close()
    shape, memory = receiver.recv()
    process.join()
    assert shape == (pixels.MAX_PIXELS // 2**13, 2**13)
    assert memory < 2**30


def _dying() -> Format:
    return Format((b"x" * 64,), lambda _: os._exit(3))


def _sleeping() -> Format:
    return Format((b"x" * 64,), lambda _: time.sleep(60))


def _failing() -> Format:
    return Format((b"x" * 64,), lambda _: 1 // 0)


class TestMutations:
    @pytest.mark.parametrize("name", FORMATS)
    def test_what_is_mutated_is_valid(self, name: str) -> None:
        made = FORMATS[name]()
        for content in made.seeds:
            try:
                made.read(content)
            except UserError as error:
                assert "color picture" in str(error)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", FORMATS)
    def test_mutations_are_read_or_rejected(self, name: str) -> None:
        outcome = fuzz(name, 150)
        assert outcome.faults == []
        assert outcome.accepted + outcome.rejected == 150
        assert min(outcome.accepted, outcome.rejected) > 5

    def test_equal_seeds_give_equal_damage(self) -> None:
        assert mutated(b"x" * 64, 3) == mutated(b"x" * 64, 3) != mutated(b"x" * 64, 4)

    @pytest.mark.parametrize(
        ("make", "words"),
        [(_dying, "ended the process with code 3"), (_sleeping, "took too long"), (_failing, "ZeroDivisionError")],
    )
    def test_faults_are_seen_and_named(self, make: Callable[[], Format], words: str) -> None:
        outcome = fuzz("bad", 2, 5, formats={"bad": make}, time_limit=0.5)
        assert [fault.split(": ")[0] for fault in outcome.faults] == ["bad 5", "bad 6"]
        assert all(words in fault for fault in outcome.faults)
