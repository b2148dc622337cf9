"""DICOM headers that their own values contradict: the values are shown as without the fault, or the field is named."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("pydicom")

from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space
from pydicom.sequence import Sequence
from tests.data.images.dicom_files import dicom, dicom_bytes, dicom_dataset, lookup_table

from crossray.data.images import read_image
from crossray.data.images.dicom_words import _ROUGH, _roughness
from crossray.data.images.read import ImageFile
from crossray.errors import UserError

SIZE = 96


def film() -> NDArray[np.uint8]:
    """(96, 96) a smooth picture with noise: dark lungs, a bright middle."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    lungs = sum(np.exp(-((x - side) ** 2) / 0.02 - (y - 0.5) ** 2 / 0.08) for side in (0.28, 0.72))
    noise = np.random.default_rng(1).normal(0, 3, (SIZE, SIZE))
    return np.clip(190 - 150 * lungs + 30 * y + noise, 0, 240).astype(np.uint8)


def twelve() -> NDArray[np.uint16]:
    return film().astype(np.uint16) * 16


def shown(content: bytes, caplog: pytest.LogCaptureFixture) -> tuple[NDArray[np.uint8], list[str]]:
    """Gray levels, and the fields that warnings begin with."""
    caplog.clear()
    pixels = read_image(content, "film")
    return pixels, [message.removeprefix("film: ").split()[0] for message in caplog.messages]


