"""Attention by optimal transport between image positions and text prompts, and the overlap of two maps.

REVTAF's MPSA (Zhou et al. 2025, eq. 10; Kim et al. 2024, OTSeg), and the overlap in its FCC (eq. 13).

Shapes: B studies, h heads, M image positions, K prompts (N sentences or E entities).
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossray.layers.dropout import Dropout

#: Number of iterations between two checks of the marginals.
_BETWEEN_CHECKS = 10
#: Added to the diagonal of the linear system for the gradient, which is singular if a plan is block-diagonal.
_RIDGE = 1e-6


def sinkhorn(
    cost: Tensor,
    column_mask: Tensor | None = None,
    epsilon: float = 0.05,
    iterations: int = 50,
    tolerance: float = 1e-4,
    tau: float = math.inf,
) -> tuple[Tensor, Tensor]:
    """Solve entropic optimal transport from a uniform distribution over the rows, in the log domain and in float32.

    The plan T minimizes <cost, T> - epsilon H(T) + tau KL(column sums, uniform) among all plans whose rows sum to
    1 / M. With an infinite tau it is balanced: every valid column receives 1 / (number of valid columns). A finite tau
    lets columns receive less or more, down to nothing (Chizat et al. 2018, relaxed on one side); at tau = 0 it is the
    softmax of -cost / epsilon in each row.

    Each problem stops by its own error, so its plan does not depend on the rest of the batch. The gradient is that of
    the converged plan, by the implicit function theorem: one linear system, independent of the number of iterations.

    Args:
        cost: costs (..., M, K).
        column_mask: (..., K) bool, True for valid columns; all if None.
        epsilon: weight of the entropy.
        iterations: maximum number of updates of rows and columns.
        tolerance: a problem stops when its error is at most this value.
        tau: weight of the constraint on the columns' marginal.

    Returns:
        The plan (..., M, K): its rows sum to 1 / M, and its valid columns to the optimum for `tau`, up to the error.
        Masked columns are exactly 0, and so is the whole plan if all columns are masked. And the error (...), without
        gradient: the sum over the columns of the absolute difference from the optimum.
    """
    if column_mask is None:
        column_mask = torch.ones_like(cost[..., 0, :], dtype=torch.bool)
    column_mask = column_mask.expand(*cost.shape[:-2], cost.shape[-1])
    with torch.autocast(cost.device.type, enabled=False):
        cost = cost.to(torch.promote_types(cost.dtype, torch.float32))
        plan, error = _Transport.apply(cost, column_mask, epsilon, iterations, tolerance, tau)
        return plan, error


class _Transport(torch.autograd.Function):
    """The plan of `sinkhorn` and its error, with the gradient of the converged plan."""

    @staticmethod
    def forward(
        context: Any, cost: Tensor, column_mask: Tensor, epsilon: float, iterations: int, tolerance: float, tau: float
    ) -> tuple[Tensor, Tensor]:
        plan, error = _solve(-cost / epsilon, column_mask, iterations, tolerance, epsilon / tau if tau else math.inf)
        context.save_for_backward(plan)
        context.epsilon, context.tau = epsilon, tau
        context.mark_non_differentiable(error)
        return plan, error

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        """Differentiate at fixed sums of the rows; the sums of the columns may change as far as tau allows.

        With G the gradient of the plan T, that of the cost is -T (G - a - b) / epsilon. The row vector a and the column
        vector b solve r a + T b = (T G) 1 and T' a + (1 + epsilon / tau) c b = (T G)' 1, where r and c are the sums of
        the plan's rows and columns. The columns are eliminated.
        """
        (plan,), gradient, epsilon, tau = context.saved_tensors, gradients[0], context.epsilon, context.tau
        weighted = plan * gradient
        by_row, by_column = weighted.sum(-1), weighted.sum(-2)
        rows, count = plan.sum(-1), plan.shape[-2]
        if tau == 0:  # columns are free: b is 0
            a = by_row / rows.where(rows > 0, 1)
            return -plan * (gradient - a.unsqueeze(-1)) / epsilon, None, None, None, None, None
        columns = (1 + epsilon / tau) * plan.sum(-2)
        columns = columns.where(columns > 0, 1)
        share = plan / columns.unsqueeze(-2)
        system = rows.diag_embed() - share @ plan.mT
        if math.isinf(tau):
            # the balanced system's null space is a constant added to a and taken from b: a matrix of ones removes it
            system = system + (1 / count) ** 2
        system = system + (_RIDGE / count) * torch.eye(count, dtype=plan.dtype, device=plan.device)
        right = by_row - (share @ by_column.unsqueeze(-1)).squeeze(-1)
        a = torch.linalg.solve(system, right)
        b = (by_column - (plan.mT @ a.unsqueeze(-1)).squeeze(-1)) / columns
        return -plan * (gradient - a.unsqueeze(-1) - b.unsqueeze(-2)) / epsilon, None, None, None, None, None


def _solve(
    kernel: Tensor, column_mask: Tensor, iterations: int, tolerance: float, slack: float
) -> tuple[Tensor, Tensor]:
    """Plan and error for the log kernel -C / epsilon and slack = epsilon / tau.

    The rows are updated last, so that they are exact. At the optimum, a column's sum c and its potential v satisfy
    log c = log(uniform) - slack * v.
    """
    # a problem without valid columns is solved with all of them, and its plan is cleared at the end
    valid = column_mask | ~column_mask.any(-1, keepdim=True)
    kernel = kernel.masked_fill(~valid.unsqueeze(-2), -math.inf)
    row = -math.log(kernel.shape[-2])
    uniform = -valid.sum(-1, keepdim=True).to(kernel.dtype).log()
    u = row - kernel.logsumexp(-1)
    v = torch.zeros_like(kernel[..., 0, :])

    def plan_and_error() -> tuple[Tensor, Tensor]:
        plan = (kernel + u.unsqueeze(-1) + v.unsqueeze(-2)).exp()
        if math.isinf(slack):
            return plan, torch.zeros_like(plan[..., 0, 0])
        wanted = (uniform - slack * v).exp() * valid
        return plan, (plan.sum(-2) - wanted).abs().sum(-1)

    open_ = torch.ones_like(u[..., :1], dtype=torch.bool)
    for done in range(1, iterations + 1 if math.isfinite(slack) else 1):
        v_next = ((uniform - (kernel + u.unsqueeze(-1)).logsumexp(-2)) / (1 + slack)).where(valid, 0)
        u_next = row - (kernel + v_next.unsqueeze(-2)).logsumexp(-1)
        u, v = u_next.where(open_, u), v_next.where(open_, v)
        if done % _BETWEEN_CHECKS == 0 and done < iterations:
            open_ = (plan_and_error()[1] > tolerance).unsqueeze(-1)
            if not open_.any():
                break
    plan, error = plan_and_error()
    return plan.masked_fill(~column_mask.unsqueeze(-2), 0), error * column_mask.any(-1)


class SinkhornAttention(nn.Module):
    """Multi-prompt Sinkhorn attention of image positions to text prompts (MPSA, eq. 10).

    The released code solves one transport problem for each prompt. A problem with a single column has only one plan,
    the uniform one, so every position receives the same sum of the prompts' values, and the code's score map is the
    cosine. Here, all prompts of a study share one plan.

    Args:
        visual_width: channels of the image positions.
        text_width: channels of the prompts.
        width: channels of the product, a multiple of `heads`.
        heads: number of transport problems per study, each on its share of the channels.
        kind: "sinkhorn"; "softmax", attention by the cosines divided by epsilon, which is the plan for `tau` 0;
            "legacy_uniform", what the released code computes.
        epsilon: see `sinkhorn`; `iterations`, `tolerance` and `tau` too.
        dropout: dropout probability of the plan in training.
    """

    def __init__(
        self,
        visual_width: int,
        text_width: int,
        width: int,
        heads: int = 1,
        kind: Literal["sinkhorn", "softmax", "legacy_uniform"] = "sinkhorn",
        epsilon: float = 0.05,
        iterations: int = 50,
        tolerance: float = 1e-4,
        dropout: float = 0.0,
        tau: float = math.inf,
    ) -> None:
        super().__init__()
        self.heads, self.kind = heads, kind
        self.epsilon, self.iterations, self.tolerance, self.tau = epsilon, iterations, tolerance, tau
        self.query = nn.Linear(visual_width, width)
        self.key = nn.Linear(text_width, width)
        self.value = nn.Linear(text_width, width)
        self.output = nn.Linear(width, width)
        self.dropout = Dropout(dropout)

    def forward(self, visual: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attend from image positions to the prompts of their study.

        Args:
            visual: (B, M, visual width).
            text: (B, K, text width).
            mask: (B, K) bool, True where a prompt is valid; a study without one receives the output map's bias.

        Returns:
            The attended (B, M, width); the plan (B, h, M, K) in float32 before dropout, whose rows sum to 1 / M
            ("legacy_uniform": whose columns do, to 1), so that the attention weights are M times the plan; and the
            cosines (B, h, M, K) of positions and prompts in float32, 0 for masked prompts.
        """
        query, key, value = (self._split(x) for x in (self.query(visual), self.key(text), self.value(text)))
        valid = mask[:, None, None, :]
        with torch.autocast(query.device.type, enabled=False):
            query, key = query.float(), key.float()
            cosine = (F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT).masked_fill(~valid, 0)
            plan = self._plan(cosine, mask)
        weights = plan if self.kind == "legacy_uniform" else plan * plan.shape[-2]
        attended = self.dropout(weights).to(value.dtype) @ value
        return self.output(attended.transpose(1, 2).flatten(2)), plan, cosine

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, width) to (B, h, L, width / h)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _plan(self, cosine: Tensor, mask: Tensor) -> Tensor:
        mask = mask[:, None, :].expand(-1, self.heads, -1)
        if self.kind == "legacy_uniform":
            return mask.unsqueeze(-2).expand_as(cosine).float() / cosine.shape[-2]
        # scaled products of freshly initialized projections are so small that their softmax would be a mean
        tau = 0.0 if self.kind == "softmax" else self.tau
        return sinkhorn(1 - cosine, mask, self.epsilon, self.iterations, self.tolerance, tau)[0]


