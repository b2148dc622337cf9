"""COACL's losses between images and reports: MOM, GFM and ACLM, with UE, HNE and DNSA inside ACLM.

No equations are published. Names and arrows are those of the figure; the formulas are a reconstruction
(`docs/models/coacl.md`). Everything here couples the studies of a batch and ends in a loss.

Shapes: N studies of all processes, r basis vectors, D width.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.layers.attention import CrossAttention
from crossray.layers.contrastive import (
    different_reports,
    hardest,
    info_nce,
    label_margin,
    next_study,
    triplet,
    uniformity,
)
from crossray.layers.gates import Fusion, GuidedFusion
from crossray.layers.orthogonal import gram_schmidt


class MOM(nn.Module):
    """Modal Orthogonality Module: both modalities attend to a basis of the vectors of the whole batch.

    Args:
        width: D.
        heads: number of attention heads.
        kind: orthonormal "rows" or "cols", or "none" (the vectors themselves, as in the code).
    """

    def __init__(self, width: int, heads: int, kind: Literal["rows", "cols", "none"]) -> None:
        super().__init__()
        self.kind = kind
        # without biases, which would be equal for all studies; scores have a standard deviation of about 1.5
        self.attention = CrossAttention(width, heads, dropout=0.0, bias=False)
        nn.init.xavier_uniform_(self.attention.query.weight, gain=1.5)

    def basis(self, image: Tensor, report: Tensor) -> Tensor:
        """Orthogonal basis of [image; report], (N, D) each, scaled to entries of variance 1, like the vectors.

        Vectors of length 1 would have entries of variance 1 / D: all scores would be nearly 0, and all studies would
        attend to the same mean.

        "rows": (r, D); the image vectors come first, so the part added by the reports is orthogonal to all images.
        "cols": (2 N, D), in which r independent columns are orthogonal and the others 0. "none": (2 N, D) unchanged.
        """
        stacked = torch.cat([image, report])
        if self.kind == "none":
            return stacked
        if self.kind == "rows":
            return gram_schmidt(stacked)[0] * math.sqrt(stacked.shape[1])
        columns, kept = gram_schmidt(stacked.T)
        return torch.zeros_like(stacked).index_copy(1, kept, columns.T) * math.sqrt(len(stacked))

    def forward(self, x: Tensor, basis: Tensor) -> Tensor:
        """Vectors (N, D) attend to the basis (r, D): (N, D)."""
        attended, _ = self.attention(x[None], *self.attention.keys_values(basis[None]))
        return attended[0]


class GFM(GuidedFusion):
    """Guided Fusion Module: the dual gate F' = F + g1 * tanh(V + F) + g2 * V of raw V and attended F.

    Args:
        width: D.
        kind: the gate, or its replacement in an ablation.
        share_gates: use one pair of weights for both gates.
        swapped: exchange V and F, as the code does.
    """

    def __init__(self, width: int, kind: Fusion, *, share_gates: bool, swapped: bool) -> None:
        super().__init__(width, kind, share_gates)
        self.swapped = swapped

    def forward(self, raw: Tensor, attended: Tensor) -> Tensor:
        """Raw and attended vectors, (N, D) each -> (N, D)."""
        return super().forward(attended, raw) if self.swapped else super().forward(raw, attended)


class UE(nn.Module):
    """Uniformity Estimator: R_uniform, 1 if each modality has collapsed to a point, -1 if both are spread out."""

    def forward(self, image: Tensor, report: Tensor) -> Tensor:
        """Vectors (N, D) of each modality, N at least 2 -> a scalar in [-1, 1]."""
        return (1 + (uniformity(image) + uniformity(report)) / 4).clamp(-1, 1)


class HNE(nn.Module):
    """Hard-Negative Evaluator: R_sim, the expected similarity of a study to its negatives."""

    def forward(self, similarity: Tensor, negative: Tensor) -> Tensor:
        """Cosines (N, N) and a mask of the negative pairs, (N, N) bool -> a scalar in [-1, 1]."""
        each = negative.sum(dim=1)
        expected = (similarity * negative).sum(dim=1) / each.clamp_min(1)
        return expected.sum() / (each > 0).sum().clamp_min(1)


class DNSA(nn.Module):
    """Dynamic Negative Sample Allocation: the curve in the figure, as a quarter of a cosine.

    It selects all negatives at a difference of -2, decreasing to a quarter of them at 2.
    """

    def forward(self, difference: Tensor, most: int) -> Tensor:
        """Number of negatives that a study is compared with, int64.

        Args:
            difference: R_uniform - R_sim, in [-2, 2], any shape.
            most: number of available negatives, at least 1.
        """
        least = max(1, math.ceil(most / 4))
        share = torch.cos(math.pi * (difference.clamp(-2, 2) + 2) / 8)
        return (least + (most - least) * share).round().long()


class ACLM(nn.Module):
    """Adaptive Contrastive Learning Module: a loss over the hardest negatives, whose number UE, HNE and DNSA determine.

    Args:
        negatives: "adaptive", or M2KT's next study as the only negative ("neighbour").
        loss: "triplet" with M2KT's label margin, or "infonce".
        temperature: temperature of infonce.
        estimated: inputs of UE and HNE: the "raw" vectors, as in the figure, or the "fused" ones of the loss.
    """

    def __init__(
        self,
        negatives: Literal["adaptive", "neighbour"],
        loss: Literal["triplet", "infonce"],
        temperature: float,
        estimated: Literal["raw", "fused"],
    ) -> None:
        super().__init__()
        self.negatives, self.loss, self.temperature, self.estimated = negatives, loss, temperature, estimated
        self.ue, self.hne, self.dnsa = UE(), HNE(), DNSA()

    def forward(
        self, raw: tuple[Tensor, Tensor], fused: tuple[Tensor, Tensor], keys: Tensor, truth: Tensor, known: Tensor
    ) -> Tensor:
        """The loss in both directions, a scalar.

        Args:
            raw: vectors of images and of reports, (N, D) each, before MOM.
            fused: the same after GFM.
            keys: (N,) int64, equal for equal reports.
            truth: (N, L) bool, positive labels.
            known: (N,) bool, True for a study that has labels.
        """
        image, report = (F.normalize(x, dim=1) for x in fused)
        similarity, negative = image @ report.T, different_reports(keys)
        if self.negatives == "adaptive":
            count = self.count(*(raw if self.estimated == "raw" else fused), negative)
            chosen = [hardest(s, negative, count) for s in (similarity, similarity.T)]
        else:
            chosen = [next_study(len(image), image.device) & negative] * 2
        if self.loss == "infonce":
            return info_nce(similarity, chosen[0], self.temperature) + info_nce(
                similarity.T, chosen[1], self.temperature
            )
        margin = label_margin(truth, known)
        return triplet(similarity, chosen[0], margin) + triplet(similarity.T, chosen[1], margin)

    @torch.no_grad()
    def count(self, image: Tensor, report: Tensor, negative: Tensor) -> Tensor:
        """Number of negatives that each study is compared with, a scalar int64 tensor.

        Args:
            image: (N, D), N at least 2.
            report: (N, D).
            negative: (N, N) bool, True where j is a negative of i.
        """
        image, report = F.normalize(image, dim=1), F.normalize(report, dim=1)
        difference = self.ue(image, report) - self.hne(image @ report.T, negative)
        count: Tensor = self.dnsa(difference, len(image) - 1)
        return count