def refusal(content: bytes) -> str:
    with pytest.raises(UserError) as caught:
        read_image(content, "film")
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestLookupTables:
    @pytest.mark.parametrize("said", [8, 10, 12, 14, 16])
    @pytest.mark.parametrize("used", [8, 10, 12, 14, 16])
    @pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
    def test_white_is_the_highest_that_the_entries_use(
        self, said: int, used: int, photometric: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        entries = (np.arange(4096) * (2**used - 1) // 4095).tolist()
        table = {"VOILUTSequence": Sequence([lookup_table(entries, 0, said)])}
        pixels, fields = shown(dicom(twelve(), BitsStored=12, PhotometricInterpretation=photometric, **table), caplog)
        expected = np.round(twelve() / 4095.0 * 255)
        expected = 255 - expected if photometric == "MONOCHROME1" else expected
        assert np.abs(pixels - expected).max() <= 1
        assert fields == ([] if said == used else ["LUTDescriptor"])

    @pytest.mark.parametrize("said", [8, 16])
    def test_entries_of_a_byte_are_told_by_their_number(self, said: int, caplog: pytest.LogCaptureFixture) -> None:
        item = lookup_table([0] * 4096, 0, said)
        item["LUTData"].value = (np.arange(4096) // 16).astype(np.uint8).tobytes()
        pixels, _ = shown(dicom(twelve(), BitsStored=12, VOILUTSequence=Sequence([item])), caplog)
        np.testing.assert_array_equal(pixels, film())

    @pytest.mark.parametrize("bits", [8, 10, 16])
    def test_a_modality_table_of_any_width(self, bits: int, caplog: pytest.LogCaptureFixture) -> None:
        """Its outputs are numbers, whatever bits are said; an inverting one inverts."""
        entries = list(range(4095, -1, -1))
        fields = {"BitsStored": 12, "ModalityLUTSequence": Sequence([lookup_table(entries, 0, bits)])}
        pixels, _ = shown(dicom(twelve(), WindowCenter="2048", WindowWidth="4096", **fields), caplog)
        assert np.abs(pixels - (255 - twelve() / 16.06)).max() <= 1

    def test_a_table_without_entries(self, caplog: pytest.LogCaptureFixture) -> None:
        item = lookup_table([0, 1], 0, 12)
        del item.LUTData
        plain = read_image(dicom(twelve(), BitsStored=12))
        pixels, fields = shown(dicom(twelve(), BitsStored=12, VOILUTSequence=Sequence([item])), caplog)
        np.testing.assert_array_equal(pixels, plain)
        assert fields == ["VOILUTSequence"]
        assert "ModalityLUTSequence has no LUTData" in refusal(
            dicom(twelve(), BitsStored=12, ModalityLUTSequence=Sequence([item]))
        )

    def test_a_table_that_was_cut_off(self) -> None:
        item = lookup_table(list(range(4096)), 0, 12)
        item["LUTData"].value = item["LUTData"].value[:4000]
        assert "LUTData lacks 2096 of the entries" in refusal(
            dicom(twelve(), BitsStored=12, VOILUTSequence=Sequence([item]))
        )


def native(values: NDArray[Any], **fields: Any) -> bytes:
    return dicom(values, **fields)


def rle(values: NDArray[Any], **fields: Any) -> bytes:
    return _compressed(values, uid.RLELossless, "pydicom", fields)


def jpeg_2000(values: NDArray[Any], **fields: Any) -> bytes:
    return _compressed(values, uid.JPEG2000Lossless, "pylibjpeg", fields)


def _compressed(values: NDArray[Any], syntax: uid.UID, plugin: str, fields: dict[str, Any]) -> bytes:
    """Compressed by a true header, which is then made wrong."""
    image = dicom_dataset(values, BitsStored=12 if values.dtype.itemsize == 2 else 8)
    image.compress(syntax, encoding_plugin=plugin)
    for name, value in fields.items():
        setattr(image, name, value)
    image.HighBit = image.BitsStored - 1
    return dicom_bytes(image)


class TestBits:
    @pytest.mark.parametrize("write", [native, rle, jpeg_2000])
    @pytest.mark.parametrize("said", [8, 10, 11])
    @pytest.mark.parametrize("signed", [False, True])
    def test_more_bits_than_said(
        self, write: Callable[..., bytes], said: int, signed: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        values = twelve().astype(np.int16) - 2048 if signed else twelve()
        plain = read_image(dicom(values, BitsStored=12))
        pixels, fields = shown(write(values, BitsStored=said), caplog)
        np.testing.assert_array_equal(pixels, plain)
        assert fields == ["BitsStored"]

    @pytest.mark.parametrize("write", [native, rle, jpeg_2000])
    @pytest.mark.parametrize("signed", [False, True])
    def test_the_other_sign(self, write: Callable[..., bytes], signed: bool, caplog: pytest.LogCaptureFixture) -> None:
        values = twelve().astype(np.int16) - 2048 if signed else twelve()
        pixels, fields = shown(write(values, BitsStored=12, PixelRepresentation=int(not signed)), caplog)
        np.testing.assert_array_equal(pixels, read_image(dicom(values, BitsStored=12)))
        assert fields == ["PixelRepresentation"]

    def test_eight_bits_that_are_said_to_be_six(self, caplog: pytest.LogCaptureFixture) -> None:
        pixels, fields = shown(dicom(film(), BitsStored=6), caplog)
        np.testing.assert_array_equal(pixels, read_image(dicom(film())))
        assert fields == ["BitsStored"]

    @pytest.mark.parametrize("overlay", ["columns", "letters"])
    def test_an_overlay_is_no_part_of_the_values(self, overlay: str, caplog: pytest.LogCaptureFixture) -> None:
        marks = np.zeros((SIZE, SIZE), np.uint16)
        if overlay == "columns":
            marks[:, ::2] = 0x8000
        else:
            marks[70:90, 70:90] = 0x1000
        pixels, fields = shown(dicom(twelve() | marks, BitsStored=12), caplog)
        np.testing.assert_array_equal(pixels, read_image(dicom(twelve(), BitsStored=12)))
        assert fields == ["BitsStored"]

    def test_noise_above_the_stored_bits_is_refused(self) -> None:
        noise = np.random.default_rng(0).integers(0, 2**16, (SIZE, SIZE), dtype=np.uint16)
        assert "BitsStored is 10" in refusal(dicom(noise, BitsStored=10))

    @pytest.mark.parametrize("high", [31, 7, 15])
    def test_a_high_bit_that_would_lose_the_values(self, high: int, caplog: pytest.LogCaptureFixture) -> None:
        values = twelve() + 5  # every bit is in use
        pixels, fields = shown(dicom(values, BitsStored=12, HighBit=high), caplog)
        np.testing.assert_array_equal(pixels, read_image(dicom(values, BitsStored=12)))
        assert fields == ["HighBit"]

    def test_words_of_another_width(self, caplog: pytest.LogCaptureFixture) -> None:
        pixels, fields = shown(dicom(film(), BitsAllocated=16, BitsStored=8), caplog)
        np.testing.assert_array_equal(pixels, read_image(dicom(film())))
        assert fields == ["BitsAllocated"]
        pixels, fields = shown(dicom(twelve(), BitsAllocated=8, BitsStored=12), caplog)
        np.testing.assert_array_equal(pixels, read_image(dicom(twelve(), BitsStored=12)))
        assert fields == ["BitsAllocated"]

    def test_a_few_values_far_from_all_others(self, caplog: pytest.LogCaptureFixture) -> None:
        values = twelve()
        values[0, 0] = values[3:8, 3:8] = 65535
        pixels, fields = shown(dicom(values), caplog)
        expected = read_image(dicom(twelve()))
        assert np.abs(pixels[10:].astype(int) - expected[10:]).max() <= 1
        assert (pixels[3:8, 3:8] == 255).all()
        assert fields == ["pixels"]

    @pytest.mark.real_data
    def test_no_true_radiograph_is_doubted(self, real_data: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Unsigned, signed, inverted; and every one of them is far from the limit of what counts as a picture."""
        for path in sorted((real_data / "hannover" / "images").iterdir())[:20]:
            deep = read_image(path).astype(np.uint16) * 16
            assert _roughness(deep, None, 12, False).noise < _ROUGH / 2
            plain = {"BitsStored": 12}
            for values, fields in (
                (deep, plain), (deep.astype(np.int16) - 2048, plain),
                (4095 - deep, {**plain, "PhotometricInterpretation": "MONOCHROME1"}),
            ):  # fmt: skip
                assert shown(dicom(values, **fields), caplog)[1] == []
                try:
                    wrong = read_image(dicom(values, BitsStored=10))
                except UserError as error:
                    assert "BitsStored" in str(error)
                else:
                    np.testing.assert_array_equal(wrong, read_image(dicom(values, **plain)))


class TestPadding:
    @pytest.mark.parametrize("padding", [65535, 32768, 4096])
    def test_one_that_the_bits_cannot_hold_paints_nothing(self, padding: int, caplog: pytest.LogCaptureFixture) -> None:
        values = np.minimum(twelve().astype(int) * 2, 4095).astype(np.uint16)
        pixels, fields = shown(dicom(values, BitsStored=12, PixelPaddingValue=padding), caplog)
        np.testing.assert_array_equal(pixels, read_image(dicom(values, BitsStored=12)))
        assert (pixels == 255).any()
        assert fields == ["PixelPaddingValue"]

    def test_words_with_all_bits_set_are_padding_still(self) -> None:
        values = np.minimum(twelve().astype(int) * 2, 4095).astype(np.uint16)
        padded = values.copy()
        padded[:10] = 65535
        pixels = read_image(dicom(padded, BitsStored=12, PixelPaddingValue=65535))
        assert (pixels[:10] == 0).all()
        assert (pixels[10:][values[10:] == 4095] == 255).all()

    def test_a_range_that_leads_out_of_the_values(self, caplog: pytest.LogCaptureFixture) -> None:
        values = twelve() + 1
        pixels, fields = shown(dicom(values, BitsStored=12, PixelPaddingValue=0, PixelPaddingRangeLimit=65535), caplog)
        np.testing.assert_array_equal(pixels, read_image(dicom(values, BitsStored=12)))
        assert fields == ["PixelPaddingRangeLimit"]


def with_text(field: str, text: str, **fields: Any) -> bytes:
    """A file whose decimal field holds what pydicom would not write."""
    place = "7" * 16
    content = dicom(twelve(), BitsStored=12, **{field: place, **fields})
    return content.replace(place.encode(), text.encode().ljust(16))


class TestNumbers:
    @pytest.mark.parametrize("text", ["2048,0", "2048,00 ", " 2048.0", "2.048e3", "+2048"])
    def test_ways_to_write_a_number(self, text: str, caplog: pytest.LogCaptureFixture) -> None:
        pixels, fields = shown(with_text("WindowCenter", text, WindowWidth="4096"), caplog)
        plain = read_image(dicom(twelve(), BitsStored=12, WindowCenter="2048", WindowWidth="4096"))
        np.testing.assert_array_equal(pixels, plain)
        assert fields == []

    @pytest.mark.parametrize("field", ["WindowCenter", "WindowWidth"])
    @pytest.mark.parametrize("text", ["n/a", "2048HU", "nan", "1e300", "2,048", "--5"])
    def test_a_window_that_is_no_number_is_left_out(
        self, field: str, text: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        other = {"WindowCenter": "WindowWidth", "WindowWidth": "WindowCenter"}[field]
        pixels, fields = shown(with_text(field, text, **{other: "4096"}), caplog)
        np.testing.assert_array_equal(pixels, read_image(dicom(twelve(), BitsStored=12)))
        assert fields == [field]
        assert repr(text) in caplog.text

    def test_the_second_window_stands_in_for_a_useless_first(self, caplog: pytest.LogCaptureFixture) -> None:
        pixels, _ = shown(with_text("WindowCenter", "n/a\\2048", WindowWidth=["1", "4096"]), caplog)
        plain = read_image(dicom(twelve(), BitsStored=12, WindowCenter="2048", WindowWidth="4096"))
        np.testing.assert_array_equal(pixels, plain)

    def test_a_slope_must_be_a_number(self, caplog: pytest.LogCaptureFixture) -> None:
        assert "RescaleSlope is 'steep'" in refusal(with_text("RescaleSlope", "steep", RescaleIntercept="0"))
        pixels, fields = shown(dicom(twelve(), BitsStored=12, RescaleSlope="0", RescaleIntercept="7"), caplog)
        np.testing.assert_array_equal(pixels, read_image(dicom(twelve(), BitsStored=12)))
        assert fields == ["RescaleSlope"]


def grey_rgb() -> NDArray[np.uint8]:
    return np.repeat(film()[..., None], 3, axis=-1)


def colour_jpeg(photometric: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(grey_rgb()).save(stream, "JPEG", quality=98, **options)
    image = dicom_dataset(grey_rgb(), PhotometricInterpretation=photometric, PlanarConfiguration=0,
                          PixelData=encapsulate([stream.getvalue()]))  # fmt: skip
    image.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    image["PixelData"].is_undefined_length = True
    return dicom_bytes(image)


class TestColours:
    @pytest.mark.parametrize("options", [{}, {"subsampling": 2}, {"keep_rgb": True}])
    @pytest.mark.parametrize("said", ["RGB", "YBR_FULL", "YBR_FULL_422"])
    def test_a_jpeg_holds_what_its_values_are(
        self, options: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        pixels, fields = shown(colour_jpeg(said, **options), caplog)
        assert np.abs(pixels.astype(int) - film()).max() <= 6
        right = (said == "RGB") == ("keep_rgb" in options)
        assert fields == ([] if right else ["PhotometricInterpretation"])

    @pytest.mark.parametrize("said", ["RGB", "YBR_FULL"])
    def test_uncompressed_colours_likewise(self, said: str, caplog: pytest.LogCaptureFixture) -> None:
        stored = grey_rgb() if said != "RGB" else convert_color_space(grey_rgb(), "RGB", "YBR_FULL")
        pixels, fields = shown(dicom(stored, PhotometricInterpretation=said, PlanarConfiguration=0), caplog)
        assert np.abs(pixels.astype(int) - film()).max() <= 1
        assert fields == ["PhotometricInterpretation"]

    @pytest.mark.parametrize("said", [None, 0, 1])
    @pytest.mark.parametrize("true", [0, 1])
    def test_planes_or_pixels(self, said: int | None, true: int, caplog: pytest.LogCaptureFixture) -> None:
        stored = grey_rgb() if true == 0 else np.ascontiguousarray(grey_rgb().transpose(2, 0, 1))
        image = dicom_dataset(grey_rgb(), PhotometricInterpretation="RGB", PlanarConfiguration=said,
                              PixelData=stored.tobytes())  # fmt: skip
        pixels, fields = shown(dicom_bytes(image), caplog)
        np.testing.assert_array_equal(pixels, film())
        assert fields == ([] if said == true else ["PlanarConfiguration"])


class TestFiles:
    def test_without_preamble(self, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
        whole = dicom(twelve(), BitsStored=12)
        plain = read_image(whole)
        bare = whole[132:]
        without_meta = whole[whole.index(b"\x08\x00\x16\x00") :]
        for content, said in ((bare, ["preamble"]), (without_meta, ["preamble", "TransferSyntaxUID"])):
            pixels, fields = shown(content, caplog)
            np.testing.assert_array_equal(pixels, plain)
            assert fields == said
        (tmp_path / "IM1").write_bytes(bare)
        assert ImageFile(tmp_path / "IM1").read(SIZE).warnings == (
            "preamble and file mark are missing; the file was read without them",
        )

    @pytest.mark.parametrize("said", [uid.ExplicitVRLittleEndian, uid.JPEGBaseline8Bit, uid.RLELossless])
    def test_another_compression_than_said(self, said: uid.UID, caplog: pytest.LogCaptureFixture) -> None:
        content = jpeg_2000(twelve(), BitsStored=12)
        true = uid.JPEG2000Lossless.encode()
        pixels, fields = shown(content.replace(true, said.encode().ljust(len(true), b"\0")), caplog)
        np.testing.assert_array_equal(pixels, read_image(dicom(twelve(), BitsStored=12)))
        assert fields == ["TransferSyntaxUID"]

    def test_fewer_frames_than_said(self, caplog: pytest.LogCaptureFixture) -> None:
        pixels, fields = shown(dicom(twelve(), BitsStored=12, NumberOfFrames=2), caplog)
        np.testing.assert_array_equal(pixels, read_image(dicom(twelve(), BitsStored=12)))
        assert set(fields) == {"NumberOfFrames"}

    @pytest.mark.parametrize(("modality", "said"), [("DR", "DR"), (["DX", "CR"], "DX/CR")])
    def test_modalities_that_can_only_be_radiographs(
        self, modality: Any, said: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        _, fields = shown(dicom(twelve(), BitsStored=12, Modality=modality), caplog)
        assert fields == ["Modality"] and said in caplog.text

    def test_every_refusal_names_what_it_is_about(self) -> None:
        big = dicom_dataset(twelve(), BitsStored=12)
        big.private_block(0x7001, "X", create=True).add_new(1, "OB", bytes(5 * 2**20))
        floats = dicom_dataset(twelve(), BitsStored=12)
        del floats.PixelData
        floats.add_new(0x7FE00008, "OF", twelve().astype("<f4").tobytes())
        report = dicom_dataset(twelve(), Modality="SR", PixelData=None)
        cases = {
            "header is larger than 4 MiB": dicom_bytes(big),
            "FloatPixelData is not supported": dicom_bytes(floats),
            "no pixels (Modality SR)": dicom_bytes(report),
            "Modality is SC (secondary capture)": dicom(twelve(), Modality="SC"),
            "PhotometricInterpretation PALETTE COLOR": dicom(twelve(), PhotometricInterpretation="PALETTE COLOR"),
            "BitsAllocated 32": dicom(twelve(), BitsAllocated=32),
            "Rows is missing": dicom(twelve(), Rows=None),
        }
        for words, content in cases.items():
            message = refusal(content)
            assert words in message and "truncated" not in message
