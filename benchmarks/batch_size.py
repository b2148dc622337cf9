"""Processor time of `crossray generate` over the batch size, in turns within one run, and whether reports are equal.

    python benchmarks/batch_size.py --model run --data data --sizes 16 35 70 140 --threads 1

Every cell is the median of the rounds; `x 16` is the median of the ratios to the first batch size within a round. The
sizes run in ascending order, so that `peak MB`, the process's peak after the first round of a size, is its own.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from common import parser, peak_memory_mb, report
from crossray.data.store import Dataset
from crossray.generation.generator import Generator


def main() -> None:
    """Measure and print."""
    options = parser(__doc__ or "")
    options.add_argument("--model", required=True, help="model folder, or the folder of a training run")
    options.add_argument("--data", type=Path, required=True, help="prepared dataset")
    options.add_argument("--split", default="test", help="its split; a size that divides it leaves no small last batch")
    options.add_argument("--sizes", type=int, nargs="+", default=[16, 32, 64, 128], help="batch sizes, ascending")
    options.add_argument("--methods", nargs="+", default=["beam", "mbr"], help="decoding methods")
    options.add_argument("--rounds", type=int, default=3, help="of which the medians are taken")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    dataset = Dataset.open(chosen.data)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for method in chosen.methods:
            generator = Generator.from_pretrained(chosen.model, device="cpu", decoding={"method": method})
            seconds: dict[int, list[float]] = {size: [] for size in chosen.sizes}
            texts: dict[int, list[str]] = {}
            peaks: dict[int, float] = {}
            for _ in range(chosen.rounds):
                for size in chosen.sizes:
                    out = Path(folder, f"{method}-{size}.jsonl")
                    started = time.process_time()
                    count = generator.generate_dataset(dataset, chosen.split, out, batch_size=size)
                    seconds[size].append((time.process_time() - started) / count)
                    peaks.setdefault(size, peak_memory_mb())
                    texts[size] = [json.loads(line)["prediction"] for line in out.read_text().splitlines()[1:]]
            first = chosen.sizes[0]
            for size in chosen.sizes:
                ratios = [own / base for own, base in zip(seconds[size], seconds[first], strict=True)]
                row = {"method": method, "batch": size, "ms a study": 1000 * statistics.median(seconds[size])}
                row |= {f"x {first}": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
                differing = sum(a != b for a, b in zip(texts[size], texts[first], strict=True))
                rows.append({**row, "peak MB": peaks[size], "other reports": differing})
                print(rows[-1], flush=True)
    report("Batch size of crossray generate", rows, json=chosen.json)


if __name__ == "__main__":
    main()
