"""REVTAF's additions to the image: prompts, their fusion with the image, and the consistency of their attention.

Zhou et al. 2025, sections 3.2 and 3.4, in the paper's order: `GRP` and `LRP` (eq. 8-9), `MPSA` (eq. 10-11), `FVTAF`,
`FCC` (eq. 12-14).

Shapes: B studies, n views that exist, S tokens of a view, C backbone channels, E entities, N sentences, D text width, W
fusion width.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.errors import UserError
from crossray.layers.dropout import Dropout
from crossray.layers.sinkhorn import SinkhornAttention, hard_iou, soft_iou
from crossray.layers.transformer import FeedForward
from crossray.models.base import ModelConfig
from crossray.models.parts.standardization import Standardization
from crossray.retrieval.database import ReportDatabase

#: Minimum standard deviation of the similarities of a view's prompts, which prevents division by 0.
_LEAST_DEVIATION = 1e-4


@dataclass(frozen=True, kw_only=True)
class FusionConfig(ModelConfig):
    """Configuration of a system that fuses image and prompts.

    Attributes:
        attention: attention of image positions to prompts: sinkhorn; softmax, of the cosines divided by `epsilon`;
            legacy_uniform, as computed by the released code; or none, in which case the decoder reads only the image
            tokens, as in PromptMRG.
        local_prompts: also use local prompts (LRP); without them there is no FCC, which compares both kinds.
        prompt_values: values of the encoded prompts and of the reports in the diagnosis: raw, as published; or
            standardized, with mean 0 and standard deviation 1 in every channel over the training studies, and over all
            local prompts.
        fusion_width: number of channels W of the fusion, for global and for local prompts each.
        fusion_heads: number of transport problems per view; a divisor of `fusion_width`.
        fusion_dropout: dropout in the fusion.
        epsilon: weight of the entropy of the transport plan.
        iterations: maximum number of Sinkhorn iterations.
        unbalanced_tau: weight of the constraint that all prompts receive equal mass; with a small weight, a prompt that
            matches nothing receives none. Empty (null) for balanced transport with a strict constraint, as published.
        fusion_output: output after the normalization of eq. 11: feedforward, a feed-forward block (as released), or
            linear, a linear map (as printed).
        share_branches: use one set of fusion weights for global and local prompts.
        consistency: loss of FCC: contrast, by which attention maps should overlap more the more similar their prompts
            are; soft, eq. 14 as printed, whose minimum has equal maps for all prompts; legacy, eq. 14 over thresholded
            cosine maps without gradient (as released); or none.
        similarity: inputs of FCC: raw prompts, or their trained projections (as released).
    """

    attention: Literal["sinkhorn", "softmax", "legacy_uniform", "none"] = "sinkhorn"
    local_prompts: bool = True
    prompt_values: Literal["standardized", "raw"] = "standardized"
    fusion_width: int = 1024
    fusion_heads: int = 1
    fusion_dropout: float = 0.1
    epsilon: float = 0.05
    iterations: int = 50
    unbalanced_tau: float | None = None
    fusion_output: Literal["feedforward", "linear"] = "feedforward"
    share_branches: bool = True
    consistency: Literal["contrast", "soft", "legacy", "none"] = "contrast"
    similarity: Literal["raw", "projected"] = "raw"

    def __post_init__(self) -> None:
        """Reject invalid values."""
        if self.unbalanced_tau is not None and self.unbalanced_tau < 0:
            raise UserError(f"field 'unbalanced_tau' is {self.unbalanced_tau}; give a number from 0 on, or null.")


class GRP(nn.Module):
    """Global reference prompts F_t^g (section 3.2): the sentences of the reports retrieved by `LRE`.

    The vectors of the frozen text encoder share a large mean. Without standardization, the cosines between prompts are
    all similar, as are those between a position and the prompts, so attention to them is close to an average.

    Args:
        width: D.

    Attributes:
        standardization: standardizes the vectors; the identity until `REVTAF.learn_from` sets its statistics.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.standardization = Standardization(width)

    def forward(self, database: ReportDatabase, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Sentences (B, N, D) of the reports in the given rows (B,) of the database, and their mask (B, N) bool."""
        sentences, mask = database.sentences_of(reference)
        return self.standardization(sentences) * mask.unsqueeze(2), mask


class LRP(nn.Module):
    """Local reference prompts F_t^l: for each entity, the prediction of MedKLIP as an encoded text.

    Entity, place and presence form the triplet of eq. 8. The database contains the vectors of all triplets (eq. 9).

    Args:
        width: D.

    Attributes:
        standardization: as in `GRP`.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.standardization = Standardization(width)

    def forward(self, database: ReportDatabase, places: Tensor, present: Tensor) -> Tensor:
        """Prompts (B, E, D) of entities with places (B, E) int64 and presence (B, E) bool."""
        prompts: Tensor = self.standardization(database.phrases_of(places, present))
        return prompts


class MPSA(nn.Module):
    """Multi-prompts Sinkhorn attention (eq. 10), and residual fusion (eq. 11).

    Args:
        config: its fields from `attention` to `fusion_output`.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        width = config.fusion_width
        assert config.attention != "none"
        self.attention = SinkhornAttention(
            width, width, width, config.fusion_heads, config.attention, config.epsilon, config.iterations,
            dropout=config.fusion_dropout, tau=math.inf if config.unbalanced_tau is None else config.unbalanced_tau,
        )  # fmt: skip
        self.attention_norm = nn.LayerNorm(width)
        self.dropout = Dropout(config.fusion_dropout)
        self.project = nn.Linear(width, width) if config.fusion_output == "linear" else None
        self.feedforward = FeedForward(width, 4 * width, config.fusion_dropout) if self.project is None else None
        self.feedforward_norm = nn.LayerNorm(width) if self.project is None else None

    def forward(self, visual: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image positions (n, S, W) attend to prompts (n, M, W).

        Returns:
            Fused positions (n, S, W), the transport plan, and the cosines (n, h, S, M), as `SinkhornAttention` does.
        """
        attended, plan, cosine = self.attention(visual, text, mask)  # eq. 10
        x = self.attention_norm(visual + self.dropout(attended))  # eq. 11, up to f_proj
        if self.project is not None:
            return self.project(x), plan, cosine
        assert self.feedforward is not None and self.feedforward_norm is not None
        return self.feedforward_norm(x + self.dropout(self.feedforward(x))), plan, cosine


class FVTAF(nn.Module):
    """Fine-grained visual-text alignment and fusion: concatenates MPSA's results for global and local prompts.

    Args:
        channels: C.
        text_width: D.
        config: its fields from `attention` to `similarity`.

    Attributes:
        width: channels of the fused image.
    """

    def __init__(self, channels: int, text_width: int, config: FusionConfig) -> None:
        super().__init__()
        width, local = config.fusion_width, config.local_prompts
        self.width = 2 * width if local else width
        self.visual = nn.Linear(channels, width)
        self.sentences = nn.Linear(text_width, width)
        self.phrases = nn.Linear(text_width, width) if local else None
        own = local and not config.share_branches
        self.branches = nn.ModuleList(MPSA(config) for _ in range(2 if own else 1))
        # The plan of the released code carries no information, and its FCC uses the cosines.
        self._cosines = config.attention == "legacy_uniform" or config.consistency == "legacy"

    def forward(
        self, visual: Tensor, sentences: Tensor, mask: Tensor, phrases: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Fuse views with the prompts of their studies.

        Args:
            visual: (n, S, C).
            sentences: (n, N, D), global prompts.
            mask: (n, N) bool, True for existing sentences.
            phrases: (n, E, D), local prompts; ignored unless `local_prompts` is set.

        Returns:
            The image F_c (n, S, `width`); the attention maps of the sentences, M_c^g (n, S, N); and those of the
            entities, M_c^l (n, S, E), or None without local prompts.
        """
        image = self.visual(visual)
        seen, *maps = self.branches[0](image, self.sentences(sentences), mask)
        sentence_maps = maps[self._cosines].mean(dim=1)
        if self.phrases is None or phrases is None:
            return seen, sentence_maps, None
        everywhere = torch.ones(phrases.shape[:2], dtype=torch.bool, device=phrases.device)
        known, *maps = self.branches[-1](image, self.phrases(phrases), everywhere)
        return torch.cat([seen, known], dim=2), sentence_maps, maps[self._cosines].mean(dim=1)


class FCC(nn.Module):
    """Fine-grained cross-modal consistency: similar prompts should attend to the same place (eq. 12-14).

    Args:
        kind: how similarity S (eq. 12) and overlap O (eq. 13) are combined.
            "soft": the mean of 1 - S * O, eq. 14 as printed, over the soft overlap. It rewards any overlap and is
            minimal if all maps are equal, so it makes the attention uniform.
            "contrast": 1 minus twice the covariance of O and S, with S standardized over the pairs of prompts of each
            view. Equal maps gain nothing: only similar prompts should overlap.
            "legacy": eq. 14 over `hard_iou`, as released, except that the released code also counts the empty sentences
            after the end of a report.
    """

    def __init__(self, kind: Literal["contrast", "soft", "legacy"]) -> None:
        super().__init__()
        self.kind = kind

    @staticmethod
    def similarity(sentences: Tensor, phrases: Tensor) -> Tensor:
        """S (B, N, E) of prompts (B, N, D) and (B, E, D): sigmoid of their cosine (eq. 12)."""
        with torch.autocast(sentences.device.type, enabled=False):
            return (F.normalize(sentences.float(), dim=2) @ F.normalize(phrases.float(), dim=2).mT).sigmoid()

    def overlap(self, sentence_maps: Tensor, phrase_maps: Tensor) -> Tensor:
        """O (n, N, E) of maps (n, S, N) and (n, S, E): their intersection over union (eq. 13)."""
        overlap = hard_iou if self.kind == "legacy" else soft_iou
        return overlap(sentence_maps.float().mT, phrase_maps.float().mT)

    def forward(self, sentence_maps: Tensor, phrase_maps: Tensor, similarity: Tensor, mask: Tensor) -> Tensor:
        """Compute the loss in float32 over valid sentences and all entities (eq. 14); 0 without sentences.

        Args:
            sentence_maps: (n, S, N).
            phrase_maps: (n, S, E).
            similarity: (n, N, E).
            mask: (n, N) bool, True for existing sentences.
        """
        with torch.autocast(similarity.device.type, enabled=False):
            overlap, similarity = self.overlap(sentence_maps, phrase_maps), similarity.float()
            valid = mask.unsqueeze(-1).to(overlap.dtype).expand_as(overlap)
            if self.kind == "contrast":
                seen = mask.any(dim=1)
                return ((1 - 2 * _covariance(similarity, overlap, valid)) * seen).sum() / seen.sum().clamp_min(1)
            return ((1 - similarity * overlap) * valid).sum() / valid.sum().clamp_min(1)


def _covariance(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Covariance (n,) of `second` and the standardized `first` over the entries (n, N, E) with weight 1."""
    count = weight.sum(dim=(1, 2), keepdim=True).clamp_min(1)
    first = (first - (first * weight).sum(dim=(1, 2), keepdim=True) / count) * weight
    deviation = (first.square().sum(dim=(1, 2), keepdim=True) / count).sqrt()
    return (first / deviation.clamp_min(_LEAST_DEVIATION) * second / count).sum(dim=(1, 2))
