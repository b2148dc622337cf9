"""A training step of the systems against their image encoder alone: time and peak memory.

Every row is measured in a process of its own, because peak memory is a process's. The encoder alone runs forward and
backward on the same images, in the same process, right before the step: their ratio is what a fast step is judged by.
`processor_s` is the processor's time of a step over all threads; with one thread it compares systems on a busy machine.
"""

import json
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from common import gemm_rate, parser, peak_memory_mb, report
from crossray.data.batches.batch import Batch, Guide, Inputs, Targets
from crossray.models.parts.backbones import BackboneConfig
from crossray.models.registry import create_model

#: Multiply-adds x 2 of ResNet-101 on one 224 x 224 image; backward costs twice as much again.
TRUNK_GFLOP = 15.6
VOCABULARY = 760


def make_batch(studies: int, length: int, size: int) -> Batch:
    """Random studies of two views with reports of `length` tokens."""
    tokens = torch.randint(4, VOCABULARY, (studies, length))
    return Batch(
        inputs=Inputs(
            images=torch.randn(studies, 2, 3, size, size),
            image_size=torch.full((studies, 2, 2), size),
            view_mask=torch.ones(studies, 2, dtype=torch.bool),
            view_position=torch.zeros(studies, 2, dtype=torch.long),
        ),
        guide=Guide(None, (), ()),
        targets=Targets(tokens, torch.ones_like(tokens, dtype=torch.bool), torch.arange(studies)),
    )


def measure(system: str, dtype: str, options: Any) -> dict[str, Any]:
    """Median seconds of the encoder alone and of a whole step, taken in turns, and the peak memory of this process."""
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    backbone = BackboneConfig(name=options.backbone, checkpoint=options.checkpoint)
    model: Any = create_model(system, vocabulary_size=VOCABULARY, max_length=options.length, backbone=backbone).train()
    batch = make_batch(options.batch, options.length, options.size)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9, amsgrad=True)
    precision = torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16")

    def encoder() -> None:
        with precision:
            tokens, _ = model.backbone(batch.inputs.images.flatten(0, 1))
        tokens.backward(torch.ones_like(tokens))
        optimizer.zero_grad()

    def step() -> None:
        with precision:
            loss = torch.stack([*model.losses(batch).values()]).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    times: dict[str, list[float]] = {"encoder": [], "step": [], "step on processor": []}
    for turn in range(options.repeats + 1):
        for name, run in (("encoder", encoder), ("step", step)):
            start, used = time.perf_counter(), time.process_time()
            run()
            if turn == 0:  # warms up
                continue
            times[name].append(time.perf_counter() - start)
            if name == "step":
                times["step on processor"].append(time.process_time() - used)
    alone, whole = statistics.median(times["encoder"]), statistics.median(times["step"])
    rate = gemm_rate(dtype, options.threads)
    trunk = 3 * TRUNK_GFLOP * (options.size / 224) ** 2 * 2 * options.batch
    return {
        "system": system,
        "precision": dtype,
        "encoder_s": round(alone, 3),
        "step_s": round(whole, 3),
        "processor_s": round(statistics.median(times["step on processor"]), 3),
        "step / encoder": round(whole / alone, 3),
        "images/s": round(2 * options.batch / whole, 2),
        "peak_gb": round(peak_memory_mb() / 1000, 2),
        "gemm_gflops": round(rate, 1),
        "share of gemm": round(trunk / whole / rate, 3) if options.backbone == "random:resnet101" else None,
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--systems", nargs="+", default=["baseline", "cmn"], help="systems to measure")
    options.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"], help="float32, bfloat16")
    options.add_argument(
        "--backbone",
        default="random:resnet101",
        help="image encoder; the share of the GEMM rate is of ResNet-101's products, so only that one has it",
    )
    options.add_argument("--checkpoint", type=int, default=2, help="stages of the encoder that recompute activations")
    options.add_argument("--batch", type=int, default=16, help="studies in a batch, two views each")
    options.add_argument("--length", type=int, default=60, help="tokens of a report")
    options.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    options.add_argument("--repeats", type=int, default=3, help="measured steps after the first")
    options.add_argument("--one", action="store_true", help="measure the first system and precision in this process")
    given = options.parse_args()
    if given.one:
        print(json.dumps(measure(given.systems[0], given.precisions[0], given)))
        return
    rows = []
    for precision in given.precisions:
        for system in given.systems:
            command = [sys.executable, __file__, "--one"]
            command += ["--systems", system, "--precisions", precision, "--backbone", given.backbone]
            for name in ("checkpoint", "batch", "length", "size", "repeats", "threads"):
                command += [f"--{name}", str(getattr(given, name))]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    report(f"training step, batch {given.batch}, {given.length} tokens", rows, json=given.json)


if __name__ == "__main__":
    main()
