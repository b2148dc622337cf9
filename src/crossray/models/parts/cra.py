"""CRA, UAR's cross-modal representation aligner (Li et al., 2023, section 3.3, eq. 6-9): a basis for image and words.

The triplet loss of eq. 10 couples the studies of a batch and is in `models.uar`.

Shapes: D width, K vectors of the basis.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crossray.errors import UserError
from crossray.layers.attention import CrossAttention
from crossray.layers.gates import Fusion, GuidedFusion
from crossray.layers.orthogonal import Basis, make_basis
from crossray.models.base import ModelConfig


@dataclass(frozen=True, kw_only=True)
class CRAConfig(ModelConfig):
    """Configuration of a system with CRA.

    Attributes:
        width: width D of the embeddings.
        heads: number of attention heads; a divisor of `width`.
        basis: basis of CRA: orthonormal columns ("semi"), square blocks with orthonormal rows, or random numbers (Table
            3).
        basis_size: number of basis vectors.
        fusion: fusion of an embedding with its attention to the basis (Table 4): gate, addition, or no_gate.
    """

    width: int = 512
    heads: int = 8
    basis: Basis = "semi"
    basis_size: int = 2048
    fusion: Fusion = "gate"

    def __post_init__(self) -> None:
        """Reject invalid sizes."""
        if self.basis == "semi" and self.basis_size < self.width:
            raise UserError(f"model.basis_size is {self.basis_size}: {self.width} orthonormal columns (model.width) "
                            "need as many rows; give more.")  # fmt: skip


#: Keys and values of the basis.
BasisKeys = tuple[Tensor, Tensor]


class CRA(nn.Module):
    """Cross-modal representation aligner: image tokens and words attend to one basis, through one set of weights.

    The result for a token depends only on that token, which preserves causality. There is no dropout, because with
    2,048 weights per token it would double the time of CRA.

    The entries of the basis have variance 1 like those of the embeddings, so it is sqrt(K) times a basis with
    orthonormal columns. With vectors of length 1, the scores of eq. 7 would differ by a thousandth, and every token
    would get the plain mean of the basis. With this scale, the initial scores have variance 2 and the attention has a
    perplexity of K / e.

    Args:
        config: sizes, basis and fusion.
    """

    def __init__(self, config: CRAConfig) -> None:
        super().__init__()
        basis = make_basis(config.basis, config.basis_size, config.width)
        self.basis: Tensor
        self.register_buffer("basis", basis / basis.square().mean().sqrt())
        self.gain = nn.Parameter(torch.ones_like(self.basis))
        self.bias = nn.Parameter(torch.zeros_like(self.basis))
        self.attention = CrossAttention(config.width, config.heads, dropout=0.0, bias=False)
        nn.init.xavier_uniform_(self.attention.query.weight, gain=math.sqrt(2))
        self.fusion = GuidedFusion(config.width, config.fusion)

    def forward(self, embeddings: Tensor, keys: BasisKeys | None = None) -> Tensor:
        """Embeddings E (..., D) -> features F (..., D).

        Args:
            embeddings: embeddings of image tokens or words.
            keys: result of `keys_values`, if already computed.
        """
        found = self.look_up(embeddings, keys)  # eq. 7
        return self.fusion(embeddings, found)  # eq. 8-9

    def look_up(self, embeddings: Tensor, keys: BasisKeys | None = None) -> Tensor:
        """Attention of embeddings E (..., D) to the basis, (..., D) (eq. 7)."""
        found, _ = self.attention(embeddings.flatten(0, -2)[None], *(keys or self.keys_values()))
        return found.view_as(embeddings)

    def keys_values(self) -> BasisKeys:
        """Keys and values of the adjusted basis, (1, heads, K, D / heads) each, independent of the input."""
        return self.attention.keys_values(self.adjusted()[None])

    def adjusted(self) -> Tensor:
        """The basis with its gain and bias, (K, D) (eq. 6)."""
        return self.gain * self.basis + self.bias
