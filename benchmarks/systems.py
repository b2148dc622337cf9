"""Systems against each other, taken in turns: a training step and decoding as ratios to the first system.

Processor seconds of this process are counted and the smallest of all turns is kept, so that other work on the machine
disturbs the ratios little. Peak memory is that of a training step in a process of its own (`training_step.py`).

UAR reads 2 x 196 cached image tokens, whatever the encoder and the size of the images, and has the hidden layers of its
paper, four times as wide.

    python benchmarks/systems.py [--systems baseline cmn rcan] [--backbone random:resnet18_narrow] [--frozen] [--json]
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from common import parser, report
from crossray.decoding.search import DecodingConfig, generate
from crossray.models.parts.backbones import BackboneConfig
from crossray.models.registry import create_model
from crossray.text.observations import OBSERVATIONS
from decoding import IDS, TOKENS, build, images
from training_step import VOCABULARY, make_batch

#: Image tokens of a view of 112 px, and entries of their codebook (DALL-E's).
IMAGE_TOKENS, CODES = 196, 8192


def training(options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """A training step of every system on the same batch; from cached features when the encoder is frozen."""
    batch = make_batch(options.batch, options.length, options.size)
    batch.inputs.features["tokens"] = torch.randint(0, CODES, (options.batch, 2, IMAGE_TOKENS))
    backbone = BackboneConfig(
        name=options.backbone, trainable=not options.frozen, checkpoint=options.checkpoint, cls_token=options.cls_token
    )
    runs: dict[str, Callable[[], Any]] = {}
    for system in options.systems:
        torch.manual_seed(0)
        model: Any = create_model(
            system, vocabulary_size=VOCABULARY, max_length=options.length, backbone=backbone, width=options.width,
            feedforward=options.width * (4 if system == "uar" else 1), observations=OBSERVATIONS,
        ).train()  # fmt: skip
        if options.frozen and system != "uar" and "visual" not in batch.inputs.features:
            with torch.no_grad():
                features = model.prepare_features(batch.inputs.images.flatten(0, 1))
            batch.inputs.features |= {name: value.unflatten(0, (options.batch, 2)) for name, value in features.items()}
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-4, amsgrad=True)

        def step(model: Any = model, optimizer: torch.optim.Optimizer = optimizer) -> None:
            sum(model.losses(batch).values()).backward()
            optimizer.step()
            optimizer.zero_grad()

        runs[system] = step
    return runs


def decoding(options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """Beam search of every system over encoded images, without the encoder."""
    tokens = {"uar": 2 * IMAGE_TOKENS}
    encoded = {s: images(options.batch, torch.float32, tokens.get(s, TOKENS)) for s in options.systems}
    config = DecodingConfig(beam=3, max_length=options.steps, force_length=True)
    models = {system: build(system, torch.float32) for system in options.systems}
    return {
        system: lambda model=model, system=system: generate(model, encoded[system], IDS, config)  # type: ignore[misc]
        for system, model in models.items()
    }


def in_turns(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Fewest processor seconds of each run; the first turn warms up."""
    fewest = dict.fromkeys(runs, float("inf"))
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if turn:
                fewest[name] = min(fewest[name], time.process_time() - start)
    return fewest


def peak_memory(system: str, options: argparse.Namespace) -> float:
    """GB of a process that takes two training steps with a trained encoder, Python and libraries included."""
    command = [sys.executable, str(Path(__file__).with_name("training_step.py")), "--one", "--precisions", "float32"]
    command += ["--systems", system, "--backbone", options.backbone, "--repeats", "1"]
    for name in ("checkpoint", "batch", "length", "size", "threads"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["peak_gb"])


def main() -> None:
    """Print the table."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--systems", nargs="+", default=["baseline", "cmn", "rcan"], help="the first is the measure")
    options.add_argument("--backbone", default="random:resnet18_narrow", help="image encoder of the training step")
    options.add_argument("--frozen", action="store_true", help="the encoder is frozen, its features are cached")
    options.add_argument("--cls_token", action="store_true", help="a ViT's class token is a token too")
    options.add_argument("--checkpoint", type=int, default=0, help="stages of a ResNet that recompute activations")
    options.add_argument("--width", type=int, default=512, help="width of the Transformer in the training step")
    options.add_argument("--batch", type=int, default=16, help="studies in a batch, two views each")
    options.add_argument("--length", type=int, default=60, help="tokens of a report in training")
    options.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    options.add_argument("--steps", type=int, default=60, help="forced words of each decoded report")
    options.add_argument("--repeats", type=int, default=5, help="measured turns after the first")
    options.add_argument("--memory", action="store_true", help="also the peak memory of a step with a trained encoder")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    steps = in_turns(training(given), given.repeats)
    searches = in_turns(decoding(given), given.repeats)
    peaks = {system: peak_memory(system, given) for system in given.systems} if given.memory else {}
    first = given.systems[0]
    rows = []
    for system in given.systems:
        row = {
            "system": system,
            "step s": steps[system],
            "step ratio": steps[system] / steps[first],
            "decoding ms a study": searches[system] / given.batch * 1000,
            "decoding ratio": searches[system] / searches[first],
        }
        if given.memory:
            row |= {"peak GB": peaks[system], "peak ratio": peaks[system] / peaks[first]}
        rows.append(row)
    kind = "frozen" if given.frozen else "trained"
    report(f"systems over a {kind} {given.backbone}, batch {given.batch}, processor seconds", rows, json=given.json)


if __name__ == "__main__":
    main()
