"""Sinkhorn attention against softmax attention of the same shape, projections included: forward, and with backward.

Both kinds take turns in one process, so that their ratio holds on a busy machine. `error` is the marginal error of the
plan: the share of the prompts' mass that is not where it belongs.
"""

import statistics
import time
from typing import Any

import torch

from common import parser, report
from crossray.layers.sinkhorn import SinkhornAttention, sinkhorn


def measure(prompts: int, heads: int, options: Any) -> dict[str, Any]:
    """One line of the table."""
    torch.manual_seed(0)
    width, shape = options.width, (options.batch, options.positions, options.width)
    modules = {
        kind: SinkhornAttention(width, options.text_width, width, heads, kind, iterations=options.iterations)
        for kind in ("softmax", "sinkhorn")
    }
    visual = torch.randn(shape, requires_grad=True)
    text = torch.randn(options.batch, prompts, options.text_width)
    mask = torch.arange(prompts)[None] < torch.linspace(prompts / 4, prompts, options.batch)[:, None]
    times: dict[str, list[float]] = {f"{kind} {part}": [] for kind in modules for part in ("forward", "step")}
    for turn in range(options.repeats + 1):
        for kind, module in modules.items():
            start = time.perf_counter()
            with torch.no_grad():
                module(visual, text, mask)
            middle = time.perf_counter()
            module(visual, text, mask)[0].sum().backward()
            end = time.perf_counter()
            if turn:  # the first warms up
                times[f"{kind} forward"].append(middle - start)
                times[f"{kind} step"].append(end - middle)
    median = {name: statistics.median(values) for name, values in times.items()}
    # queries and keys that agree in places, as training makes them, are harder than random ones
    cost = 1 - torch.nn.functional.cosine_similarity(visual[:, :, None, :64], text[:, None, :, :64], dim=-1)
    return {
        "prompts": prompts,
        "heads": heads,
        **{f"{name} ms": round(1000 * value, 1) for name, value in median.items()},
        "forward ratio": round(median["sinkhorn forward"] / median["softmax forward"], 2),
        "step ratio": round(median["sinkhorn step"] / median["softmax step"], 2),
        "error": float(f"{sinkhorn(cost.detach(), mask, iterations=options.iterations)[1].max():.2g}"),
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--prompts", type=int, nargs="+", default=[75, 20], help="75 entities, 20 sentences")
    options.add_argument("--heads", type=int, nargs="+", default=[1, 8])
    options.add_argument("--positions", type=int, default=49, help="image positions")
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--width", type=int, default=1024)
    options.add_argument("--text-width", type=int, default=768, help="channels of a prompt")
    options.add_argument("--iterations", type=int, default=50, help="at most so many of Sinkhorn's")
    options.add_argument("--repeats", type=int, default=9, help="measured turns after the first")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    rows = [measure(prompts, heads, given) for heads in given.heads for prompts in given.prompts]
    title = f"attention of {given.positions} positions, width {given.width}, batch {given.batch}"
    report(title, rows, json=given.json)


if __name__ == "__main__":
    main()
