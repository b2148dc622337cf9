"""Distances between label vectors, and a loss for learned distances with the same ranking (REVTAF, eq. 6 and 7).

Shapes: B studies of a batch, M others, K categories.
"""

from typing import Literal

import torch
from torch import Tensor


def hamming(labels: Tensor, others: Tensor) -> Tensor:
    """Count the categories that differ: half the Hamming distance of the one-hot vectors of equation 6.

    Args:
        labels: (B, K) int, a status code for each category.
        others: (M, K) int, in the same form.

    Returns:
        Counts (B, M) int64.

    Example:
        >>> hamming(torch.tensor([[0, 1, 2]]), torch.tensor([[0, 1, 2], [0, 0, 0]]))
        tensor([[0, 2]])
    """
    return (
        torch.stack([(others != row).sum(dim=1) for row in labels]) if len(labels) else labels.new_zeros(0, len(others))
    )


def ranking_loss(
    distances: Tensor,
    hamming: Tensor,
    ties: Literal["uniform", "first", "soft"] = "uniform",
    temperature: float = 1.0,
    candidates: Tensor | None = None,
) -> Tensor:
    """Compute the cross-entropy of predicting, for each study, the nearest other study by labels (eq. 7).

    The paper's logits are the distances; here they are negated, so that near studies are likely.

    Args:
        distances: learned distances (B, B); the diagonal is ignored.
        hamming: distances of the labels (B, B).
        ties: treatment of several nearest studies: with "uniform", any of them is correct (negative log of their summed
            probability); with "first", the first in the batch, as published; with "soft", every study, weighted by
            softmax(-hamming).
        temperature: divides the distances.
        candidates: (B, B) bool, False where a study may not be the answer for another one (such as the same patient).

    Returns:
        Mean over the studies with a candidate, in float32; 0 if there are none, as in a batch of one.
    """
    itself = torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    allowed = ~itself if candidates is None else candidates & ~itself
    # large finite numbers, because a row without candidates would otherwise contain only infinities
    far = torch.finfo(torch.float32).max / 4
    logits = (-distances.float() / temperature).masked_fill(~allowed, -far)
    wanted = hamming.float().masked_fill(~allowed, far)
    surprise = logits.logsumexp(dim=1, keepdim=True) - logits
    if ties == "soft":
        losses = ((-wanted).softmax(dim=1) * surprise).sum(dim=1)
    elif ties == "first":
        losses = surprise.gather(1, wanted.argmin(dim=1, keepdim=True)).squeeze(1)
    else:
        nearest = wanted == wanted.amin(dim=1, keepdim=True)
        losses = -(-surprise).masked_fill(~nearest, -far).logsumexp(dim=1)
    answered = allowed.any(dim=1)
    return losses.where(answered, 0.0).sum() / answered.sum().clamp_min(1)
