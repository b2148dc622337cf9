"""A small MIMIC-CXR in PhysioNet's layout, with invented reports and drawn images."""

import csv
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

#: Patient, study, split, report (None: it is missing), and ViewPosition of every image.
STUDIES: list[tuple[int, int, str, str | None, tuple[str, ...]]] = [
    (10000032, 50414267, "train",
     " FINAL REPORT\n INDICATION: Cough.\n \n FINDINGS: Lungs\n clear.\n \n IMPRESSION: Normal.\n",
     ("LATERAL", "AP", "PA")),
    (10000032, 53189527, "train", " FINAL REPORT\n FINDINGS AND IMPRESSION: Effusion.\n", ("PA",)),
    (10000764, 57375967, "validate", " FINAL REPORT\n \n Large heart.\n", ("AP", "LL")),
    (10000898, 50771383, "test",
     " FINAL ADDENDUM\n One more.\n FINAL REPORT\n CHEST, TWO VIEWS: Nodule.\n IMPRESSION: x.\n",
     ("", "PA")),
    (11000011, 51029426, "test", " FINAL REPORT\n FINDINGS: Edema.\n", ("LL", "AP LLD")),
    (19000935, 50578979, "train", None, ("PA",)),
    (19000935, 51178377, "train", " FINAL REPORT\n IMPRESSION: Stable.\n", ("PA", "LL")),
    (19999987, 55368167, "train", " FINAL REPORT\n FINDINGS: Mass.\n", ("PA",)),
]  # fmt: skip

CHEXPERT = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture",
            "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia",
            "Pneumothorax", "Support Devices")  # fmt: skip

#: Height and width of the drawn images.
SHAPE = (96, 80)


def dicom_id(study: int, view: int) -> str:
    return f"{study:08x}-{view:08x}-00000000-00000000-00000000"


def image_path(root: Path, patient: int, study: int, view: int, suffix: str = ".jpg") -> Path:
    return root / "files" / f"p{patient // 10**6}" / f"p{patient}" / f"s{study}" / f"{dicom_id(study, view)}{suffix}"


def jpeg(seed: int) -> bytes:
    stream = io.BytesIO()
    grey = np.random.default_rng(seed).integers(0, 256, (12, 10), dtype=np.uint8)
    Image.fromarray(grey).resize(SHAPE[::-1]).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def table(path: Path, columns: list[str], rows: list[list[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def tables(root: Path) -> None:
    """The three tables; split and metadata in different orders, as nothing says that they agree."""
    images = [(patient, study, split, view, position) for patient, study, split, _, positions in STUDIES
              for view, position in enumerate(positions)]  # fmt: skip
    table(root / "mimic-cxr-2.0.0-split.csv.gz", ["dicom_id", "study_id", "subject_id", "split"],
          [[dicom_id(study, view), study, patient, split]
           for patient, study, split, view, _ in images[::-1]])  # fmt: skip
    table(
        root / "mimic-cxr-2.0.0-metadata.csv.gz",
        ["dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows", "Columns"],
        [[dicom_id(study, view), patient, study, "CHEST (PA AND LAT)", position, *SHAPE]
         for patient, study, _, view, position in images],
    )  # fmt: skip
    values = ["", "1.0", "0.0", "-1.0"] * 4
    table(root / "mimic-cxr-2.0.0-chexpert.csv.gz", ["subject_id", "study_id", *CHEXPERT],
          [[10000032, 50414267, *values[:14]]])  # fmt: skip


def reports(folder: Path) -> tuple[Path, Path]:
    """The reports as a zip archive and as the folder that it unpacks to."""
    archive = folder / "mimic-cxr-reports.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for patient, study, _, text, _ in reversed(STUDIES):
            if text is not None:
                file.writestr(f"files/p{patient // 10**6}/p{patient}/s{study}.txt", text)
        file.extractall(folder / "mimic-cxr-reports")
    return archive, folder / "mimic-cxr-reports"


def tree(folder: Path) -> tuple[Path, Path]:
    """The folder of MIMIC-CXR-JPG, in which one image is missing and one is cut, and the archive of reports."""
    root = folder / "mimic-cxr-jpg" / "2.1.0"
    tables(root)
    for patient, study, _, _, positions in STUDIES:
        for view in range(len(positions)):
            path = image_path(root, patient, study, view)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(study + view))
    cut = image_path(root, 19999987, 55368167, 0)
    cut.write_bytes(cut.read_bytes()[:200])
    return root, reports(folder)[0]
