"""Samples several reports of each study at once, which share the keys and values of its image.

Shapes: B studies, K samples per study, N = B x K rows, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossray.decoding.choice import draw
from crossray.decoding.config import DecodingConfig
from crossray.decoding.constraints import Constraints, SpecialIds
from crossray.layers.packed import mixed_precision, packed_weights
from crossray.models.base import Encoded, ReportModel

#: Ended samples, and studies whose samples have all ended, are dropped when they reach this share of all.
_IDLE_SHARE = 1 / 8


@dataclass
class Samples:
    """Sampled reports.

    Attributes:
        tokens: (B, K, T) int64, including eos if the model ended the report; 0 after the end.
        length: (B, K) int64, number of tokens of each, including eos.
        log_probabilities: (B, K, T), the model's log-probability of each token; 0 after the end.
    """

    tokens: Tensor
    length: Tensor
    log_probabilities: Tensor


def sample(
    model: ReportModel, encoded: Encoded, ids: SpecialIds, config: DecodingConfig, count: int, seeds: Sequence[int]
) -> Samples:
    """Draw `count` reports of each study, with random numbers of its own for each study.

    All numbers are drawn at the start, on the CPU, from one generator per study. The samples therefore depend neither
    on the batch nor on the device, and the first one is the result of method "sample".

    Args:
        model: the system, in eval mode.
        encoded: B studies.
        ids: special tokens of its vocabulary.
        config: temperature, top_k, top_p and the restrictions.
        count: K.
        seeds: random seed of each study.
    """
    studies, device, room = encoded.memory.shape[0], encoded.memory.device, config.max_length
    numbers = torch.stack([torch.rand(count, room, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    found = Samples(
        tokens=torch.zeros(studies, count, room, dtype=torch.long, device=device),
        length=torch.full((studies, count), room, dtype=torch.long, device=device),
        log_probabilities=torch.zeros(studies, count, room, device=device),
    )
    numbers = numbers.to(device)
    with mixed_precision(device, config.bf16), packed_weights(model):
        _draw_all(model, encoded, ids, config, numbers, found)
    return found


def _draw_all(
    model: ReportModel, encoded: Encoded, ids: SpecialIds, config: DecodingConfig, numbers: Tensor, found: Samples
) -> None:
    studies, count, room = found.tokens.shape
    device = found.tokens.device
    # remaining rows: their studies (B', 1) and sample indices (B', K')
    place = torch.arange(studies, device=device)[:, None]
    column = torch.arange(count, device=device).expand(studies, -1)
    latest = torch.full((studies, count), ids.bos, dtype=torch.long, device=device)
    going = torch.ones(studies, count, dtype=torch.bool, device=device)
    cache = model.start(encoded)
    cache.reserved = room + (0 if encoded.prompt is None else encoded.prompt.shape[1])
    constraints = None
    for position in range(room):
        if position == 0:
            # the samples of a study are still equal: one of them reads the prompt and bos
            logits = model.step(latest[:, :1], encoded, cache).logits[:, -1].repeat_interleave(count, dim=0)
            cache.widen(count, apart=True)
        else:
            logits = model.step(latest.view(-1, 1), encoded, cache).logits[:, -1]
        constraints = constraints or Constraints(ids, config, logits.shape[-1], device)
        probable = constraints(logits, found.tokens[place, column, :position].flatten(0, 1))
        latest = draw(probable, numbers[place, column, position].view(-1, 1), config).view_as(going)
        chosen = probable.gather(1, latest.view(-1, 1)).view_as(going)
        found.tokens[place, column, position] = latest.masked_fill(~going, 0)
        found.log_probabilities[place, column, position] = chosen.masked_fill(~going, 0.0)
        ending = going & (latest == ids.eos)
        found.length[place, column] = torch.where(ending, position + 1, found.length[place, column])
        going = going & ~ending
        left = going.any(dim=1).nonzero()[:, 0]
        if not len(left):
            break
        if len(going) - len(left) >= _IDLE_SHARE * len(going):
            place, column, going, latest = place[left], column[left], going[left], latest[left]
            encoded = encoded.select(left)
            cache.select(left)
        width = int(going.sum(dim=1).amax())
        if going.shape[1] - width >= _IDLE_SHARE * going.shape[1]:
            # running samples come first; a study with fewer of them keeps some ended ones
            kept = going.int().argsort(dim=1, descending=True, stable=True)[:, :width]
            column, going, latest = column.gather(1, kept), going.gather(1, kept), latest.gather(1, kept)
            cache.narrow(kept)
