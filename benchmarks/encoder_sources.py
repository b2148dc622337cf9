"""A manifest of IU X-Ray whose training studies have other labels, or radiographs of another hospital beside them.

    python benchmarks/encoder_sources.py --labels chexpert --out /tmp/sources
    crossray prepare manifest /tmp/sources/manifest.jsonl --cleaner legacy --out /tmp/sources/data
    crossray pretrain vision iu_xray --data /tmp/sources/data --out /tmp/sources/encoder

The labels of the validation split are those of the rules in every manifest, so that the AUROCs can be compared.
`$CROSSRAY_TEST_DATA` holds `iu_xray` and `nih_chestxray14`.
"""

import argparse
import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crossray.data.images import ImageFile
from crossray.data.sources.iu_xray import read_iu_xray
from crossray.text.observations import CHEXPERT, OBSERVATIONS
from labeler_disagreements import CODES

#: Labels of ChestX-ray14 that are observations; "Nodule" and "Mass" are lung lesions in CheXpert.
_NIH = {
    "No Finding": "no_finding", "Cardiomegaly": "cardiomegaly", "Effusion": "pleural_effusion", "Edema": "edema",
    "Atelectasis": "atelectasis", "Pneumonia": "pneumonia", "Pneumothorax": "pneumothorax", "Nodule": "lung_lesion",
    "Mass": "lung_lesion", "Infiltration": "lung_opacity", "Consolidation": "consolidation",
    "Pleural_Thickening": "pleural_other",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--labels", choices=["rules", "chexpert"], default="rules", help="labels of IU X-Ray's training"
    )
    parser.add_argument("--nih", action="store_true", help="add the radiographs of ChestX-ray14 to the training")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the manifest and the images")
    arguments = parser.parse_args()
    data = Path(os.environ.get("CROSSRAY_TEST_DATA", "../shared/data")).resolve()
    images = arguments.out / "images"  # a manifest names files beside itself only
    images.mkdir(parents=True)
    with (arguments.out / "manifest.jsonl").open("x", encoding="utf-8") as file:
        for row in rows(data, arguments.labels, arguments.nih):
            for path in row["images"]:
                shutil.copy(path, images)
            file.write(json.dumps({**row, "images": [f"images/{path.name}" for path in row["images"]]}) + "\n")


def rows(data: Path, labels: str, nih: bool) -> Iterator[dict[str, Any]]:
    iu = data / "iu_xray"
    studies = read_iu_xray(
        iu / "indiana_reports.csv", iu / "images_256", Path("unused"), projections=iu / "indiana_projections.csv",
        annotation=iu / "annotation.json",
    )  # fmt: skip
    given = chexpert_labels(iu / "chexpert_labels.csv") if labels == "chexpert" else {}
    for study in studies:
        files = [image for image in study.images if isinstance(image, ImageFile)]
        own = dict(study.labels or {})
        yield {
            "study": study.id, "patient": study.patient, "split": study.split, "findings": study.findings,
            "images": [image.path for image in files],
            "views": [image.position for image in files],
            "labels": {**own, **given.get(study.patient, {})} if study.split == "train" else own,
        }  # fmt: skip
    if nih:
        folder = data / "nih_chestxray14"
        with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found = {_NIH[name] for name in row["finding_labels"].split("|") if name in _NIH}
                # the report only says the labels, for the loss over words
                text = ". ".join(row["finding_labels"].replace("_", " ").split("|")).capitalize() + "."
                yield {
                    "study": f"nih-{row['file']}", "patient": f"nih-{row['file'][:8]}", "split": "train",
                    "findings": text, "images": [folder / "images" / row["file"]],
                    "views": [row["view"].lower()],
                    "labels": {name: "positive" if name in found else "blank" for name in OBSERVATIONS},
                }  # fmt: skip


def chexpert_labels(path: Path) -> dict[str, dict[str, str]]:
    """The CheXpert labeler's statuses of its 14 observations, by patient."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            f"CXR{row['uid']}": {
                name: CODES[row[name.replace("_", " ").title()]] for name in CHEXPERT
            }
            for row in csv.DictReader(file)
        }  # fmt: skip


if __name__ == "__main__":
    main()
