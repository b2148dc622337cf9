"""Images per second from files of MIMIC-CXR-JPG's size into the 256-pixel store, beside Pillow's draft decoding alone.

    python benchmarks/prepare.py [--json] [--images 48]

Drawn JPEGs of 3056 x 2544 pixels, quality 95, in the size that the files of MIMIC-CXR-JPG have on average (1.5 MB).
"alone" opens each file and decodes it at the reduced scale that reaches 512 pixels; "reader" is `ImageFile.read`
(checks, gray levels, scaling); "prepare" is all of `crossray prepare mimic-cxr` but its tables: reports, sections,
labels, images, shards on disk, merge. One process, processor time, all on the same files in turn, so that the share
depends little on the machine's other work.
"""

import csv
import gzip
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common import parser, report
from crossray.data.images import ImageFile
from crossray.data.sources.mimic_cxr import read_mimic_cxr
from crossray.data.store import write_dataset

SIZE = 256
HEIGHT, WIDTH = 3056, 2544
REPORT = """ FINAL REPORT
 INDICATION:  A drawn study.

 FINDINGS:

 The heart is normal in size. The lungs are clear. There is no effusion or pneumothorax.

 IMPRESSION:

 Nothing acute.
"""


def drawn_jpeg(seed: int) -> bytes:
    """A smooth picture with the grain that gives it the size of a true file."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (24, 20), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = np.rint(generator.normal(0, 1.5, smooth.shape)).astype(np.int16)
    stream = io.BytesIO()
    Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def collection(folder: Path, images: int, drawn: int = 4) -> list[Path]:
    """A MIMIC-CXR-JPG of some studies of one image each, in PhysioNet's layout."""
    contents = [drawn_jpeg(seed) for seed in range(drawn)]
    paths, split, metadata = [], [], []
    for number in range(images):
        patient, study = 10_000_000 + number, 50_000_000 + number
        name = f"{number:08x}-00000000-00000000-00000000-00000000"
        inside = f"p10/p{patient}/s{study}"
        path = folder / "files" / inside / f"{name}.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(contents[number % drawn])
        text = folder / "reports" / f"{inside}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(REPORT)
        paths.append(path)
        split.append([name, study, patient, "train"])
        metadata.append([name, "PA", HEIGHT, WIDTH])
    tables: dict[str, list[list[object]]] = {
        "split": [["dicom_id", "study_id", "subject_id", "split"], *split],
        "metadata": [["dicom_id", "ViewPosition", "Rows", "Columns"], *metadata],
    }
    for kind, rows in tables.items():
        with gzip.open(folder / f"mimic-cxr-2.0.0-{kind}.csv.gz", "wt", newline="") as file:
            csv.writer(file).writerows(rows)
    return paths


def alone(path: Path) -> Image.Image:
    """Pillow's draft decoding and nothing else."""
    with Image.open(path) as image:
        image.draft(None, (2 * SIZE, 2 * SIZE))
        image.load()
    return image


def rows(folder: Path, images: int) -> Iterator[dict[str, Any]]:
    """One row for each way of reading the same files."""
    paths = collection(folder, images)
    studies = read_mimic_cxr(folder, folder / "reports")
    out = folder / "set"
    steps: dict[str, Callable[[], Any]] = {
        "alone": lambda: [alone(path) for path in paths],
        "reader": lambda: [ImageFile(path, "pa", draft=True).read(SIZE) for path in paths],
        "prepare": lambda: write_dataset(
            out / str(time.perf_counter_ns()), studies, size=SIZE, source={"kind": "benchmark"}, workers=0
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(3):
        for name, step in steps.items():
            started = time.process_time()
            step()
            times[name].append(time.process_time() - started)
    first = min(times["alone"])
    for name, measured in times.items():
        yield {
            "what": name,
            "images/s a core": images / min(measured),
            "ms an image": 1000 * min(measured) / images,
            "share of alone": first / min(measured),
            "MB a file": sum(path.stat().st_size for path in paths) / images / 1e6,
        }


def main() -> None:
    """Measure and print."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=48, help="images of the drawn collection")
    options.set_defaults(threads=1)
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = list(rows(Path(folder), arguments.images))
    report(f"JPEG of {HEIGHT} x {WIDTH} into the {SIZE}-pixel store", measured, json=arguments.json)


if __name__ == "__main__":
    main()
