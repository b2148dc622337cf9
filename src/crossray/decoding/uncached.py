"""Decoding without a cache, as a reference for incremental decoding."""

import torch
from torch import Tensor

from crossray.data.batches.batch import Inputs
from crossray.layers.cache import Cache
from crossray.models.base import Encoded, Guide, ReportModel, Step


class Uncached(ReportModel):
    """Wraps a system so that each step reads the whole prefix again, as in teacher forcing.

    A new system is correct if `generate` gives the same tokens with and without this wrapper.
    """

    def __init__(self, model: ReportModel) -> None:
        super().__init__()
        self.model = model
        self.config = model.config
        self.tokenizer, self.transform = model.tokenizer, model.transform

    def encode(self, inputs: Inputs, guide: Guide | None = None) -> Encoded:
        """See the wrapped system."""
        return self.model.encode(inputs, guide)

    def start(self, encoded: Encoded, beams: int = 1) -> Cache:
        """A cache that contains only the words."""
        rows = encoded.memory.shape[0] * beams
        words = torch.empty(rows, 0, dtype=torch.long, device=encoded.memory.device)
        return Cache(beams, 0, memory_keys=[], memory_values=[], memory_mask=None, state={"words": words})

    def step(
        self, tokens: Tensor, encoded: Encoded, cache: Cache | None = None, *, need_attention: bool = False
    ) -> Step:
        """Logits after `tokens`, from the whole prefix and a copy of the image's memory for every row."""
        if cache is None:
            return self.model.step(tokens, encoded, need_attention=need_attention)
        words = torch.cat([cache.state["words"], tokens], dim=1)
        cache.state["words"] = words
        cache.length = words.shape[1]
        repeated = encoded.apply(lambda tensor: tensor.repeat_interleave(cache.beams, dim=0))
        whole = self.model.step(words, repeated, need_attention=need_attention)
        new = slice(words.shape[1] - tokens.shape[1], None)
        attention = None if whole.cross_attention is None else whole.cross_attention[:, :, :, new]
        return Step(whole.logits[:, new], cache, attention)
