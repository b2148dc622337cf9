"""Embeddings of tokens and image features for a Transformer (docs/reference/r2gen-family.md)."""

import math

import torch
from torch import Tensor, nn

from crossray.layers.dropout import Dropout


def sinusoids(length: int, width: int) -> Tensor:
    """Compute sinusoidal position codes (length, width) with base 10,000: sine in even channels, cosine in odd ones."""
    position = torch.arange(length, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10_000.0) / width))
    angle = position * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)


class PositionalEncoding(nn.Module):
    """Adds sinusoidal position codes.

    Args:
        width: D, even.
        length: number of prepared positions; codes of longer sequences are computed when needed.
    """

    def __init__(self, width: int, length: int = 512) -> None:
        super().__init__()
        self.codes: Tensor
        self.register_buffer("codes", sinusoids(length, width), persistent=False)

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """Add the codes of positions `first`, `first + 1`, ... to (B, T, D)."""
        end = first + x.shape[1]
        codes = self.codes
        if end > codes.shape[0]:
            codes = sinusoids(end, x.shape[2]).to(codes.device)
        return x + codes[first:end].to(x.dtype)


class TokenEmbedding(nn.Module):
    """Embedding table times the square root of its width, without position codes.

    Args:
        vocabulary_size: number of tokens; `width`: D.
    """

    def __init__(self, vocabulary_size: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary_size, width)
        self.scale = math.sqrt(width)
        nn.init.xavier_uniform_(self.table.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, T) int64 -> (N, T, D)."""
        return self.table(tokens) * self.scale


class VisualEmbedding(nn.Module):
    """Maps image features to the width of the Transformer.

    Args:
        features: width of the backbone; `width`: D.
        relu: whether a ReLU follows the linear map.
        dropout: dropout probability of the channels in training.
    """

    def __init__(self, features: int, width: int, *, relu: bool, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(features, width)
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.dropout = Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, S, features) -> (B, S, D)."""
        return self.dropout(self.relu(self.project(tokens)))
