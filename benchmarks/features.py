"""Caching the features of a frozen encoder: its rate beside that of the encoder alone, and what bf16 changes.

    python benchmarks/features.py --data data/iu --model runs/results/baseline-seed0 --threads 1

For validation images: images per second of processor time for the network alone on ready tensors, for the whole path
of `crossray train` (read, augment, encode, write), and for the network in bf16; and how far bf16 moves the features,
relative to their deviation over images. Measured in turns.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch

from common import machine, parser
from crossray.analysis.inputs import transform_of
from crossray.data.batches.features import build_features, transformed_images
from crossray.data.store import Dataset
from crossray.generation.generator import Generator
from speed import in_turns

BATCH = 32


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--data", required=True, help="prepared dataset")
    options.add_argument("--model", type=Path, required=True, help="run with a frozen encoder")
    options.add_argument("--images", type=int, default=256)
    options.add_argument("--repeats", type=int, default=3)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    model, dataset = Generator.from_pretrained(given.model).model.eval(), Dataset.open(given.data)
    transform = transform_of(model)
    rows = np.arange(min(given.images, dataset.images))
    pixels = [
        transformed_images(dataset, transform, rows[first : first + BATCH], torch.device("cpu"))
        for first in range(0, len(rows), BATCH)
    ]

    def network() -> list[dict[str, torch.Tensor]]:
        with torch.inference_mode():
            return [model.prepare_features(batch) for batch in pixels]

    def bf16() -> list[dict[str, torch.Tensor]]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return network()

    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "data"
        shutil.copytree(given.data, part, ignore=shutil.ignore_patterns("features", "pretrained"))
        copy = Dataset.open(part)

        def whole() -> None:
            """All images of the dataset, in half of which a variant is drawn."""
            build_features(copy, model.prepare_features, transform, "benchmark", variants=2, batch_size=BATCH)
            shutil.rmtree(part / "features")

        times = in_turns({"network": network, "bf16": bf16, "whole": whole}, given.repeats)
    rates = {name: (2 * dataset.images if name == "whole" else len(rows)) / taken for name, taken in times.items()}
    print(machine())
    share = rates["whole"] / rates["network"]
    print(f"images/s: network {rates['network']:.1f}, in bf16 {rates['bf16']:.1f}, whole path {rates['whole']:.1f}")
    print(f"the whole path reaches {share:.2f} of the network's rate")
    exact, rounded = network(), bf16()
    for name in exact[0]:
        one, other = (torch.cat([batch[name] for batch in found]).float() for found in (exact, rounded))
        moved = (one - other).pow(2).mean().sqrt() / one.std(dim=0).pow(2).mean().sqrt()
        stored = (one - one.half().float()).pow(2).mean().sqrt() / one.std(dim=0).pow(2).mean().sqrt()
        print(f"{name}: bf16 moves it by {moved:.4f} of its deviation over images, float16 storage by {stored:.5f}")


if __name__ == "__main__":
    main()
