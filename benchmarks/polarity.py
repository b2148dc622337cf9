"""How far radiographs lie from the limit below which they count as negatives, and how many negatives are noticed.

Reads the collections under `$CROSSRAY_TEST_DATA`: up to `--images` pictures of each. Prints for each collection the
lowest correlation with the pattern, and the share of its pictures that would be noticed if they were inverted.
"""

import argparse
import csv
import os
import random
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from crossray.data.images.polarity import likeness, negative

KINDS = ("Frontal", "Lateral")
OTHERS = ("nih_chestxray14", "nih_boxes", "covid_chestxray", "hannover")


def collections(data: Path) -> dict[str, list[Path]]:
    """The pictures of each collection; those of IU X-Ray by projection."""
    with (data / "iu_xray" / "indiana_projections.csv").open(encoding="utf-8-sig", newline="") as file:
        projections = {row["filename"].removesuffix(".png"): row["projection"] for row in csv.DictReader(file)}
    iu = sorted((data / "iu_xray" / "images_256").iterdir())
    found = {f"IU X-Ray, {kind}": [path for path in iu if projections.get(path.stem) == kind] for kind in KINDS}
    return found | {name: sorted((data / name / "images").iterdir()) for name in OTHERS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=250, help="most pictures of a collection")
    chosen = parser.parse_args()
    table = Table("collection", "images", "lowest correlation", "taken for a negative", "negatives: certain", "likely")
    for name, paths in collections(Path(os.environ.get("CROSSRAY_TEST_DATA", "../shared/data"))).items():
        random.Random(0).shuffle(paths)
        pictures = [np.array(Image.open(path).convert("L")) for path in paths[: chosen.images]]
        lowest = min(likeness(picture)[0] for picture in pictures)
        wrong = sum(bool(negative(picture)) for picture in pictures)
        found = [negative(255 - picture) for picture in pictures]
        shares = [f"{found.count(kind) / len(found):.1%}" for kind in ("certain", "likely")]
        table.add_row(name, str(len(pictures)), f"{lowest:.2f}", str(wrong), *shares)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
