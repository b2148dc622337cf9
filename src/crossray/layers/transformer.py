"""Pre-norm Transformer encoder and decoder of the R2Gen family (docs/reference/r2gen-family.md).

Shapes: B studies, N = B x beams rows, T text positions, S memory positions, D width, h heads.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from crossray.layers.attention import CrossAttention, SelfAttention
from crossray.layers.cache import Cache
from crossray.layers.dropout import Dropout

Norm = Literal["standard", "r2gen"]


class R2GenNorm(nn.Module):
    """Layer normalization as in R2Gen's code: unbiased standard deviation, with epsilon added to it.

    Args:
        width: D; `eps`: added to the standard deviation.
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        deviation, mean = torch.std_mean(x.float(), dim=-1, keepdim=True)
        return self.weight * (x - mean) / (deviation + self.eps) + self.bias


def layer_norm(width: int, norm: Norm) -> nn.Module:
    """Create a layer normalization of type `norm`."""
    return R2GenNorm(width) if norm == "r2gen" else nn.LayerNorm(width)


class FeedForward(nn.Module):
    """Two linear maps, D -> feedforward -> D, with ReLU and dropout in between.

    Args:
        width: D; `feedforward`: width of the hidden layer.
        dropout: dropout probability of the hidden units in training.
    """

    def __init__(self, width: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(width, feedforward)
        self.dropout = Dropout(dropout)
        self.contract = nn.Linear(feedforward, width)
        nn.init.xavier_uniform_(self.expand.weight)
        nn.init.xavier_uniform_(self.contract.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, D) -> (N, T, D)."""
        return self.contract(self.dropout(self.expand(x).relu()))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each as x + dropout(f(norm(x))).

    Args:
        width: D; `heads`: h; `feedforward`: hidden width; `dropout`: dropout probability in all
            parts; `norm`: type of normalization.
    """

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, norm: Norm) -> None:
        super().__init__()
        self.attention_norm = layer_norm(width, norm)
        self.attention = SelfAttention(width, heads, dropout)
        self.feedforward_norm = layer_norm(width, norm)
        self.feedforward = FeedForward(width, feedforward, dropout)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, D); `mask` (B, 1, 1, S) bool, True where a position is valid."""
        x = x + self.dropout(self.attention(self.attention_norm(x), mask=mask))
        return x + self.dropout(self.feedforward(self.feedforward_norm(x)))


class Encoder(nn.Module):
    """A stack of encoder layers with a final normalization.

    Args:
        layers: number of layers; `width`: D; `heads`: h; `feedforward`: hidden width; `dropout`: dropout
            probability in all layers.
        norm: type of layer normalization.
    """

    def __init__(
        self, layers: int, width: int, heads: int, feedforward: int, dropout: float, norm: Norm = "standard"
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads, feedforward, dropout, norm) for _ in range(layers))
        self.norm = layer_norm(width, norm)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, D); `mask` (B, S) bool, True where a position is valid, somewhere in every row."""
        visible = mask[:, None, None]
        for layer in self.layers:
            x = layer(x, visible)
        return self.norm(x)


@dataclass(frozen=True)
class Reading:
    """The inputs of one decoder layer in one call.

    Attributes:
        keys: keys of the memory, (B, h, S, D / h); `values`: its values, in the same shape.
        memory_mask: (B, 1, 1, S) bool, True where a position is valid; None if all are.
        bias: added to the scaled scores of the cross-attention, broadcastable to (N, h, T, S).
        visible: with a cache, the mask of the text positions to which each new one may attend.
        cache: keys and values of the text so far; None if the whole text is given, with causal attention.
        layer: index of the layer in the cache.
        need_weights: also return the cross-attention weights.
    """

    keys: Tensor
    values: Tensor
    memory_mask: Tensor | None
    bias: Tensor | None
    visible: Tensor | None
    cache: Cache | None
    layer: int
    need_weights: bool

    def text(self, attention: SelfAttention, x: Tensor) -> Tensor:
        """Apply self-attention of the positions (N, T, D) to the text up to them."""
        return attention(x, mask=self.visible, causal=self.cache is None, cache=self.cache, layer=self.layer)

    def memory(self, attention: CrossAttention, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Apply cross-attention to the memory; also return the weights (N, h, T, S) or None."""
        return attention(
            x, self.keys, self.values, mask=self.memory_mask, bias=self.bias, need_weights=self.need_weights
        )


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention and feed-forward, each as x + dropout(f(norm(x))).

    Args:
        width: D; `heads`: h; `feedforward`: hidden width; `dropout`: dropout probability in all
            parts; `norm`: type of normalization.
        memory_width: width of the memory.
    """

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, norm: Norm, memory_width: int) -> None:
        super().__init__()
        self.attention_norm = layer_norm(width, norm)
        self.attention = SelfAttention(width, heads, dropout)
        self.cross_norm = layer_norm(width, norm)
        self.cross = CrossAttention(width, heads, dropout, memory_width)
        self.feedforward_norm = layer_norm(width, norm)
        self.feedforward = FeedForward(width, feedforward, dropout)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, read: Reading) -> tuple[Tensor, Tensor | None]:
        """(N, T, D) -> (N, T, D) and cross-attention weights (N, h, T, S) or None."""
        x = x + self.dropout(read.text(self.attention, self.attention_norm(x)))
        attended, weights = read.memory(self.cross, self.cross_norm(x))
        x = x + self.dropout(attended)
        return x + self.dropout(self.feedforward(self.feedforward_norm(x))), weights


