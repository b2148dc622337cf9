"""Negatives: noticed in pictures of a chest, and nowhere else."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from crossray.data.images import read_image
from crossray.data.images.polarity import likeness, negative

pytest.importorskip("pydicom")
from pydicom import uid
from pydicom.encaps import encapsulate
from tests.data.images.dicom_files import dicom, dicom_bytes, dicom_dataset


def chest(size: int = 192) -> NDArray[np.uint8]:
    """(size, size) dark lungs, a bright middle and abdomen, air above the shoulders, noise."""
    y, x = np.mgrid[:size, :size] / size
    lungs = sum(np.exp(-((x - side) ** 2) / 0.015 - (y - 0.42) ** 2 / 0.05) for side in (0.25, 0.75))
    air = np.clip(1 - 6 * y, 0, 1) * np.clip(8 * np.abs(x - 0.5) - 2, 0, 1)
    noise = np.random.default_rng(1).normal(0, 3, (size, size))
    return np.clip(170 - 130 * lungs - 160 * air + 40 * y + noise, 0, 255).astype(np.uint8)


def warned(content: bytes, caplog: pytest.LogCaptureFixture) -> tuple[NDArray[np.uint8], str]:
    caplog.clear()
    return read_image(content, "film"), " ".join(caplog.messages)


def encoded(pixels: NDArray[Any], kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def test_a_chest_and_its_negative_have_opposite_likeness() -> None:
    right, wrong = likeness(chest())[0], likeness(255 - chest())[0]
    assert right > 0.5
    assert wrong == pytest.approx(-right, abs=0.02)
    assert (negative(chest()), negative(255 - chest())) == ("", "certain")


def test_only_chests_are_judged() -> None:
    y, x = np.mgrid[:160, :200]
    ramp = (255 - x * 255 // 199).astype(np.uint8)
    assert negative(ramp) == ""  # one lung would be bright and the other dark
    assert negative((255 - y * 255 // 159).astype(np.uint8)) != "certain"
    assert negative(np.full((160, 160), 7, np.uint8)) == ""
    assert negative(255 - chest(96)) == ""  # too small
    noise = np.random.default_rng(0).integers(0, 256, (50, 160, 160), dtype=np.uint8)
    assert not any(map(negative, noise))


@pytest.mark.parametrize("colour", ["MONOCHROME1", "MONOCHROME2"])
def test_a_polarity_that_the_values_contradict(colour: str, caplog: pytest.LogCaptureFixture) -> None:
    shown = chest()
    stored = 255 - shown if colour == "MONOCHROME1" else shown
    fields = {"WindowCenter": "128", "WindowWidth": "256", "VOILUTFunction": "LINEAR"}
    right, said = warned(dicom(stored, PhotometricInterpretation=colour, **fields), caplog)
    assert said == ""
    other = {"MONOCHROME1": "MONOCHROME2", "MONOCHROME2": "MONOCHROME1"}[colour]
    found, said = warned(dicom(stored, PhotometricInterpretation=other, **fields), caplog)
    assert f"PhotometricInterpretation is {other}" in said and "inverted" in said
    assert np.abs(found.astype(int) - right).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_negative_without_a_header_is_kept_and_told(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    assert warned(encoded(chest(), kind), caplog)[1] == ""
    pixels, said = warned(encoded(255 - chest(), kind), caplog)
    assert "look like a negative" in said
    assert pixels.mean() == pytest.approx(255 - chest().mean(), abs=2)


def test_a_compressed_image_has_the_size_that_it_says(caplog: pytest.LogCaptureFixture) -> None:
    image = dicom_dataset(np.zeros((64, 48), np.uint8))
    image.PixelData = encapsulate([encoded(chest()[:160], "JPEG")])
    image["PixelData"].is_undefined_length = True
    image.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    pixels, said = warned(dicom_bytes(image), caplog)
    assert pixels.shape == (160, 192)
    assert "Rows and Columns are 64 and 48, but those of the compressed image are 160 and 192" in said
