"""The folder of a study as archives export it: what is a view, what is passed over, and the order."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pydicom")

from tests.data.images.dicom_files import dicom, dicom_dataset
from tests.data.images.test_dicom_contradictions import film, twelve

from crossray.data.images import folders
from crossray.data.images.folders import listed_frontal_first, study_views
from crossray.errors import UserError


def view(folder: Path, name: str, position: str = "PA") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(dicom(twelve(), BitsStored=12, ViewPosition=position))
    return path


def other_object(modality: str, sop_class: str) -> bytes:
    """A DICOM object without pixels; pixels and what describes them are taken out of an image."""
    image = dicom_dataset(twelve(), Modality=modality, SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{sop_class}")
    for element in list(image):
        if element.tag.group in (0x0028, 0x7FE0):
            del image[element.tag]
    from tests.data.images.dicom_files import dicom_bytes

    return dicom_bytes(image)


BESIDE = {
    "PR1": other_object("PR", "11.1"),
    "SR1": other_object("SR", "88.11"),
    "KO1": other_object("KO", "88.59"),
    "README.TXT": b"Read me.",
    "README": b"Read me.\r\n",
    "AUTORUN.INF": b"[autorun]",
    "viewer.exe": b"MZ\x90\0",
    "INDEX.HTM": b"<html>",
    "report.pdf": b"%PDF-1.4",
    "images-00000.u8": bytes(5000),
}


def test_what_is_no_image_is_passed_over_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lateral, frontal = view(tmp_path, "IM1", "LL"), view(tmp_path, "sub/IM2", "PA")
    for name, content in BESIDE.items():
        (tmp_path / name).write_bytes(content)
    for name in ("dicomdir", "DICOMDIR.bak", "Thumbs.db", "desktop.ini", ".DS_Store"):
        (tmp_path / name).write_bytes(b"index")
    views = study_views(tmp_path)
    assert list(views) == [frontal, lateral]
    assert [found.position for found in views.values()] == ["pa", "lateral"]
    assert caplog.messages == [f"{tmp_path}: {len(BESIDE) + 1} files are no images and are passed over"]


@pytest.mark.parametrize("name", sorted(BESIDE))
def test_a_folder_of_those_alone_has_no_image(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BESIDE[name])
    with pytest.raises(UserError, match="contains no image"):
        study_views(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("IM2", dicom(twelve(), BitsStored=12)[:700]),  # cut off before its pixels
        ("IM2", dicom(twelve(), BitsStored=12)[:300]),
        ("IM2", b""),
        ("IM2", bytes(5000)),
        ("view.png", b"not found"),
        ("view.dcm", b""),
        ("scan.gif", b"GIF89a"),
    ],
)
def test_a_damaged_view_stays_in_the_study(name: str, content: bytes, tmp_path: Path) -> None:
    """To leave it out would make another study of it; it is refused when it is read."""
    whole = view(tmp_path, "IM1")
    (tmp_path / name).write_bytes(content)
    assert set(study_views(tmp_path)) == {whole, tmp_path / name}


def test_a_folder_of_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise, the views of the study would depend on the order of the disk."""
    view(tmp_path, "IM1")
    view(tmp_path, "IM2")
    monkeypatch.setattr(folders, "MAX_FILES", 2)
    assert len(study_views(tmp_path)) == 2
    view(tmp_path, "IM3")
    with pytest.raises(UserError, match="the folder holds more than 2 files; give that of one study"):
        study_views(tmp_path)


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    Path(name).mkdir()
    with pytest.raises(UserError, match=r"caf\\xe9: the folder contains no image") as caught:
        study_views(Path(name))
    str(caught.value).encode()
    Image.fromarray(film()).save(f"{name}/1.png")
    assert [path.name for path in study_views(Path(name))] == ["1.png"]


@pytest.mark.parametrize(
    ("positions", "order"),
    [
        (["lateral", "lateral", "pa"], [2, 0, 1]),
        (["unknown", "lateral", "ap", "frontal"], [2, 3, 1, 0]),
        (["lateral", "unknown"], [0, 1]),
        (["unknown", "lateral"], [0, 1]),
        (["pa", "lateral"], [0, 1]),
        ([], []),
    ],
)
def test_listed_views(positions: list[str], order: list[int]) -> None:
    assert listed_frontal_first(positions) == order
    assert np.array_equal(sorted(order), range(len(positions)))
