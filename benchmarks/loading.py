"""Images per second: batches of a prepared dataset from a warm page cache, their augmentation, files into the store.

    python benchmarks/loading.py [--json] [--threads 1] [--studies 400]

Shuffled batches of 64 studies with two views of 256 px, uint8, built in one process. "share of copy" compares the bytes
read and written with what a plain memory copy reaches. Files are drawn ones in the sizes of MIMIC-CXR-JPG (JPEG) and of
IU X-Ray (PNG); "share of decoder" compares them with Pillow's draft decoding alone, and with inflating alone.
"""

import io
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from common import copy_rate, median_seconds, parser, report
from crossray.data.batches.loading import Collator, StudyLoader
from crossray.data.batches.sampler import StudySampler
from crossray.data.batches.transform import ImageTransform, transform_inputs
from crossray.data.images import read_image, resize_short_side
from crossray.data.store import Dataset, write_dataset
from crossray.data.study import Study, View
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


def file_rows() -> Iterator[dict[str, Any]]:
    jpeg, png = drawn_file(3056, 2544, "JPEG", quality=95), drawn_file(2496, 2048, "PNG")
    deflated = png_data(png)

    def draft() -> None:
        image = Image.open(io.BytesIO(jpeg))
        image.draft(None, (2 * SIZE, 2 * SIZE))
        image.load()

    kinds: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "JPEG 3056 x 2544": (draft, lambda: resize_short_side(read_image(jpeg, draft_size=2 * SIZE), SIZE)),
        "PNG 2496 x 2048": (lambda: zlib.decompress(deflated), lambda: resize_short_side(read_image(png), SIZE)),
    }
    for name, (alone, whole) in kinds.items():
        times = np.array([[processor_seconds(alone), processor_seconds(whole)] for _ in range(12)])
        decoder, seconds = np.median(times, axis=0).tolist()
        yield {
            "what": f"{name} to {SIZE} px",
            "images/s": 1 / seconds,
            "us an image": seconds * 1e6,
            "share of decoder": decoder / seconds,
        }


def processor_seconds(run: Callable[[], Any]) -> float:
    """Processor time of one call: both sides of a ratio are measured in turn, and other programs do not count."""
    started = time.process_time()
    run()
    return time.process_time() - started


def drawn_file(height: int, width: int, kind: str, **options: Any) -> bytes:
    """A smooth picture with a little noise, as a file."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (24, 20), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = np.clip(smooth + generator.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noisy).save(stream, kind, **options)
    return stream.getvalue()


def png_data(content: bytes) -> bytes:
    """The deflated pixels of a PNG file."""
    parts, place = [], 8
    while place < len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] == b"IDAT":
            parts.append(content[place + 8 : place + 8 + length])
        place += 12 + length
    return b"".join(parts)


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--studies", type=int, default=400, help="studies of the made-up dataset")
    options.set_defaults(threads=1)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    copy = copy_rate()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for shapes, spread in (("square", 0), ("varied shapes", 96)):
            dataset = noise_dataset(Path(folder) / str(spread), arguments.studies, spread)
            rows += loading_rows(dataset, shapes, copy)
    rows += file_rows()
    report(f"Loading, {BATCH} studies a batch, two views of {SIZE} px", rows, json=arguments.json)


if __name__ == "__main__":
    main()
