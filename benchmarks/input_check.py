"""What the input check of a calibrated model makes of images that it was not made for.

    python benchmarks/input_check.py --model runs/a --data data/iu --external shared/data --out docs/figures/check.md

Radiographs of other hospitals should pass, the same ones turned, mirrored or inverted should be named, and pictures
that Python packages ship, noise and radiographs of the other kind (drawn or real) should be unfamiliar. AUROC compares
each set with the images of the model's own validation split, or with the same images as they are.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from common import parser
from crossray.confidence.check import InputChecker
from crossray.confidence.features import pooled_of_images, pooled_of_studies
from crossray.confidence.poses import AS_IS, MISTAKES, Pose
from crossray.data.images import read_image, resize_short_side
from crossray.data.store import Dataset
from crossray.generation.generator import Generator
from crossray.models.pretraining.vision import auroc
from crossray.pages.tables import Grid
from crossray.phantom.source import phantom_studies
from foreign import pictures

Pixels = NDArray[np.uint8]
Vectors = NDArray[np.float32]

#: Folders of the external data whose images are frontal chest radiographs, and what they are.
RADIOGRAPHS = {
    "nih_chestxray14": "ChestX-ray14, frontal",
    "covid_chestxray": "many hospitals, COVID-19",
    "hannover": "Hannover, COVID-19",
}

#: Of these the mistakes are made.
MISTAKEN = "nih_chestxray14"

#: The flags of an image alone, whatever its file says of the view.
ALONE = ("unfamiliar", "inverted", "rotated", "mirrored")

#: Neighbors of the distance that is compared.
NEIGHBOURS = 10


class Bench:
    """A model with its check, and vectors of images, which are kept in a file."""

    def __init__(self, model: Path, vectors: Path | None) -> None:
        self.generator = Generator.from_pretrained(model, device="cpu")
        if self.generator.checker is None:
            raise SystemExit(f"{model}: no input check; run `crossray calibrate` first.")
        self.checker: InputChecker = self.generator.checker
        self.path = vectors
        self.kept: dict[str, Vectors] = dict(np.load(vectors)) if vectors is not None and vectors.exists() else {}

    def of(self, name: str, images: Callable[[], Iterator[Pixels]]) -> Vectors:
        """Vectors of images, computed once."""
        if name not in self.kept:
            print("looking at", name, flush=True)
            self.kept[name] = np.concatenate(list(pooled_of_images(self.generator.model, images())))
            self._save()
        return self.kept[name]

    def studies(self, name: str, dataset: Dataset, rows: NDArray[np.int64]) -> Vectors:
        """Vectors of the views of studies, from cached features where there are any."""
        if name not in self.kept:
            parts = [vectors for vectors, _ in pooled_of_studies(self.generator.model, dataset, rows)]
            self.kept[name] = np.concatenate(parts)
            self._save()
        return self.kept[name]

    def _save(self) -> None:
        if self.path is not None:
            np.savez(self.path, **self.kept)  # type: ignore[arg-type]  # numpy 2.3 has allow_pickle beside it


def main() -> None:
    """Print the tables, and write them."""
    options = parser(__doc__ or "")
    options.formatter_class = argparse.RawDescriptionHelpFormatter
    options.add_argument("--model", type=Path, required=True, help="folder of a calibrated model")
    options.add_argument("--data", type=Path, required=True, help="dataset that it was trained on")
    options.add_argument("--external", type=Path, help="folder with radiographs of other hospitals")
    options.add_argument("--split", default="val", help="the model's own images to compare with")
    options.add_argument("--images", type=int, default=150, help="most images of a set")
    options.add_argument("--vectors", type=Path, help="NPZ file that keeps the vectors for the next time")
    options.add_argument("--out", type=Path, help="Markdown file to write")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    bench, dataset = Bench(chosen.model, chosen.vectors), Dataset.open(chosen.data)
    own = bench.studies(f"own {chosen.split}", dataset, dataset.rows(chosen.split))
    train = bench.studies("own train", dataset, dataset.rows("train")[:2500])
    sets: dict[str, Vectors] = {}
    grids = []
    if chosen.external is not None:
        for folder, title in RADIOGRAPHS.items():
            files = _chosen(sorted((chosen.external / folder / "images").iterdir()), chosen.images)
            sets[title] = bench.of(folder, lambda files=files: _read(files, AS_IS))
        files = _chosen(sorted((chosen.external / MISTAKEN / "images").iterdir()), chosen.images)
        grids.append(_mistakes(bench, files, RADIOGRAPHS[MISTAKEN], sets[RADIOGRAPHS[MISTAKEN]]))
    if not dataset.info.source.get("synthetic_images"):
        sets["drawn radiographs (phantom)"] = bench.of("phantom", lambda: _drawn(chosen.images // 2))
    for title, images in pictures().items():
        sets[title] = bench.of(title, lambda images=images: iter(images))
    grids.insert(0, _familiar(bench, own, train, sets))
    for grid in grids:
        print(grid.markdown())
    if chosen.out is not None:
        chosen.out.write_text("\n".join(grid.markdown() for grid in grids), encoding="utf-8")


def _familiar(bench: Bench, own: Vectors, train: Vectors, sets: dict[str, Vectors]) -> Grid:
    """How far each set is from the model's own images, and how much of it is flagged."""
    checker = bench.checker
    scores = checker.scores(own)
    near = _neighbours(train, own)
    lines = [["own validation images", str(len(own)), "", "", _share(checker, scores, ("unfamiliar",)),
              _share(checker, scores, ALONE)]]  # fmt: skip
    for title, vectors in sets.items():
        other = checker.scores(vectors)
        lines.append([
            title, str(len(vectors)), _area(scores["unfamiliar"], other["unfamiliar"]),
            _area(near, _neighbours(train, vectors)), _share(checker, other, ("unfamiliar",)),
            _share(checker, other, ALONE),
        ])  # fmt: skip
    header = ["images", "number", "AUROC, Mahalanobis", f"AUROC, neighbor {NEIGHBOURS}", "unfamiliar", "any flag"]
    return Grid("images from elsewhere, compared with the validation images", header, lines)


