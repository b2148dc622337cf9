"""Time and efficiency of writing reports, without the image encoder.

Random weights at the size of the published systems: 3 + 3 layers of 512, vocabulary 760, two views of 7 x 7 tokens, and
60 forced words a report. `share` is the share of the GEMM rate of the same run that the matrix products of the search
reach; `equal` is the share of words that a search without cache finds too.

    python benchmarks/decoding.py [--systems baseline cmn] [--dtypes float32 bfloat16] [--json]
"""

import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from common import gemm_rate, median_seconds, parser, report
from crossray.decoding.search import DecodingConfig, SpecialIds, generate
from crossray.decoding.uncached import Uncached
from crossray.models.base import Encoded, ReportModel
from crossray.models.parts.backbones import BackboneConfig
from crossray.models.registry import create_model

IDS = SpecialIds(pad=0, bos=1, eos=2, unk=3)
WIDTH, TOKENS, VOCABULARY = 512, 98, 760


def build(system: str, dtype: torch.dtype) -> ReportModel:
    """A system with random weights, its logits sharpened so that words do not differ by rounding alone."""
    torch.manual_seed(0)
    backbone = BackboneConfig(name="random:resnet_tiny", trainable=False)
    model = create_model(system, vocabulary_size=VOCABULARY, backbone=backbone)
    assert isinstance(model, ReportModel)
    for name, parameter in model.named_parameters():
        if name == "vocabulary.weight":
            parameter.data.mul_(8)
    return model.requires_grad_(False).eval().to(dtype)


def images(studies: int, dtype: torch.dtype, tokens: int = TOKENS) -> Encoded:
    """What an encoder gives for two views: normalized random vectors, `tokens` of them."""
    memory = torch.randn(studies, tokens, WIDTH, generator=torch.Generator().manual_seed(1)).to(dtype)
    return Encoded(memory, torch.ones(studies, tokens, dtype=torch.bool), memory[:, :2])


def measure(system: str, dtype: torch.dtype, config: DecodingConfig, studies: int, check: bool) -> dict[str, Any]:
    """One line of the table."""
    model, encoded = build(system, dtype), images(studies, dtype)

    def run() -> list[list[int]]:
        return [written.tokens for written in generate(model, encoded, IDS, config)]

    with FlopCounterMode(display=False) as counter:
        words = run()
    seconds = median_seconds(run, at_least=5.0, repeats=5)
    rate = counter.get_total_flops() / seconds / 1e9
    row = {
        "system": system,
        "dtype": str(dtype).removeprefix("torch."),
        "search": f"beam {config.beam}" if config.method == "beam" else config.method,
        "batch": studies,
        "ms a study": seconds * 1000 / studies,
        "ms a step": seconds * 1000 / config.max_length,
        "GFLOP/s": rate,
        "share": rate / gemm_rate(dtype),
    }
    if check:
        started = time.perf_counter()
        uncached = generate(Uncached(model), encoded, IDS, config)
        row["uncached ms a study"] = (time.perf_counter() - started) * 1000 / studies
        same = [
            a == b for ours, other in zip(words, uncached, strict=True) for a, b in zip(ours, other.tokens, strict=True)
        ]
        row["equal"] = sum(same) / len(same)
    return row


def main() -> None:
    """Print the table."""
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--systems", nargs="+", default=["baseline", "cmn"], help="registered systems")
    options.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="element types of the weights")
    options.add_argument("--batch", type=int, default=16, help="studies at once")
    options.add_argument("--beam", type=int, default=3, help="width of the beam search")
    options.add_argument("--steps", type=int, default=60, help="forced words of each report")
    options.add_argument("--check", action="store_true", help="also search without cache and compare (minutes)")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    forced: dict[str, Any] = {"max_length": arguments.steps, "force_length": True}
    searches = [DecodingConfig(beam=arguments.beam, **forced), DecodingConfig(method="greedy", **forced)]
    rows = [
        measure(system, getattr(torch, dtype), config, arguments.batch, arguments.check and config.method == "beam")
        for system in arguments.systems
        for dtype in arguments.dtypes
        for config in searches
    ]
    report("report decoding without the encoder", rows, json=arguments.json)


if __name__ == "__main__":
    main()
