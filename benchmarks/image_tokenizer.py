"""Rate of the image tokenizer's encoder at DALL-E's size, beside the GEMM rate of the same run.

Random weights, images of 112 x 112 pixels. `share` is the share of the GEMM rate in the same number format, measured
directly before, that the convolutions reach; `same tokens` is the share of tokens equal to those in float32.

    python benchmarks/image_tokenizer.py [--batches 2 8] [--dtypes float32 bfloat16] [--layouts nchw nhwc] [--json]
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from common import gemm_rate, median_seconds, parser, report
from crossray.models.pretraining.dvae import DALLE, Encoder

SIZE = 112
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


def measure(encoder: Encoder, images: Tensor, dtype: torch.dtype, layout: str, expected: Tensor) -> dict[str, Any]:
    """One line of the table; the weights of `encoder` change to this format and layout."""
    encoder = encoder.to(dtype).to(memory_format=LAYOUTS[layout])  # type: ignore[call-overload]
    images = images.to(dtype=dtype, memory_format=LAYOUTS[layout])
    with FlopCounterMode(display=False) as counter:
        tokens = encoder(images).argmax(dim=1)
    gemm = gemm_rate(dtype)
    seconds = median_seconds(lambda: encoder(images), at_least=1.0)
    rate = counter.get_total_flops() / seconds / 1e9
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "layout": layout,
        "batch": len(images),
        "ms an image": 1000 * seconds / len(images),
        "GFLOP/s": rate,
        "GEMM GFLOP/s": gemm,
        "share": rate / gemm,
        "same tokens": float((tokens == expected).float().mean()),
    }


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    options = parser(__doc__ or "")
    options.add_argument("--batches", type=int, nargs="+", default=[2], help="images at once")
    options.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="number formats")
    options.add_argument("--layouts", nargs="+", default=list(LAYOUTS), choices=list(LAYOUTS), help="memory layouts")
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    rows = []
    for batch in chosen.batches:
        images = torch.rand(batch, DALLE.channels, SIZE, SIZE)
        for dtype in chosen.dtypes:
            for layout in chosen.layouts:
                torch.manual_seed(0)
                encoder = Encoder(DALLE).eval()
                expected = encoder(images).argmax(dim=1)
                rows.append(measure(encoder, images, getattr(torch, dtype), layout, expected))
    report("Image tokenizer's encoder at DALL-E's size", rows, json=chosen.json)


if __name__ == "__main__":
    main()
