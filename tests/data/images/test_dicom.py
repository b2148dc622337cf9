"""DICOM radiographs: gray levels against formulas and pydicom's own functions, and one sentence for everything else."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("pydicom")

import pydicom
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing, convert_color_space
from pydicom.sequence import Sequence
from tests.data.images.dicom_files import dicom, dicom_bytes, dicom_dataset, lookup_table

from crossray.data.images import FileDescription, describe_image, dicom_pixels, pixels, read_image
from crossray.data.images import read as images
from crossray.errors import UserError

SHAPE = (48, 40)


def twelve_bits() -> NDArray[np.uint16]:
    """(48, 40) values from 0 to 4095 that tell rows and columns apart."""
    rows, columns = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]]
    return np.round(rows / 47 * 3000 + columns / 39 * 1095).astype(np.uint16)


def eight_bits(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """`low` becomes 0, `high` 255."""
    return np.round(np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def error_of(content: bytes, name: str = "image.dcm") -> str:
    with pytest.raises(UserError) as caught:
        read_image(content, name)
    message = str(caught.value)
    assert message.startswith(f"{name}: ") and "\n" not in message
    return message


class TestGreyLevels:
    def test_without_window_the_values_that_occur_are_stretched(self) -> None:
        values = twelve_bits() // 2 + 100
        pixels = read_image(dicom(values, BitsStored=12))
        assert pixels.dtype == np.uint8
        assert pixels.flags.writeable
        np.testing.assert_array_equal(pixels, eight_bits(values, values.min(), values.max()))

    def test_monochrome1_is_inverted(self) -> None:
        pixels = read_image(dicom(twelve_bits(), BitsStored=12, PhotometricInterpretation="MONOCHROME1"))
        assert (pixels[0, 0], pixels[-1, -1]) == (255, 0)
        assert np.abs(pixels.astype(int) + read_image(dicom(twelve_bits(), BitsStored=12)) - 255).max() <= 1

    @pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
    @pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
    def test_window(self, bits: int, function: str | None) -> None:
        values = (twelve_bits().astype(np.uint32) * (2**bits - 1) // 4095).astype(np.uint8 if bits == 8 else np.uint16)
        center, width = 2.0 ** (bits - 1) * 0.9, 2.0 ** (bits - 1)
        image = dicom_dataset(values, BitsStored=bits, WindowCenter=center, WindowWidth=width, VOILUTFunction=function)
        expected = eight_bits(apply_windowing(values, image), 0, 2**bits - 1)
        assert np.abs(read_image(dicom_bytes(image)).astype(int) - expected).max() <= 1
        assert 0.1 < (expected > 127).mean() < 0.9

    def test_rescale_comes_before_the_window(self) -> None:
        values = twelve_bits().astype(np.int16) - 2048
        image = dicom_dataset(
            values, BitsStored=12, RescaleSlope="0.5", RescaleIntercept="-100",
            WindowCenter=["50", "7"], WindowWidth=["600", "7"],
        )  # fmt: skip
        expected = eight_bits(apply_windowing(apply_modality_lut(values, image), image), -1124, 923.5)
        assert np.abs(read_image(dicom_bytes(image)).astype(int) - expected).max() <= 1
        assert 0 < expected[20, 20] < 255

    def test_a_negative_slope_inverts(self) -> None:
        pixels = read_image(dicom(twelve_bits(), BitsStored=12, RescaleSlope="-1", RescaleIntercept="4095"))
        assert (pixels[0, 0], pixels[-1, -1]) == (255, 0)

    @pytest.mark.parametrize(("first", "bits"), [(0, 12), (500, 10), (-300, 16)])
    def test_voi_lookup_table(self, first: int, bits: int) -> None:
        values = (twelve_bits().astype(np.int16) - 2048) // 2
        entries = [int(entry) for entry in np.linspace(0, 2**bits - 1, 700) ** 2 / (2**bits - 1)]
        image = dicom_dataset(values, BitsStored=12, VOILUTSequence=Sequence([lookup_table(entries, first, bits)]))
        expected = eight_bits(np.array(entries)[np.clip(values.astype(int) - first, 0, 699)], 0, 2**bits - 1)
        np.testing.assert_array_equal(read_image(dicom_bytes(image)), expected)
        np.testing.assert_array_equal(expected, eight_bits(apply_voi(values, image), 0, 2**bits - 1))

    def test_modality_lookup_table(self) -> None:
        entries = [65535 - 16 * entry for entry in range(4096)]
        image = dicom_dataset(
            twelve_bits(), BitsStored=12, ModalityLUTSequence=Sequence([lookup_table(entries, 0, 16)])
        )
        expected = eight_bits(apply_modality_lut(twelve_bits(), image), 15, 65535)
        np.testing.assert_array_equal(read_image(dicom_bytes(image)), expected)

    @pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
    def test_padding_is_black_and_does_not_stretch(self, photometric: str) -> None:
        values = twelve_bits().astype(np.int16) // 4
        values[:, :4] = -2000
        fields = {"BitsStored": 16, "PhotometricInterpretation": photometric}
        padded = read_image(dicom(values, **fields, PixelPaddingValue=-2000))
        assert (padded[:, :4] == 0).all()
        np.testing.assert_array_equal(padded[:, 4:], read_image(dicom(values[:, 4:].copy(), **fields)))

    def test_padding_range(self) -> None:
        values = twelve_bits()
        pixels = read_image(dicom(values, BitsStored=12, PixelPaddingValue=4095, PixelPaddingRangeLimit=4000))
        assert (pixels[values >= 4000] == 0).all()
        assert pixels[values < 4000].max() == 255

    def test_bits_beside_the_stored_ones_are_ignored(self) -> None:
        plain = read_image(dicom(twelve_bits(), BitsStored=12))
        overlaid = twelve_bits() | np.uint16(0x8000) * (np.arange(40, dtype=np.uint16) % 2)
        np.testing.assert_array_equal(read_image(dicom(overlaid, BitsStored=12)), plain)
        np.testing.assert_array_equal(read_image(dicom(twelve_bits() << 4, BitsStored=12, HighBit=15)), plain)

    def test_a_useless_window_is_left_out_with_a_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        pixels = read_image(dicom(twelve_bits(), BitsStored=12, WindowCenter="0", WindowWidth="0"), "odd")
        np.testing.assert_array_equal(pixels, read_image(dicom(twelve_bits(), BitsStored=12)))
        assert caplog.messages == ["odd: WindowWidth is not above 1 and left out"]

    def test_an_image_without_contrast_is_remarked(self, caplog: pytest.LogCaptureFixture) -> None:
        assert read_image(dicom(twelve_bits(), BitsStored=12, WindowCenter="9000", WindowWidth="10")).max() == 0
        assert "one gray level" in caplog.text

    @pytest.mark.real_data
    def test_a_real_radiograph_survives_every_polarity_and_depth(self, real_data: Path) -> None:
        pixels = read_image(next(iter(sorted((real_data / "nih_chestxray14" / "images").iterdir()))))
        window = {"WindowCenter": "127.5", "WindowWidth": "255", "VOILUTFunction": "LINEAR_EXACT"}
        np.testing.assert_array_equal(read_image(dicom(pixels, **window)), pixels)
        inverted = dicom(255 - pixels, **window, PhotometricInterpretation="MONOCHROME1")
        np.testing.assert_array_equal(read_image(inverted), pixels)
        deep = pixels.astype(np.uint16) * 257
        np.testing.assert_array_equal(read_image(dicom(deep, WindowCenter="32768", WindowWidth="65536")), pixels)
        image = dicom_dataset(deep, WindowCenter="32768", WindowWidth="65536")
        for syntax in (uid.RLELossless, uid.JPEG2000Lossless):
            image.compress(syntax, generate_instance_uid=False)
            np.testing.assert_array_equal(read_image(dicom_bytes(image)), pixels)
            image.decompress(generate_instance_uid=False)


class TestTransferSyntaxes:
    @pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16])
    @pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEG2000Lossless], ids=["RLE", "JPEG 2000"])
    def test_lossless_compression_changes_nothing(self, kind: type, syntax: uid.UID) -> None:
        values = (twelve_bits() // 16).astype(kind) if kind is np.uint8 else twelve_bits().astype(kind)
        image = dicom_dataset(values)
        expected = read_image(dicom_bytes(image))
        image.compress(syntax, encoding_plugin="" if syntax == uid.JPEG2000Lossless else "pydicom")
        np.testing.assert_array_equal(read_image(dicom_bytes(image)), expected)

    def test_baseline_jpeg(self) -> None:
        values = (twelve_bits() // 16).astype(np.uint8)
        stream = images.io.BytesIO()
        Image.fromarray(values).save(stream, "JPEG", quality=95)
        image = dicom_dataset(values, PixelData=encapsulate([stream.getvalue()]))
        image.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
        image["PixelData"].is_undefined_length = True
        decoded = np.asarray(Image.open(stream))
        expected = eight_bits(decoded, decoded.min(), decoded.max())
        assert np.abs(read_image(dicom_bytes(image)).astype(int) - expected).max() <= 2

    @pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
    def test_encodings_of_the_header(self, syntax: uid.UID) -> None:
        little = syntax == uid.ImplicitVRLittleEndian
        values = twelve_bits() if little else twelve_bits().byteswap()
        image = dicom_dataset(values, BitsStored=12)
        image.file_meta.TransferSyntaxUID = syntax
        np.testing.assert_array_equal(read_image(dicom_bytes(image)), read_image(dicom(twelve_bits(), BitsStored=12)))

    @pytest.mark.parametrize(
        "name",
        [
            *("CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm"),
            *("MR_small_implicit.dcm", "MR_small_expb.dcm", "MR_small_jp2klossless.dcm", "693_J2KI.dcm"),
            *("MR_small_jpeg_ls_lossless.dcm", "JPGExtended.dcm", "JPEG2000.dcm", "J2K_pixelrep_mismatch.dcm"),
        ],
    )
    def test_files_of_pydicom(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Other modalities, said to be radiographs: decoding, rescale, window and padding against pydicom's."""
        path = get_testdata_file(name, download=False)
        assert isinstance(path, str)
        image = pydicom.dcmread(path)
        image.Modality = "DX"
        values = image.pixel_array
        values = values[0] if values.ndim == 3 else values
        physical = apply_modality_lut(values, image)
        if "WindowWidth" in image:
            shown = apply_windowing(physical, image)
            bits = 2 ** (image.BitsStored - (2 if image.PixelRepresentation else 1)) * 2 - 1
            slope, intercept = float(image.get("RescaleSlope", 1)), float(image.get("RescaleIntercept", 0))
            lowest = -(bits + 1) if image.PixelRepresentation else 0
            low, high = lowest * slope + intercept, bits * slope + intercept
        else:
            kept = physical[values != image.get("PixelPaddingValue", None)]
            shown, low, high = physical, kept.min(), kept.max()
        expected = eight_bits(shown, low, high)
        expected[values == image.get("PixelPaddingValue", None)] = 0
        assert np.abs(read_image(dicom_bytes(image)).astype(int) - expected).max() <= 1
        assert expected.std() > 1

    def test_lossless_jpeg(self) -> None:
        """The only one that pydicom ships is in color: its decoded luminance against the same picture uncompressed."""
        paths = [get_testdata_file(name, download=False) for name in ("SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle.dcm")]
        contents = [Path(str(path)).read_bytes() for path in paths]
        assert pydicom.dcmread(str(paths[0])).file_meta.TransferSyntaxUID == uid.JPEGLosslessSV1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pixels, "MAX_COLOURFULNESS", 255)
            assert (read_image(contents[0]).shape) == (100, 100)
            np.testing.assert_array_equal(read_image(contents[0]), read_image(contents[1]))

    def test_an_unknown_one_is_refused(self) -> None:
        image = dicom_dataset(twelve_bits())
        image.file_meta.TransferSyntaxUID = uid.MPEG2MPML
        content = dicom_bytes(dicom_dataset(twelve_bits())).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.9\0")
        assert "TransferSyntaxUID" in error_of(content)

    def test_a_missing_plugin_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        image = dicom_dataset(twelve_bits())
        image.compress(uid.JPEG2000Lossless)
        decoder = dicom_pixels.get_decoder(uid.JPEG2000Lossless)
        monkeypatch.setattr(type(decoder), "is_available", False)
        assert "pip install 'crossray[dicom]'" in error_of(dicom_bytes(image))


