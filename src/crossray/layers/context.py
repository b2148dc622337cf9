"""A weighted mean over the positions so far, for teacher forcing and incremental decoding (RCAN eq. 14).

Shapes: N rows, T new positions, D width.
"""

import torch
from torch import Tensor

#: State of a running context: the logarithm of the summed weights of the previous positions (N, 1), and their weighted
#: mean (N, D), both in float32. Together they act as one position.
Past = tuple[Tensor, Tensor]


def running_context(scores: Tensor, values: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
    """Compute the mean of the values up to each position, weighted by the softmax of their scores.

    Scores cannot overflow, because softmax subtracts the largest score of each row. No position depends on a later one,
    so padding after a report does not affect it.

    Args:
        scores: scores (N, T).
        values: values (N, T, D).
        past: state from the previous call; None for the first.

    Returns:
        Contexts (N, T, D), and the state for the next call.
    """
    with torch.autocast(values.device.type, enabled=False):
        all_scores, all_values = scores.float(), values.float()
        if past is not None:
            all_scores = torch.cat([past[0], all_scores], dim=1)
            all_values = torch.cat([past[1].unsqueeze(1), all_values], dim=1)
        new, total = scores.shape[1], all_scores.shape[1]
        later = torch.ones(new, total, dtype=torch.bool, device=scores.device).triu(total - new + 1)
        weights = all_scores.unsqueeze(1).masked_fill(later, -torch.inf).softmax(dim=-1)
        context = weights @ all_values
        following = all_scores.logsumexp(dim=1, keepdim=True), context[:, -1]
    return context.to(values.dtype), following
