"""Made-up studies for the tests of the dataset; run as a script, it prepares them and can be killed on the way."""

import argparse
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossray.data.store import write_dataset
from crossray.data.study import FindingMask, Study, View
from crossray.errors import UserError


@dataclass(frozen=True)
class NoiseImage:
    """Noise that its number determines; its aspect ratio too."""

    number: int
    position: str
    broken: bool = False

    @property
    def name(self) -> str:
        return f"noise-{self.number}"

    def read(self, size: int) -> View:
        if self.broken:
            raise UserError(f"{self.name}: cut off; replace the file.")
        generator = np.random.default_rng(self.number)
        longer = size + int(generator.integers(0, size // 2))
        shape = (size, longer) if self.number % 2 else (longer, size)
        mask = FindingMask("nodule", "left", "upper_lobe", "mild", "positive", *shape, (5, 7, shape[0] * shape[1] - 12))
        return View(generator.integers(0, 256, shape, dtype=np.uint8), (mask,) if self.number % 5 == 0 else ())


def noise_study(number: int, **changes: object) -> Study:
    """Study `number`: one or two views, a report, labels for two thirds."""
    views = (NoiseImage(2 * number, "frontal"), NoiseImage(2 * number + 1, "lateral"))
    values: dict[str, object] = {
        "id": f"study-{number}",
        "patient": f"patient-{number // 2}",
        "split": ("train", "train", "train", "val", "test")[number % 5],
        "findings": f"The heart is normal. Finding {number % 7} is seen. " * (1 + number % 3),
        "impression": "" if number % 4 else f"Impression {number}.",
        "indication": "pain",
        "images": views[: 1 + (number % 3 > 0)],
        "labels": None if number % 3 == 0 else {"edema": "positive", "cardiomegaly": "uncertain"},
        "extra": {"number": number},
    }
    return Study(**(values | changes))  # type: ignore[arg-type]


def noise_studies(count: int) -> list[Study]:
    return [noise_study(number) for number in range(count)]


def kill_at(operation: int) -> None:
    """Kill this process right before its fsync number `operation`, counted from 0."""
    count, fsync = -1, os.fsync

    def counted(handle: int) -> None:
        nonlocal count
        count += 1
        if count == operation:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(handle)

    os.fsync = counted


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--kill-every", type=int, default=0, help="kill at this fsync, continue, and so on to the end")
    parser.add_argument("--kill-after", type=int, default=0, help="kill after so many shards")
    arguments = parser.parse_args()
    shards = 0

    def progress(done: int, total: int) -> None:
        nonlocal shards
        shards += 1
        if shards == arguments.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    def prepare() -> None:
        write_dataset(
            arguments.out,
            noise_studies(arguments.studies),
            size=arguments.size,
            source={"name": "noise"},
            workers=arguments.workers,
            progress=progress,
        )

    kills = 0
    # later and later, because a run that is killed before its first shard is whole makes no progress
    while arguments.kill_every:
        child = os.fork()
        if child == 0:
            kill_at(arguments.kill_every + kills)
            prepare()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            sys.stdout.write(f"{kills}\n")
            sys.exit(os.WEXITSTATUS(status))
        kills += 1
    prepare()


if __name__ == "__main__":
    main()