class DecoderStack(nn.Module):
    """A stack of decoder layers, with the same call for teacher forcing and generation.

    Args:
        layers: layers that take the positions and a `Reading`, and have their cross-attention as attribute `cross`.
        norm: normalization after the last layer.
    """

    def __init__(self, layers: Iterable[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def start(self, memory: Tensor, memory_mask: Tensor, beams: int = 1) -> Cache:
        """Create an empty cache for `beams` rows per study, with the keys and values of the memory.

        Args:
            memory: (B, S, memory width).
            memory_mask: (B, S) bool, True where a position is valid.
            beams: number of rows per study.
        """
        pairs = [layer.cross.keys_values(memory) for layer in self.layers]  # type: ignore[union-attr, operator]
        return Cache(
            beams=beams,
            length=0,
            memory_keys=[keys.contiguous() for keys, _ in pairs],
            memory_values=[values.contiguous() for _, values in pairs],
            memory_mask=None if bool(memory_mask.all()) else memory_mask[:, None, None],
        )

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        memory_mask: Tensor,
        cache: Cache | None = None,
        *,
        bias: Tensor | None = None,
        need_attention: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute the hidden states of the positions in `x`; no position depends on a later one.

        Args:
            x: (N, T, D) embedded tokens; with a cache, those after the cached positions.
            memory: (B, S, memory width); ignored with a cache, which contains its keys and values.
            memory_mask: (B, S) bool, True where a position is valid.
            cache: from `start`; updated in place.
            bias: added to the scaled scores of every cross-attention, broadcastable to (N, h, T, S).
            need_attention: also return the cross-attention weights.

        Returns:
            (N, T, D), and the weights (N, layers, h, T, S) or None.
        """
        visible: Tensor | None = None
        if cache is None:
            pairs = [layer.cross.keys_values(memory) for layer in self.layers]  # type: ignore[union-attr, operator]
            looks: Tensor | None = memory_mask[:, None, None]
        else:
            pairs = list(zip(cache.memory_keys, cache.memory_values, strict=True))
            looks = cache.memory_mask
            visible = cache.extend(x.shape[1], x.device)
        maps = []
        for index, (layer, (keys, values)) in enumerate(zip(self.layers, pairs, strict=True)):
            x, weights = layer(x, Reading(keys, values, looks, bias, visible, cache, index, need_attention))
            if weights is not None:
                maps.append(weights)
        return self.norm(x), torch.stack(maps, dim=1) if maps else None


class Decoder(DecoderStack):
    """A stack of pre-norm decoder layers with a final normalization.

    Args:
        layers: number of layers; `width`: D; `heads`: h; `feedforward`: hidden width; `dropout`: dropout
            probability in all layers.
        norm: type of layer normalization.
        memory_width: width of the memory; by default, D.
    """

    def __init__(
        self,
        layers: int,
        width: int,
        heads: int,
        feedforward: int,
        dropout: float,
        norm: Norm = "standard",
        memory_width: int | None = None,
    ) -> None:
        super().__init__(
            (DecoderLayer(width, heads, feedforward, dropout, norm, memory_width or width) for _ in range(layers)),
            layer_norm(width, norm),
        )


def prepend_prompt(tokens: Tensor, prompt: Tensor | None, cache: Cache | None) -> tuple[Tensor, int]:
    """Prepend the prompt to the first tokens of a text.

    Args:
        tokens: (N, T) int64, as in `ReportModel.step`.
        prompt: (B, P) int64 tokens, or None.
        cache: cache of the text; the prompt is only prepended while it is empty.

    Returns:
        (N, P + T) int64 and P, or `tokens` and 0; the number of positions before the report.
    """
    if prompt is None or (cache is not None and cache.length > 0):
        return tokens, 0
    repeated = prompt.repeat_interleave(tokens.shape[0] // prompt.shape[0], dim=0)
    return torch.cat([repeated, tokens], dim=1), prompt.shape[1]