def soft_iou(first: Tensor, second: Tensor) -> Tensor:
    """Compute the soft intersection over union of maps: sum of the minima over sum of the maxima (eq. 13).

    Args:
        first: maps (B, N, M); each map is divided by its maximum, and negative values count as 0.
        second: maps (B, E, M), treated in the same way.

    Returns:
        (B, N, E) from 0 to 1; 0 if one of the maps is 0 everywhere.

    Example:
        >>> soft_iou(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[2.0, 2.0], [0.0, 1.0]]]))
        tensor([[[0.5000, 0.0000]]])
    """
    first, second = (maps.clamp_min(0) for maps in (first, second))
    first, second = (maps / maps.amax(-1, keepdim=True).clamp_min(1e-6) for maps in (first, second))
    # min + max = a + b and max - min = |a - b|, so no B x N x E x M tensor is needed
    together = first.sum(-1).unsqueeze(-1) + second.sum(-1).unsqueeze(-2)
    apart = torch.cdist(first, second, p=1)
    return (together - apart) / (together + apart).clamp_min(1e-6)


def hard_iou(first: Tensor, second: Tensor, side: int = 224) -> Tensor:
    """Compute the intersection over union of maps thresholded as in REVTAF's released code, without gradient.

    The maps are enlarged to side x side, scaled by the extremes of the whole batch, and thresholded at 0.5.

    Args:
        first: maps (B, N, M), where M is a square number.
        second: maps (B, E, M).
        side: side length of the enlarged maps.

    Returns:
        (B, N, E).
    """
    first, second = _cut(first.detach(), side), _cut(second.detach(), side)
    both = first @ second.mT
    return both / (first.sum(-1).unsqueeze(-1) + second.sum(-1).unsqueeze(-2) - both).clamp_min(1e-6)


def _cut(maps: Tensor, side: int) -> Tensor:
    """Enlarge maps (B, N, M), scale them over the whole batch and threshold them: (B, N, side * side) of 0 and 1."""
    small = math.isqrt(maps.shape[-1])
    large = F.interpolate(maps.unflatten(-1, (small, small)), size=(side, side), mode="bilinear")
    lowest, highest = large.amin(), large.amax()
    return ((large - lowest) / (highest - lowest).clamp_min(1e-6) >= 0.5).float().flatten(-2)
