"""Building blocks of contrastive losses: gathering rows of all processes, positives, negatives and margins.

Shapes: B rows of this process, N rows of all processes, P channels.
"""

import math
from typing import Any, Literal

import torch
import torch.distributed as distributed
import torch.nn.functional as F
from torch import Tensor


def gather_ranks(tensor: Tensor) -> Tensor:
    """Gather the rows of all processes in the order of their ranks; with one process, return `tensor` itself.

    If every process computes a loss from the gathered rows, the gradient averaged over processes, as in DDP, equals
    that of a single process on the global batch.

    Args:
        tensor: rows (B, ...) of this process; only B may differ between processes.

    Returns:
        Rows (N, ...) of all processes.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return tensor
    gathered: Tensor = _Gather.apply(tensor)
    return gathered


def at_least_float32(tensor: Tensor) -> Tensor:
    """Convert a tensor to float32, unless it is float64."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class _Gather(torch.autograd.Function):
    """All-gather for different first dimensions; the gradient of a row is the sum over all processes."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        rows = torch.zeros(distributed.get_world_size(), dtype=torch.int64, device=tensor.device)
        rows[distributed.get_rank()] = len(tensor)
        distributed.all_reduce(rows)
        context.rows = rows.tolist()
        padded = tensor.new_zeros(max(context.rows), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in context.rows]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, context.rows, strict=True)])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        distributed.all_reduce(total)
        return total.split(context.rows)[distributed.get_rank()]


def connected_components(adjacency: Tensor) -> Tensor:
    """Find the connected components of an undirected graph, on the device of `adjacency`.

    Every node takes the smallest label among itself and its neighbors, then the label of that label, until nothing
    changes. This takes a few iterations and needs no copy to the CPU.

    Args:
        adjacency: (N, N) bool, True where two nodes are joined, in either direction.

    Returns:
        (N,) int64: for each node, the smallest index in its component.

    Example:
        >>> connected_components(torch.tensor([[0, 1, 0], [0, 0, 0], [0, 0, 0]], dtype=torch.bool))
        tensor([0, 0, 2])
    """
    joined = adjacency | adjacency.T
    labels = torch.arange(len(joined), device=joined.device)
    while len(labels):
        smallest = torch.where(joined, labels, len(labels)).amin(dim=1).minimum(labels)
        smallest = smallest[smallest]
        if torch.equal(smallest, labels):
            break
        labels = smallest
    return labels


@torch.no_grad()
def weak_positives(unit: Tensor) -> Tensor:
    """Compute RCAN's weak labels: studies are positives if nearest neighbors connect them.

    Args:
        unit: (N, P) normalized vectors.

    Returns:
        (N, N) bool, True where two studies are positives.
    """
    nearest = (unit @ unit.T).fill_diagonal_(-2.0).argmax(dim=1)
    component = connected_components(F.one_hot(nearest, len(unit)).bool())
    return component[:, None] == component


def supervised_contrastive(
    features: Tensor,
    positive: Tensor,
    temperature: float,
    denominator: Literal["others", "negatives"] = "others",
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """Compute the supervised contrastive loss (L_out of Khosla et al. 2020).

    Args:
        features: (N, P) vectors, compared by their cosine.
        positive: (N, N) bool, True where two rows are positives; the diagonal is ignored.
        temperature: divides the cosines.
        denominator: the rows in the denominator: all "others", or only the "negatives", as in the decoupled loss of Yeh
            et al. 2022, which can be negative.
        reduction: mean or sum over all rows.

    Returns:
        A scalar in float32. A row without a positive contributes 0, so a single row gives 0 and never NaN; the same
        holds for a row with an empty denominator.
    """
    unit = F.normalize(features.float(), dim=1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    with torch.autocast(unit.device.type, enabled=False):
        scores = unit @ unit.T / temperature
    compared = ~itself if denominator == "others" else ~(itself | positive)
    # a large finite number, because a row with an empty denominator would otherwise contain only -inf
    surprise = scores.masked_fill(~compared, torch.finfo(scores.dtype).min).logsumexp(dim=1, keepdim=True) - scores
    chosen = (positive & ~itself & compared.any(dim=1, keepdim=True)).to(scores.dtype)
    rows = (surprise.where(chosen > 0, 0.0) * chosen).sum(dim=1) / chosen.sum(dim=1).clamp_min(1)
    return rows.sum() if reduction == "sum" else rows.mean()


def uniformity(features: Tensor, temperature: float = 2.0) -> Tensor:
    """Compute the uniformity of rows on the unit sphere: log of the mean of exp(-t |u_i - u_j|^2) over pairs i != j.

    It is 0 if all rows are equal, and about -2 t if they are spread evenly (Wang and Isola 2020).

    Args:
        features: (N, P) rows, N at least 2; only their directions matter.
        temperature: t.

    Returns:
        A scalar in float32.
    """
    unit = F.normalize(features.float(), dim=1)
    rows = len(unit)
    with torch.autocast(unit.device.type, enabled=False):
        distance = (2 - 2 * unit @ unit.T).clamp_min(0)
    itself = torch.eye(rows, dtype=torch.bool, device=unit.device)
    closeness = (-temperature * distance).masked_fill(itself, -math.inf)
    return closeness.flatten().logsumexp(dim=0) - math.log(rows * (rows - 1))


def different_reports(keys: Tensor) -> Tensor:
    """Compute the mask of possible negatives, (N, N) bool: False for a row itself and for rows with an equal report.

    Args:
        keys: (N,) int64, equal for equal reports (`Targets.report_key`).
    """
    return keys[:, None] != keys[None, :]


def hardest(similarity: Tensor, negative: Tensor, count: Tensor | int) -> Tensor:
    """Select the most similar negatives of each row, (N, N) bool.

    Args:
        similarity: (N, N) similarity of row i to column j.
        negative: (N, N) bool, True where j is a negative of i.
        count: maximum number to select, an integer or a scalar tensor on the device of `similarity`.
    """
    order = similarity.detach().masked_fill(~negative, -math.inf).argsort(dim=1, descending=True)
    return (order.argsort(dim=1) < count) & negative


def triplet(similarity: Tensor, chosen: Tensor, margin: Tensor | float) -> Tensor:
    """Compute the triplet loss: the mean of relu(s_ij - s_ii + margin) over the chosen j of each row, then over rows.

    Args:
        similarity: (N, N) similarities, with the positive pairs on the diagonal.
        chosen: (N, N) bool, selected negatives; see `hardest`.
        margin: margins (N, N), or a single number.

    Returns:
        A scalar; rows without a chosen negative are ignored, and it is 0 if no row has one.
    """
    losses = (similarity - similarity.diagonal()[:, None] + margin).relu()
    each = chosen.sum(dim=1)
    rows = (losses * chosen).sum(dim=1) / each.clamp_min(1)
    return rows.sum() / (each > 0).sum().clamp_min(1)


def info_nce(similarity: Tensor, chosen: Tensor, temperature: float) -> Tensor:
    """Compute InfoNCE: mean of -log(exp(s_ii / t) / (exp(s_ii / t) + sum over chosen j of exp(s_ij / t))) over rows.

    Args:
        similarity: (N, N) similarities, with the positive pairs on the diagonal.
        chosen: (N, N) bool, selected negatives; a row without one contributes 0.
        temperature: t.
    """
    scores = similarity / temperature
    itself = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    return (scores.masked_fill(~(chosen | itself), -math.inf).logsumexp(dim=1) - scores.diagonal()).mean()


def next_study(studies: int, device: torch.device) -> Tensor:
    """Select M2KT's negatives, (N, N) bool: the next study of each, and the first one of the last."""
    return torch.eye(studies, dtype=torch.bool, device=device).roll(1, dims=1)


def label_margin(truth: Tensor, known: Tensor) -> Tensor:
    """Compute M2KT's margins: 0 for equal labels, otherwise the share of labels that differ, at least 0.5.

    Args:
        truth: (N, L) bool, positive labels.
        known: (N,) bool; the margins of studies with unknown labels are 0.5.

    Returns:
        Margins (N, N) float32.
    """
    differ = (truth[:, None] ^ truth[None, :]).sum(dim=2)
    either = (truth[:, None] | truth[None, :]).sum(dim=2)
    margin = (differ / either.clamp_min(1)).clamp_min(0.5) * (differ > 0)
    return margin.where(known[:, None] & known[None, :], 0.5)
