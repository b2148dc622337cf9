"""Cross-modal memory (SPEC 1.6): a matrix that image and text query through the same projections.

Shapes: N rows, T queries a row, M memory slots, D width, h heads of d = D / h channels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Groups into which `largest` splits a row; of 2,048 scores each group then has eight.
_GROUPS = 256


class CrossModalMemory(nn.Module):
    """Multi-head look-up in a trained matrix, of whose rows each query keeps the few that fit best.

    Only the scores (h, N * T, M) are ever dense. The chosen rows are summed by an embedding bag over the table of
    values, forward and backward, so that nothing of size N x h x T x M x d comes into being.

    Args:
        slots: M; `width`: D; `heads`: h, a divisor of it.
        top: rows that a query keeps in each head.
        dropout: share of the weights that is dropped in training.
    """

    def __init__(self, slots: int, width: int, heads: int, top: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.top = heads, min(top, slots)
        self.matrix = nn.Parameter(torch.randn(slots, width) / width)
        self.query = nn.Linear(width, width)
        self.project = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        for weight in (self.query.weight, *self.project.weight.chunk(2), self.output.weight):
            nn.init.xavier_uniform_(weight)

    def keys_values(self) -> tuple[Tensor, Tensor]:
        """Keys (h, d, M), scaled, and float32 values (h * M, d); they depend on no query: one call serves many."""
        slots, width = self.matrix.shape
        keys, values = self.project(self.matrix).view(slots, 2, self.heads, -1).unbind(1)
        scale = 1.0 / math.sqrt(width // self.heads)
        return keys.permute(1, 2, 0) * scale, values.transpose(0, 1).reshape(self.heads * slots, -1).float()

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Responses (N, T, D) to queries (N, T, D), given what `keys_values` returned."""
        rows, length, width = x.shape
        slots = keys.shape[2]
        query = self.query(x).view(rows * length, self.heads, -1).transpose(0, 1)
        scores, index = largest(query @ keys, self.top)
        weights = self.dropout(scores.float().softmax(dim=-1))
        table_row = index + slots * torch.arange(self.heads, device=x.device)[:, None, None]
        response = F.embedding_bag(
            table_row.flatten(0, 1), values, per_sample_weights=weights.flatten(0, 1), mode="sum"
        )
        response = response.to(x.dtype).view(self.heads, rows * length, -1)
        return self.output(response.transpose(0, 1).reshape(rows, length, width))


def largest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of (..., M) scores and their places, in no particular order.

    Long rows are first split into groups: the largest scores can only lie in the `count` groups with the largest
    maxima, which are quicker to find than the scores themselves.
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