class TestColour:
    @pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
    def test_a_grey_picture_in_colours_is_its_luminance(self, photometric: str) -> None:
        grey = (twelve_bits() // 16).astype(np.uint8)
        colour = np.repeat(grey[..., None], 3, axis=-1)
        stored = colour if photometric == "RGB" else convert_color_space(colour, "RGB", "YBR_FULL")
        pixels = read_image(dicom(stored, PhotometricInterpretation=photometric, PlanarConfiguration=0))
        assert np.abs(pixels.astype(int) - grey).max() <= 1

    def test_planes(self) -> None:
        grey = (twelve_bits() // 16).astype(np.uint8)
        planes = np.repeat(grey[None], 3, axis=0)
        image = dicom_dataset(np.repeat(grey[..., None], 3, axis=-1), PlanarConfiguration=1,
                              PhotometricInterpretation="RGB", PixelData=planes.tobytes())  # fmt: skip
        np.testing.assert_array_equal(read_image(dicom_bytes(image)), grey)

    def test_a_photograph_is_refused(self) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        assert "color" in error_of(dicom(noise, PhotometricInterpretation="RGB", PlanarConfiguration=0))

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"PhotometricInterpretation": "RGB"}, "SamplesPerPixel is 1"),
            ({"PhotometricInterpretation": "PALETTE COLOR"}, "MONOCHROME2"),
            ({"PhotometricInterpretation": None}, "PhotometricInterpretation is missing"),
            ({"SamplesPerPixel": 3}, "SamplesPerPixel is 3"),
        ],
    )
    def test_a_wrong_photometric_interpretation(self, fields: dict[str, Any], words: str) -> None:
        assert words in error_of(dicom(twelve_bits(), **fields))


