"""Chooses the next tokens among all continuations: the best ones, or one drawn at random."""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from crossray.decoding.config import DecodingConfig


class Choice(Protocol):
    """Chooses among the continuations of each study."""

    def __call__(self, totals: Tensor, position: int) -> Tensor:
        """Indices (B, K) of the chosen ones among (B, K x vocabulary) log-probabilities of hypotheses."""

    def select(self, studies: Tensor) -> None:
        """Keep only these studies, (B',) int64."""


class Best:
    """The K most probable continuations; ties are broken by index on every device."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, totals: Tensor, position: int) -> Tensor:
        """See `Choice`."""
        if self.count == 1:
            return totals.argmax(dim=1, keepdim=True)
        # topk does not define the order of equal values; argmax returns the first, and a beam is narrow
        remaining = totals.clone()
        chosen = []
        for _ in range(self.count):
            best = remaining.argmax(dim=1, keepdim=True)
            chosen.append(best)
            remaining.scatter_(1, best, -math.inf)
        return torch.cat(chosen, dim=1)

    def select(self, studies: Tensor) -> None:
        """See `Choice`."""


class Sample:
    """One continuation, drawn after temperature, top-k and top-p, with random numbers of its own for each study.

    All numbers are drawn at the start, on the CPU, from one generator per study, so the result depends neither on the
    batch nor on the device.
    """

    def __init__(self, config: DecodingConfig, seeds: Sequence[int], device: torch.device) -> None:
        self.config = config
        draws = [torch.rand(config.max_length, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        self.draws = torch.stack(draws).to(device)

    def __call__(self, totals: Tensor, position: int) -> Tensor:
        """See `Choice`; K is 1, and the contribution of earlier words to `totals` cancels out."""
        return draw(totals, self.draws[:, position, None], self.config)

    def select(self, studies: Tensor) -> None:
        """See `Choice`."""
        self.draws = self.draws.index_select(0, studies)


def draw(totals: Tensor, numbers: Tensor, config: DecodingConfig) -> Tensor:
    """Draw one continuation of each row after temperature, top-k and top-p.

    Args:
        totals: (N, vocabulary) log-probabilities, up to a constant per row; -inf for forbidden tokens.
        numbers: (N, 1) random numbers in [0, 1).
        config: the decoding settings.

    Returns:
        (N, 1) int64.
    """
    ordered, order = torch.sort(totals / config.temperature, dim=1, descending=True, stable=True)
    probabilities = torch.softmax(ordered, dim=1)
    if config.top_k:
        probabilities[:, config.top_k :] = 0
    if config.top_p < 1:
        share = probabilities / probabilities.sum(dim=1, keepdim=True)
        before = share.cumsum(dim=1) - share
        probabilities[before >= config.top_p] = 0
    cumulative = probabilities.cumsum(dim=1)
    drawn = torch.searchsorted(cumulative, numbers * cumulative[:, -1:], right=True)
    # rounding can move the draw past the last word with nonzero probability; an ended study has no such word
    last = ((probabilities > 0).sum(dim=1, keepdim=True) - 1).clamp_min(0)
    return order.gather(1, torch.minimum(drawn, last))
