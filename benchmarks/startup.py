"""Start-up: processor and wall time of `crossray --help`, `import crossray`, `crossray models` and one report.

Each command runs in a process of its own, `--rounds` times; the least of each is printed. The model of `generate` is a
small one with fresh weights, so that what is measured is everything but the model.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUN = [sys.executable, "-c", "from crossray.cli import main; main()"]


def made(folder: Path) -> tuple[Path, Path]:
    """A model folder and a picture."""
    import numpy as np
    from PIL import Image

    from crossray.data.batches.transform import ImageTransform
    from crossray.models.base import ReportModel
    from crossray.models.parts.backbones import BackboneConfig
    from crossray.models.registry import create_model
    from crossray.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(["The heart is normal.", "The lungs are clear."], min_count=1)
    model = create_model(
        "baseline", vocabulary_size=tokenizer.vocabulary_size, max_length=20, layers=1, width=32, heads=2,
        feedforward=32, backbone=BackboneConfig(name="random:resnet_tiny", trainable=False),
    )  # fmt: skip
    assert isinstance(model, ReportModel)
    model.tokenizer, model.transform = tokenizer, ImageTransform(size=64, resize=64)
    model.save_pretrained(folder / "model", {"recipe": {"decoding": {"beam": 1, "max_length": 10}}})
    picture = np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
    Image.fromarray(picture).save(folder / "a.png")
    return folder / "model", folder / "a.png"


def measured(command: list[str], rounds: int) -> tuple[float, float]:
    """Least processor and wall time of a command in seconds."""
    times = []
    for _ in range(rounds):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        times.append((used, time.perf_counter() - start))
    return min(cpu for cpu, _ in times), min(wall for _, wall in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, picture = made(Path(folder))
        for name, command in (
            ("python -c pass", [sys.executable, "-c", "pass"]),
            ("import crossray", [sys.executable, "-c", "import crossray"]),
            ("crossray --help", [*RUN, "--help"]),
            ("crossray models", [*RUN, "models"]),
            ("crossray generate a.png", [*RUN, "generate", "--model", str(model), str(picture), "--device", "cpu"]),
        ):
            cpu, wall = measured(command, chosen.rounds)
            print(f"{name:28} processor {cpu:6.2f} s   wall {wall:6.2f} s   load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