class TestKind:
    def test_a_plain_radiograph_gives_no_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        read_image(dicom(twelve_bits(), BitsStored=12))
        assert not caplog.messages

    @pytest.mark.parametrize(
        ("modality", "words"), [("CT", "CT (computed tomography)"), ("MG", "MG (mammography)"), ("XYZ", "XYZ")]
    )
    def test_other_modalities_are_refused(self, modality: str, words: str) -> None:
        message = error_of(dicom(twelve_bits(), Modality=modality))
        assert f"Modality is {words}, not one of CR, DX, RG" in message

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"Modality": None}, "Modality does not say"),
            ({"Modality": "OT"}, "Modality does not say"),
            ({"BodyPartExamined": "KNEE"}, "BodyPartExamined names no part of the chest"),
            ({"PresentationIntentType": "FOR PROCESSING"}, "FOR PROCESSING"),
        ],
    )
    def test_doubts_are_warnings(self, fields: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture) -> None:
        read_image(dicom(twelve_bits(), BitsStored=12, **fields), "image.dcm")
        assert len(caplog.messages) == 1
        assert caplog.messages[0].startswith("image.dcm: ") and words in caplog.messages[0]
        assert caplog.records[0].levelno == logging.WARNING

    @pytest.mark.parametrize("part", [None, "CHEST", "PORT CHEST", "CHEST_ABDOMEN", "THORAX", "RIB"])
    def test_parts_of_the_chest(self, part: str | None, caplog: pytest.LogCaptureFixture) -> None:
        read_image(dicom(twelve_bits(), BodyPartExamined=part))
        assert not caplog.messages

    @pytest.mark.parametrize("compressed", [False, True])
    def test_the_first_of_several_frames(self, compressed: bool, caplog: pytest.LogCaptureFixture) -> None:
        frames = np.stack([twelve_bits(), twelve_bits()[::-1], twelve_bits() // 2])
        image = dicom_dataset(frames[0], NumberOfFrames=3, PixelData=frames.tobytes())
        if compressed:
            image.compress(uid.RLELossless, encoding_plugin="pydicom")
        np.testing.assert_array_equal(read_image(dicom_bytes(image), "scan"), read_image(dicom(twelve_bits())))
        assert caplog.messages == ["scan: NumberOfFrames is 3; the first frame is taken"]

    def test_nothing_of_the_patient_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        secrets = {"PatientName": "Roe^Richard", "PatientID": "90210", "StudyInstanceUID": "2.25.31337"}
        wrong: list[dict[str, Any]] = [
            *({"Modality": "CT"}, {"BodyPartExamined": "KNEE"}, {"PhotometricInterpretation": "PALETTE COLOR"}),
            *({"Rows": 0}, {"PixelData": b"\0"}, {"WindowCenter": "1e300", "WindowWidth": "2"}),
        ]
        for fields in wrong:
            try:
                read_image(dicom(twelve_bits(), **secrets, **fields), "image.dcm")
            except UserError as error:
                caplog.records.append(logging.makeLogRecord({"msg": str(error), "message": str(error)}))
        said = " ".join(record.message for record in caplog.records).upper()
        assert len(caplog.records) == 6
        assert not any(word in said for word in ("ROE", "RICHARD", "90210", "31337"))


class TestDescription:
    @pytest.mark.parametrize(
        ("view", "position"),
        [
            ("PA", "pa"),
            ("AP", "ap"),
            ("LL", "lateral"),
            ("LATERAL", "lateral"),
            ("LLO", "unknown"),
            ("LLD", "frontal"),
            (None, "unknown"),
        ],
    )
    def test_view_position(self, view: str | None, position: str, tmp_path: Path) -> None:
        path = tmp_path / "image"
        path.write_bytes(dicom(twelve_bits(), ViewPosition=view))
        assert describe_image(path) == FileDescription(position, "2.25.1", patient="4711")

    def test_other_formats_say_nothing(self, tmp_path: Path) -> None:
        Image.fromarray((twelve_bits() // 16).astype(np.uint8)).save(tmp_path / "image.png")
        assert describe_image(tmp_path / "image.png") == FileDescription()


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    content = dicom(twelve_bits())
    monkeypatch.delitem(__import__("sys").modules, "crossray.data.images.dicom")
    monkeypatch.delattr("crossray.data.images.dicom", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    assert "pip install 'crossray[dicom]'" in error_of(content)
