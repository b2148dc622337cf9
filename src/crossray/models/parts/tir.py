"""TIR, UAR's text-to-image refiner (Li et al., 2023, section 3.4, eq. 11-12): a learned mask of the cross-attention.

Shapes: B studies, N rows, V views, L tokens of a view, S = V * L, T words, D width.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from crossray.models.base import Encoded, ModelConfig


@dataclass(frozen=True, kw_only=True)
class TIRConfig(ModelConfig):
    """Configuration of a system with TIR.

    Attributes:
        width: width D of the decoder.
        heads: number of attention heads of the decoder; a divisor of `width`.
        mask: mask of TIR: a parameter for each position and image token (static), computed from both (dynamic), or none
            (Table 2).
        mask_scale: factor k of eq. 11.
        mask_loss: "sparse" encourages few open positions; "literal" is eq. 12 as printed, which opens all of them.
        mask_reduction: mean or sum of the mask loss over words and image tokens.
    """

    width: int = 512
    heads: int = 8
    mask: Literal["static", "dynamic", "none"] = "static"
    mask_scale: float = 1000.0
    mask_loss: Literal["sparse", "literal"] = "sparse"
    mask_reduction: Literal["mean", "sum"] = "mean"


class TIR(nn.Module):
    """Text-to-image refiner: adds a bias to the decoder's cross-attention, k * sigmoid(M) / sqrt(d) (eq. 11).

    The bias at M = 0 is subtracted. This does not change the softmax but improves accuracy in half precision, whose
    resolution is highest near 0.

    Args:
        config: sizes and kind of mask.
        length: number of image tokens per view.
    """

    def __init__(self, config: TIRConfig, length: int) -> None:
        super().__init__()
        self.config = config
        if config.mask == "static":
            self.mask = nn.Parameter(torch.zeros(config.max_length, config.views * length))
        else:
            # M = (H W_a)(F W_b)^T / sqrt(D) is initially 0 as well.
            self.word = nn.Linear(config.width, config.width, bias=False)
            self.image = nn.Linear(config.width, config.width, bias=False)
            nn.init.zeros_(self.word.weight)

    def keys(self, visual: Tensor) -> Tensor:
        """The contribution of image features (B, S, D) to a dynamic mask."""
        return self.image(visual) / math.sqrt(self.config.width)

    def forward(self, text: Tensor, encoded: Encoded, first: int) -> Tensor:
        """The mask M, (1 or N, T, S); 0 for positions outside the report.

        Args:
            text: (N, T, D) input of the decoder.
            encoded: the encoded image; for a dynamic mask, its `aux` contains the `keys` as "mask_keys".
            first: index of the first position in the report; negative within a prompt.
        """
        if self.config.mask == "dynamic":
            keys = encoded.aux["mask_keys"]
            keys = keys.repeat_interleave(text.shape[0] // keys.shape[0], dim=0)
            return self.word(text) @ keys.transpose(1, 2)
        place = first + torch.arange(text.shape[1], device=text.device)
        known = (place >= 0) & (place < len(self.mask))
        rows = self.mask[place.clamp(0, len(self.mask) - 1), : encoded.memory.shape[1]]
        return (rows * known.unsqueeze(1))[None]

    def bias(self, mask: Tensor) -> Tensor:
        """M (N, T, S) -> bias of the scaled scores of every head, (N, 1, T, S) (eq. 11)."""
        scale = self.config.mask_scale / math.sqrt(self.config.width // self.config.heads)
        return scale * (mask.float().sigmoid() - 0.5).unsqueeze(1)

    def loss(self, mask: Tensor, words: Tensor, visible: Tensor) -> Tensor:
        """L_mask (eq. 12, or its sparse variant) over valid words (B, T) and image tokens (B, S)."""
        share = mask.float().sigmoid()
        if self.config.mask_loss == "literal":
            share = 1 - share
        counted = words.float().unsqueeze(2) * visible.float().unsqueeze(1)
        total = (share * counted).sum()
        return total / (counted.sum().clamp_min(1) if self.config.mask_reduction == "mean" else len(words))
