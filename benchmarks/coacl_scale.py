"""How large the image tokens of a trained COACL are, and what its denoising attention adds to them.

python benchmarks/coacl_scale.py --model runs/coacl --data data/iu [--split val]
"""

from typing import Any

import torch
from torch import Tensor

from common import parser, report
from crossray.analysis.inputs import collator_of
from crossray.data.batches.transform import transform_inputs
from crossray.data.store import Dataset
from crossray.generation.generator import Generator

#: Studies that are looked at.
STUDIES = 64


def main() -> None:
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--model", required=True, help="folder of a trained COACL")
    options.add_argument("--data", required=True, help="prepared dataset")
    options.add_argument("--split", default="val", help="split of --data")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    generator, dataset = Generator.from_pretrained(given.model, device="cpu"), Dataset.open(given.data)
    model: Any = generator.model
    inputs = collator_of(model, dataset).inputs(dataset.rows(given.split)[:STUDIES])
    seen: list[tuple[Tensor, Tensor]] = []
    model.denoising.register_forward_hook(lambda _, given, result: seen.append((given[0], result)))
    with torch.inference_mode():
        model.encode(transform_inputs(inputs, generator.transform, train=False))
    ((tokens, result),) = seen
    added = result[:, : tokens.shape[1]] - tokens
    row = {"image tokens": float(tokens.std()), "added to them": float(added.std())}
    report("standard deviation", [row], json=given.json)


if __name__ == "__main__":
    main()
