"""Multi-head attention for teacher forcing and for incremental decoding.

Shapes: B studies, N = B x beams rows, h heads of d channels, T queries, S keys, D = h * d.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.layers.cache import Cache
from crossray.layers.dropout import dropout as drop

#: Maximum number of queries, as for the next token of a narrow beam, for which two plain products are faster on a CPU
#: than the fused kernel.
_FEW_QUERIES = 4


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Scaled dot-product attention.

    Args:
        query: queries (B, h, T, d).
        key: keys (B, h, S, d).
        value: values (B, h, S, d).
        mask: bool, broadcastable to (B, h, T, S), True where a query may attend; at least one key per query.
        bias: float, broadcastable to (B, h, T, S), added to the scaled scores.
        causal: whether query t attends only to keys up to t; cannot be combined with `mask` or `bias`.
        dropout: dropout probability of the weights.
        need_weights: also return the weights, before dropout.

    Returns:
        The attended values (B, h, T, d), and the weights (B, h, T, S) in float32 or None.
    """
    if bias is not None:
        bias = bias.to(query.dtype)
        mask = bias if mask is None else bias.masked_fill(~mask, -math.inf)
    on_processor = query.device.type == "cpu"
    few = on_processor and query.shape[-2] <= _FEW_QUERIES and not torch.is_grad_enabled()
    # with dropout, PyTorch uses the same products on a CPU, but its dropout is slow
    if not (need_weights or few or (on_processor and dropout)):
        return F.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal=causal), None
    scores = (query @ key.transpose(-2, -1)).float() / math.sqrt(query.shape[-1])
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    weights = scores.softmax(dim=-1)
    attended = drop(weights.to(value.dtype), dropout) @ value
    return attended, weights if need_weights else None


class SelfAttention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values.

    Args:
        width: D; `heads`: h, a divisor of it.
        dropout: dropout probability of the attention weights in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.project = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        for weight in (*self.project.weight.chunk(3), self.output.weight):
            nn.init.xavier_uniform_(weight)

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Attend within (N, T, D), or from it to all positions of layer `layer` in `cache`.

        Args:
            x: (N, T, D).
            mask: result of `Cache.extend`; without a cache, (N, 1, 1, T) bool, True where a position is valid.
            causal: whether no position attends to a later one; only without a cache.
            cache: state with room for these T positions.
            layer: index of this layer in the cache.
        """
        rows, length, width = x.shape
        beams = 1 if cache is None else cache.mixed
        parts = self.project(x).view(rows // beams, beams, length, 3, self.heads, width // self.heads)
        query, key, value = parts.unbind(3)
        # keys and values: position first, then beam, like the slots of the cache
        query = query.flatten(1, 2).transpose(1, 2)
        key = key.transpose(1, 2).flatten(1, 2).transpose(1, 2)
        value = value.transpose(1, 2).flatten(1, 2).transpose(1, 2)
        if cache is not None:
            key, value = cache.write(layer, key, value)
        dropout = self.dropout if self.training else 0.0
        attended, _ = attend(query, key, value, mask=mask, causal=causal, dropout=dropout)
        return self.output(attended.transpose(1, 2).reshape(rows, length, width))


class CrossAttention(nn.Module):
    """Multi-head cross-attention of a text to the memory of its study, whose keys and values all beams share.

    Args:
        width: D; `heads`: h, a divisor of it.
        dropout: dropout probability of the attention weights in training.
        memory_width: width of the memory; by default, `width`.
        bias: whether the linear maps have biases.
    """

    def __init__(
        self, width: int, heads: int, dropout: float, memory_width: int | None = None, bias: bool = True
    ) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width, bias=bias)
        self.project = nn.Linear(memory_width or width, 2 * width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)
        for weight in (self.query.weight, *self.project.weight.chunk(2), self.output.weight):
            nn.init.xavier_uniform_(weight)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Compute keys and values, (B, h, S, d) each, of a memory (B, S, memory width)."""
        studies, length, _ = memory.shape
        parts = self.project(memory).view(studies, length, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1]

    def forward(
        self,
        x: Tensor,
        keys: Tensor,
        values: Tensor,
        *,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from (N, T, D) to the keys and values of B studies.

        Args:
            x: (N, T, D); the rows of one study are adjacent.
            keys: (B, h, S, d), from `keys_values`.
            values: (B, h, S, d), from `keys_values`.
            mask: (B, 1, 1, S) bool, True where a position is valid.
            bias: added to the scaled scores, broadcastable to (N, h, T, S).
            need_weights: also return the weights.

        Returns:
            (N, T, D), and the weights (N, h, T, S) or None.
        """
        rows, length, width = x.shape
        studies = keys.shape[0]
        query = self.query(x).view(studies, -1, self.heads, width // self.heads).transpose(1, 2)
        if bias is not None:
            # the queries of a study's beams are adjacent
            bias = bias.expand(rows, -1, length, -1).unflatten(0, (studies, -1)).transpose(1, 2).flatten(2, 3)
        dropout = self.dropout if self.training else 0.0
        attended, weights = attend(
            query, keys, values, mask=mask, bias=bias, dropout=dropout, need_weights=need_weights
        )
        if weights is not None:
            weights = weights.unflatten(2, (-1, length)).transpose(1, 2).flatten(0, 1)
        return self.output(attended.transpose(1, 2).reshape(rows, length, width)), weights