def _mistakes(bench: Bench, files: Sequence[Path], title: str, plain: Vectors) -> Grid:
    """Images of another hospital, turned, mirrored and inverted, against the same ones as they are."""
    checker = bench.checker
    good = checker.scores(plain)
    lines = []
    for name, pose in MISTAKES.items():
        flag = "inverted" if pose.inverted else "mirrored" if pose.mirrored else "rotated"
        bad = checker.scores(bench.of(f"{MISTAKEN} {name}", lambda pose=pose: _read(files, pose)))
        lines.append([
            name, str(len(plain)), _area(good[flag], bad[flag]), _share(checker, bad, (flag,)),
            _share(checker, good, (flag,)), _share(checker, bad, ALONE),
        ])  # fmt: skip
    header = ["alteration", "images", "AUROC", "correct flag", "same flag on the original", "any flag"]
    return Grid(f"{title}: altered images", header, lines)


def _area(good: NDArray[np.float64], bad: NDArray[np.float64]) -> str:
    both = torch.from_numpy(np.concatenate([good, bad]))
    found = auroc(both, torch.arange(len(both)) >= len(good))
    return "" if found is None else f"{found:.3f}"


def _share(checker: InputChecker, scores: dict[str, NDArray[np.float64]], flags: Sequence[str]) -> str:
    used = [scores[flag] > checker.limits[flag] for flag in flags if flag in checker.limits]
    return f"{np.any(used, axis=0).mean():.1%}" if used else "not used"


def _neighbours(train: Vectors, vectors: Vectors) -> NDArray[np.float64]:
    """Cosine distance to the tenth nearest training vector (Sun et al., 2022): what Mahalanobis is compared with."""
    mean = train.mean(axis=0)
    unit, other = (one - mean for one in (train, vectors))
    unit, other = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (unit, other))
    nearest = np.sort(-(other @ unit.T), axis=1)
    # an image of the training split would be its own first neighbor; none is asked about
    return 1 + nearest[:, NEIGHBOURS - 1].astype(np.float64)


def _chosen(files: Sequence[Path], most: int) -> list[Path]:
    images = [path for path in files if path.is_file()]
    return [images[place] for place in np.linspace(0, len(images) - 1, min(most, len(images))).astype(int)]


def _read(files: Sequence[Path], pose: Pose) -> Iterator[Pixels]:
    for path in files:
        yield pose(resize_short_side(read_image(path), 256))


def _drawn(studies: int) -> Iterator[Pixels]:
    for study in phantom_studies(studies, 7, "easy"):
        for view in study.images:
            yield view.read(256).pixels


if __name__ == "__main__":
    main()
