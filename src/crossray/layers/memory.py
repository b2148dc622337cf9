"""Cross-modal memory of R2GenCMN and RCAN: a matrix that image and text query through the same projections.

Shapes: N rows, T queries per row, M memory slots, D width, h heads of d = D / h channels.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.layers.dropout import Dropout

#: Initialization of a memory; see `CrossModalMemory`.
Start = Literal["unit", "code"]

#: Number of groups into which `largest` splits a row; for 2,048 scores, each group has eight.
_GROUPS = 256
#: Maximum number of scores that a CPU computes at once; allocating memory for all heads takes longer than the product.
_BLOCK = 1 << 22


class CrossModalMemory(nn.Module):
    """Multi-head attention to a trained matrix, in which each query reads only the best-matching rows.

    Only the scores (h, N * T, M) are dense, and only in the forward pass. The selected rows are summed by an embedding
    bag over the table of values, so no tensor of size N x h x T x M x d is created, and the backward pass computes only
    the selected rows.

    Args:
        slots: M; `width`: D; `heads`: h, a divisor of it.
        top: number of rows that a query reads in each head.
        dropout: dropout probability of the weights in training.
        start: initialization. With "unit", keys and values have entries of variance 1, so the scores of a query differ
            by about 1. With "code", as in the code of R2GenCMN (a matrix of N(0, 1 / D)), scores are equal to two
            digits, and every query gets nearly the same response. If all rows are read, "unit" queries are twice as
            large, because responses then differ only by the weights and not by the selected rows.
    """

    def __init__(self, slots: int, width: int, heads: int, top: int, dropout: float, start: Start = "unit") -> None:
        super().__init__()
        self.heads = heads
        # a smaller matrix and larger maps, so that an optimizer step changes a row by a larger share of its length
        std, gain = (0.5, 2.0) if start == "unit" else (1 / width, 1.0)
        self.matrix = nn.Parameter(torch.randn(slots, width) * std)
        self.choice = RowChoice(min(top, slots))
        self.query = nn.Linear(width, width)
        self.project = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        self.dropout = Dropout(dropout)
        nn.init.xavier_uniform_(self.query.weight, 2.0 if start == "unit" and self.choice.top == slots else 1.0)
        nn.init.xavier_uniform_(self.output.weight)
        for weight in self.project.weight.chunk(2):
            nn.init.xavier_uniform_(weight, gain)

    def keys_values(self) -> tuple[Tensor, Tensor]:
        """Compute scaled keys (h, d, M) and float32 values (h * M, d), which can be reused for all queries."""
        slots, width = self.matrix.shape
        keys, values = self.project(self.matrix).view(slots, 2, self.heads, -1).unbind(1)
        scale = 1.0 / math.sqrt(width // self.heads)
        return keys.permute(1, 2, 0) * scale, values.transpose(0, 1).reshape(self.heads * slots, -1).float()

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Compute the responses (N, T, D) to queries (N, T, D), given the result of `keys_values`."""
        rows, length, width = x.shape
        query = self.query(x).view(rows * length, self.heads, -1).transpose(0, 1)
        table_row, weights = self.choice(query, keys)
        weights = self.dropout(weights)
        if table_row is None:
            response = weights @ values.unflatten(0, (self.heads, -1))
        else:
            response = _weighted_sum(values, table_row, weights)
        response = response.to(x.dtype).view(self.heads, rows * length, -1)
        return self.output(response.transpose(0, 1).reshape(rows, length, width))

    def mean_response(self, x: Tensor, mask: Tensor) -> Tensor:
        """Embed sequences by the mean response (N, D) to the queries (N, T, D) where `mask` (N, T) is True."""
        response = self(x, *self.keys_values())
        weights = mask.unsqueeze(-1).to(response.dtype)
        return (response * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)


class RowChoice(nn.Module):
    """Selects the rows that a query reads, and their weights: the softmax over the scores of the `top` best rows."""

    def __init__(self, top: int) -> None:
        super().__init__()
        self.top = top

    def forward(self, query: Tensor, keys: Tensor) -> tuple[Tensor | None, Tensor]:
        """Queries (h, R, d) and keys (h, d, M) -> rows of the table of values (h, R, top), and float32 weights.

        If all rows are read, None and weights (h, R, M).
        """
        if self.top == keys.shape[2]:
            return None, (query @ keys).float().softmax(dim=-1)
        scores, table_row = _LargestScores.apply(query, keys, self.top)
        return table_row, scores.float().softmax(dim=-1)


class _LargestScores(torch.autograd.Function):
    """The largest scores (h, R, top) of queries (h, R, d) and keys (h, d, M), and the rows of a table (h * M, ...).

    The gradient of a score that was not selected is 0, so the backward pass needs no dense product.
    """

    @staticmethod
    def forward(context: Any, query: Tensor, keys: Tensor, top: int) -> tuple[Tensor, Tensor]:
        heads, slots = keys.shape[0], keys.shape[2]
        together = max(1, _BLOCK // (query.shape[1] * slots)) if query.device.type == "cpu" else heads
        blocks = zip(query.split(together), keys.split(together), strict=True)
        scores, place = (torch.cat(parts) for parts in zip(*(largest(q @ k, top) for q, k in blocks), strict=True))
        table_row = place + slots * torch.arange(heads, device=place.device)[:, None, None]
        context.save_for_backward(query, keys, table_row)
        context.mark_non_differentiable(table_row)
        return scores, table_row

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        query, keys, table_row = context.saved_tensors
        # the sum of keys weighted by the scores' gradients is an embedding bag like the response
        with torch.enable_grad():
            table = keys.transpose(1, 2).flatten(0, 1).float().detach().requires_grad_()
            summed = _weighted_sum(table, table_row, gradients[0].float())
        (table_gradient,) = torch.autograd.grad(summed, table, query.flatten(0, 1).float())
        key_gradient = table_gradient.view(keys.shape[0], keys.shape[2], -1).transpose(1, 2)
        return summed.detach().view(query.shape).to(query.dtype), key_gradient.to(keys.dtype), None


def _weighted_sum(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
    """Sum the rows (h, R, top) of a table (M', d) with weights (h, R, top); return (h * R, d)."""
    return F.embedding_bag(rows.flatten(0, 1), table, per_sample_weights=weights.flatten(0, 1), mode="sum")


def largest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the `count` largest of (..., M) scores and their indices, in no particular order.

    Long rows are first split into groups: the largest scores must be in the `count` groups with the largest maxima,
    which are faster to find than the scores themselves.
    """
    places = scores.shape[-1]
    if scores.device.type != "cpu" or places % _GROUPS or places <= 2 * _GROUPS or count >= _GROUPS // 2:
        return scores.topk(count, dim=-1, sorted=False)
    with torch.no_grad():
        grouped = scores.unflatten(-1, (-1, _GROUPS))
        group = grouped.amax(dim=-2).topk(count, dim=-1, sorted=False).indices
        candidates = grouped.gather(-1, group.unsqueeze(-2).expand(*grouped.shape[:-1], count)).flatten(-2)
        place = candidates.topk(count, dim=-1, sorted=False).indices
        index = (place // count) * _GROUPS + group.gather(-1, place % count)
    return scores.gather(-1, index), index
