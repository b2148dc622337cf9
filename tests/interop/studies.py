"""A drawn study as DICOM files, and a draft of it."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
from tests.data.images.dicom_files import dicom

from crossray.interop.draft import DraftReport, ModelIdentity, draft_report

STUDY, SERIES = "1.2.826.0.1.3680043.10.1", "1.2.826.0.1.3680043.10.1.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"

#: Every status: stated, denied, uncertain.
TEXT = (
    "the heart is enlarged . possible pneumonia . there is no pleural effusion or pneumothorax . low lung volumes . "
    "enlarged cardiomediastinal silhouette ."
)

MODEL = ModelIdentity("runs/a", "baseline", "ab" * 32, "1.0")


def image(number: int = 1, **fields: Any) -> bytes:
    """A DICOM radiograph of the study."""
    given = {
        "SOPClassUID": DX,
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "SOPInstanceUID": f"{SERIES}.{number}",
        "PatientName": "Drawn^Study",
        "PatientID": "P-1",
        "PatientBirthDate": "19700101",
        "PatientSex": "O",
        "StudyDate": "20260102",
        "StudyTime": "030405",
        "AccessionNumber": "A-7",
        **fields,
    }
    pixels = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    return dicom(pixels, **given)


def draft(text: str = TEXT, identity: str = "") -> DraftReport:
    """The draft, always of the same moment."""
    return draft_report("study", text, MODEL, written=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), identity=identity)
