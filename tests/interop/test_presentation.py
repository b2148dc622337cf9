"""The presentation state, read by pydicom and checked by dcmtk."""

import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from tests.interop.studies import SERIES, STUDY, draft, image

from crossray.interop.presentation import attention_overlay
from crossray.interop.source import read_sources
from crossray.interop.sr import dicom_bytes

WINDOWS = [(0.0, 0.0, 1.0, 1.0), (0.25, 0.0, 0.75, 1.0)]


def overlay() -> Dataset:
    """Of two views; in each the cell in the second row and third column of four is looked at."""
    share = np.full((4, 4), 0.01)
    share[1, 2] = 0.5
    sources = read_sources([("a", image(1)), ("b", image(2))])
    return dcmread(BytesIO(dicom_bytes(attention_overlay(draft(), sources, [share, share], WINDOWS))))


def test_cells_are_outlined_where_they_lie_in_the_image() -> None:
    # of 64 pixels; the model saw all of the first view, and the middle rows of the second
    expected = {f"{SERIES}.1": (32, 16, 48, 32), f"{SERIES}.2": (32, 24, 48, 32)}
    for annotation in overlay().GraphicAnnotationSequence:
        (outline,) = annotation.GraphicObjectSequence
        points = np.array(outline.GraphicData).reshape(-1, 2)
        box = (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())
        assert box == expected.pop(annotation.ReferencedImageSequence[0].ReferencedSOPInstanceUID)
        assert "not a medical device" in annotation.TextObjectSequence[0].UnformattedTextValue
    assert not expected


def test_even_attention_marks_nothing() -> None:
    made = attention_overlay(draft(), read_sources([("a", image(1))]), [np.full((4, 4), 0.05)], WINDOWS[:1])
    assert "GraphicObjectSequence" not in made.GraphicAnnotationSequence[0]


def test_it_belongs_to_patient_and_study() -> None:
    made = overlay()
    assert (made.StudyInstanceUID, str(made.PatientName), made.Modality) == (STUDY, "Drawn^Study", "PR")
    assert made.SOPInstanceUID == overlay().SOPInstanceUID


@pytest.mark.skipif(shutil.which("dcmpschk") is None, reason="dcmpschk of dcmtk is not installed")
def test_dcmtk_finds_no_fault(tmp_path: Path) -> None:
    (tmp_path / "pr.dcm").write_bytes(dicom_bytes(overlay()))
    checked = subprocess.run(["dcmpschk", tmp_path / "pr.dcm"], capture_output=True, text=True)
    said = checked.stdout + checked.stderr
    assert checked.returncode == 0 and "Test passed" in said, said
