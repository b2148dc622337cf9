"""Images per second that a prepared dataset delivers: batches from a warm page cache, and their augmentation.

    python benchmarks/loading.py [--json] [--threads 1] [--studies 400]

Shuffled batches of 64 studies with two views of 256 px, uint8, built in one process. "share of copy" compares the bytes
read and written with what a plain memory copy reaches.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import copy_rate, median_seconds, parser, report
from crossray.data.dataset import Dataset, write_dataset
from crossray.data.loading import Collator, StudyLoader
from crossray.data.sampler import StudySampler
from crossray.data.study import Study, View
from crossray.data.transform import ImageTransform, transform_inputs
from crossray.text.tokenizer import Tokenizer

BATCH = 64
SIZE = 256


@dataclass(frozen=True)
class Noise:
    """An image of noise; with `spread` its longer side varies up to that many pixels beyond the shorter."""

    number: int
    spread: int
    position: str = "frontal"

    @property
    def name(self) -> str:
        """What an error message calls it."""
        return f"noise-{self.number}"

    def read(self, size: int) -> View:
        """The same noise at every call."""
        generator = np.random.default_rng(self.number)
        longer = size + int(generator.integers(0, self.spread + 1))
        shape = (size, longer) if self.number % 2 else (longer, size)
        return View(generator.integers(0, 256, shape, dtype=np.uint8))


def noise_dataset(folder: Path, studies: int, spread: int) -> Dataset:
    words = "the heart is normal in size . the lungs are clear . no effusion or pneumothorax is seen . " * 2
    made = [
        Study(
            f"{n}", f"{n}", "train", words + f"finding {n} .", images=(Noise(2 * n, spread), Noise(2 * n + 1, spread))
        )
        for n in range(studies)
    ]
    return write_dataset(folder, made, size=SIZE, source={"name": "noise"}, workers=0)


def loading_rows(dataset: Dataset, shapes: str, copy: float) -> Iterator[dict[str, Any]]:
    rows = dataset.rows("train")
    tokenizer = Tokenizer.train(dataset.reports(rows), min_count=1)
    loader = StudyLoader(Collator(dataset, tokenizer), StudySampler(rows, BATCH, drop_last=True), seed=0)
    images = 2 * BATCH * len(loader)
    epoch = iter(range(10**6))

    def read() -> None:
        loader.sampler.set_epoch(next(epoch))
        for _ in loader:
            pass

    seconds = median_seconds(read, at_least=3)
    bytes_moved = 2 * images * float(dataset.image_sizes.prod(1).mean())
    yield {
        "what": f"batches, {shapes}",
        "images/s": images / seconds,
        "us an image": seconds / images * 1e6,
        "GB/s": bytes_moved / seconds / 1e9,
        "share of copy": bytes_moved / seconds / 1e9 / copy,
    }
    batch = Collator(dataset, tokenizer)(rows[:BATCH])
    transforms = {
        "R2Gen: crop": (ImageTransform(), True),
        "R2Gen: squash": (ImageTransform(), False),
        "COACL: crop, shift, zoom": (ImageTransform(translate=0.2, scale=0.8, squash=False), True),
        "PromptMRG: crop, rotation": (ImageTransform(rotation=5, squash=False), True),
        "UAR: 128, crop 112": (ImageTransform(size=112, resize=128, squash_train=True), True),
    }
    for name, (transform, train) in transforms.items():
        seconds = median_seconds(
            lambda transform=transform, train=train: transform_inputs(batch.inputs, transform, train)
        )
        yield {
            "what": f"{name} ({'training' if train else 'evaluation'}), {shapes}",
            "images/s": 2 * BATCH / seconds,
            "us an image": seconds / (2 * BATCH) * 1e6,
        }


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--studies", type=int, default=400, help="studies of the made-up dataset")
    options.set_defaults(threads=1)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    copy = copy_rate()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for shapes, spread in (("square", 0), ("varied shapes", 96)):
            dataset = noise_dataset(Path(folder) / str(spread), arguments.studies, spread)
            rows += loading_rows(dataset, shapes, copy)
    report(f"Loading, {BATCH} studies a batch, two views of {SIZE} px", rows, json=arguments.json)


if __name__ == "__main__":
    main()
