"""A weighted mean over everything that has been read so far, for teacher forcing and word by word (RCAN eq. 14).

Shapes: N rows, T new positions, D width.
"""

import torch
from torch import Tensor

#: What a running context keeps of the positions before: the logarithm of their summed weights (N, 1), and their
#: weighted mean (N, D). Both in float32: together they are one position that stands for all of them.
Past = tuple[Tensor, Tensor]


def running_context(scores: Tensor, values: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
    """Mean of the values up to each position, weighted by the softmax of their scores up to that position.

    No score can overflow, because softmax subtracts the largest of each row, and no position sees a later one; padding
    stands after a report, where none of its positions looks.

    Args:
        scores: (N, T).
        values: (N, T, D).
        past: what the call before returned; None when nothing comes before.

    Returns:
        Contexts (N, T, D), and what the next call needs.
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
