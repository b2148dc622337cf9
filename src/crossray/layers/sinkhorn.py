"""Attention by optimal transport between image positions and text prompts (REVTAF's FVTAF; SPEC 4.5 and 4.6).

Shapes: B studies, h heads, M image positions, K prompts (N sentences or E entities).
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Iterations between two looks at the marginals.
_BETWEEN_CHECKS = 10
#: Added to the diagonal of the system behind the gradient, which is singular where a plan falls apart into blocks.
_RIDGE = 1e-6


def sinkhorn(
    cost: Tensor,
    column_mask: Tensor | None = None,
    epsilon: float = 0.05,
    iterations: int = 50,
    tolerance: float = 1e-4,
) -> tuple[Tensor, Tensor]:
    """Entropic optimal transport between uniform marginals, in the log domain and in float32.

    Each problem stops by its own error, so that its plan does not depend on what else is in the batch. The gradient is
    that of the converged plan, by the implicit function theorem: one linear system, however many iterations there were.

    Args:
        cost: (..., M, K).
        column_mask: (..., K) bool, True where a column takes part; all of them when None.
        epsilon: weight of the entropy.
        iterations: at most so many updates of rows and columns.
        tolerance: a problem stops when its error is at most this.

    Returns:
        The plan (..., M, K): its rows sum to 1 / M, its valid columns to 1 / (number of valid columns) within the
        error; masked columns are exactly 0, and so is the whole plan where every column is masked. And the error (...):
        the sum over the columns of what is missing or too much, without gradient.
    """
    if column_mask is None:
        column_mask = torch.ones_like(cost[..., 0, :], dtype=torch.bool)
    column_mask = column_mask.expand(*cost.shape[:-2], cost.shape[-1])
    with torch.autocast(cost.device.type, enabled=False):
        cost = cost.to(torch.promote_types(cost.dtype, torch.float32))
        plan: Tensor = _Transport.apply(cost, column_mask, epsilon, iterations, tolerance)
        return plan, _error(plan.detach(), column_mask)


class _Transport(torch.autograd.Function):
    """The plan of `sinkhorn`, with the gradient of the converged plan."""

    @staticmethod
    def forward(
        context: Any, cost: Tensor, column_mask: Tensor, epsilon: float, iterations: int, tolerance: float
    ) -> Tensor:
        plan = _solve(-cost / epsilon, column_mask, iterations, tolerance)
        context.save_for_backward(plan)
        context.epsilon = epsilon
        return plan

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        """A change of the cost may not change the marginals: the gradient loses what would.

        With G the gradient of the plan T, that of the cost is -T (G - a - b) / epsilon, where the row vector a and the
        column vector b make the rows and the columns of the result sum to 0. The columns are eliminated.
        """
        (plan,) = context.saved_tensors
        rows, columns = plan.sum(-1), plan.sum(-2)
        share = plan / columns.unsqueeze(-2).where(columns.unsqueeze(-2) > 0, 1)
        weighted = plan * gradient
        by_row, by_column = weighted.sum(-1), weighted.sum(-2)
        # the system's null space is a constant added to a and taken from b: the matrix of ones removes it
        system = rows.diag_embed() - share @ plan.mT + (1 / rows.shape[-1]) ** 2
        system = system + (_RIDGE / rows.shape[-1]) * torch.eye(rows.shape[-1], dtype=plan.dtype, device=plan.device)
        right = by_row - (share @ by_column.unsqueeze(-1)).squeeze(-1)
        a = torch.linalg.solve(system, right)
        b = (by_column - (plan.mT @ a.unsqueeze(-1)).squeeze(-1)) / columns.where(columns > 0, 1)
        return -plan * (gradient - a.unsqueeze(-1) - b.unsqueeze(-2)) / context.epsilon, None, None, None, None


def _solve(kernel: Tensor, column_mask: Tensor, iterations: int, tolerance: float) -> Tensor:
    """The plan of the log kernel -C / epsilon; the rows are updated last, so that they are exact."""
    # a problem without columns is solved as if it had all of them, and cleared in the end
    valid = column_mask | ~column_mask.any(-1, keepdim=True)
    kernel = kernel.masked_fill(~valid.unsqueeze(-2), -math.inf)
    row = -math.log(kernel.shape[-2])
    column = -valid.sum(-1, keepdim=True).to(kernel.dtype).log()
    u = row - kernel.logsumexp(-1)
    v = torch.zeros_like(kernel[..., 0, :])
    open_ = torch.ones_like(u[..., :1], dtype=torch.bool)
    for done in range(1, iterations + 1):
        v_next = (column - (kernel + u.unsqueeze(-1)).logsumexp(-2)).where(valid, 0)
        u_next = row - (kernel + v_next.unsqueeze(-2)).logsumexp(-1)
        u, v = u_next.where(open_, u), v_next.where(open_, v)
        if done % _BETWEEN_CHECKS == 0 and done < iterations:
            error = _error((kernel + u.unsqueeze(-1) + v.unsqueeze(-2)).exp(), valid)
            open_ = (error > tolerance).unsqueeze(-1)
            if not open_.any():
                break
    plan = (kernel + u.unsqueeze(-1) + v.unsqueeze(-2)).exp()
    return plan.masked_fill(~column_mask.unsqueeze(-2), 0)


def _error(plan: Tensor, column_mask: Tensor) -> Tensor:
    """Sum over the columns of the distance from their marginal, (...)."""
    valid = column_mask.to(plan.dtype)
    target = valid / valid.sum(-1, keepdim=True).clamp_min(1)
    return (plan.sum(-2) - target).abs().sum(-1)


class SinkhornAttention(nn.Module):
    """Multi-prompt Sinkhorn attention of image positions to text prompts (MPSA, eq. 10; SPEC 4.5).

    The released code solves one transport problem for each prompt, whose only plan is uniform: every position receives
    the same vector. Here all prompts of a study share one plan (SPEC 8, V6).

    Args:
        visual_width: channels of the image positions.
        text_width: channels of the prompts.
        width: channels of the product, a multiple of `heads`.
        heads: transport problems a study, each on its share of the channels.
        kind: "sinkhorn"; "softmax", scaled dot-product attention; "legacy_uniform", what the released code computes.
        epsilon: see `sinkhorn`; `iterations` and `tolerance` too.
        dropout: share of the plan that is dropped in training.
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
    ) -> None:
        super().__init__()
        self.heads, self.kind = heads, kind
        self.epsilon, self.iterations, self.tolerance = epsilon, iterations, tolerance
        self.query = nn.Linear(visual_width, width)
        self.key = nn.Linear(text_width, width)
        self.value = nn.Linear(text_width, width)
        self.output = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, visual: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Attend from image positions to the prompts of their study.

        Args:
            visual: (B, M, visual width).
            text: (B, K, text width).
            mask: (B, K) bool, True where a prompt is valid; a study without one receives the output map's bias.

        Returns:
            The attended (B, M, width), and the plan (B, h, M, K) in float32 before dropout: its rows sum to 1 / M
            ("legacy_uniform": its columns sum to 1). The attention weights are M times the plan.
        """
        query, key, value = (self._split(x) for x in (self.query(visual), self.key(text), self.value(text)))
        plan = self._plan(query, key, mask)
        weights = plan if self.kind == "legacy_uniform" else plan * plan.shape[-2]
        attended = self.dropout(weights).to(value.dtype) @ value
        return self.output(attended.transpose(1, 2).flatten(2)), plan

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, width) to (B, h, L, width / h)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _plan(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        mask = mask[:, None, :].expand(-1, self.heads, -1)
        positions = query.shape[-2]
        if self.kind == "legacy_uniform":
            return mask.unsqueeze(-2).expand(-1, -1, positions, -1).float() / positions
        with torch.autocast(query.device.type, enabled=False):
            query, key = query.float(), key.float()
            if self.kind == "sinkhorn":
                cost = 1 - F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT
                return sinkhorn(cost, mask, self.epsilon, self.iterations, self.tolerance)[0]
            scores = query @ key.mT / math.sqrt(query.shape[-1])
            # finite: a study whose prompts are all masked would otherwise hold nothing but -inf
            scores = scores.masked_fill(~mask.unsqueeze(-2), torch.finfo(scores.dtype).min)
            return scores.softmax(-1).masked_fill(~mask.unsqueeze(-2), 0) / positions


def soft_iou_consistency(
    plan_global: Tensor,
    plan_local: Tensor,
    similarity: Tensor,
    mask: Tensor,
    kind: Literal["soft", "legacy"] = "soft",
) -> Tensor:
    """FCC: prompts that say the same should look at the same place (eq. 12-14; SPEC 4.6).

    Args:
        plan_global: (B, M, N), column n is where sentence n looks.
        plan_local: (B, M, E), column e is where entity e looks.
        similarity: (B, N, E), sigmoid of the cosine of the prompts' raw embeddings.
        mask: (B, N) bool, True where a sentence is valid.
        kind: "soft", each map divided by its maximum, soft intersection over union at the native resolution;
            "legacy", the released code: maps enlarged to 224 x 224, scaled by the extremes of the whole batch and cut
            at 0.5, which leaves no gradient for the plans. M must be a square number then.

    Returns:
        Mean of 1 - similarity * IoU over the valid sentences and all entities, in float32; 0 without any sentence.
    """
    with torch.autocast(plan_global.device.type, enabled=False):
        overlap = _soft_iou if kind == "soft" else _legacy_iou
        losses = 1 - similarity.float() * overlap(plan_global.float().mT, plan_local.float().mT)
        valid = mask.unsqueeze(-1).to(losses.dtype).expand_as(losses)
        return (losses * valid).sum() / valid.sum().clamp_min(1)


def _soft_iou(first: Tensor, second: Tensor) -> Tensor:
    """Sum of minima over sum of maxima, for maps (B, N, M) and (B, E, M): (B, N, E)."""
    first, second = (maps / maps.amax(-1, keepdim=True).clamp_min(1e-6) for maps in (first, second))
    # min + max = a + b and max - min = |a - b|, so that no tensor of B x N x E x M is needed
    together = first.sum(-1).unsqueeze(-1) + second.sum(-1).unsqueeze(-2)
    apart = torch.cdist(first, second, p=1)
    return (together - apart) / (together + apart).clamp_min(1e-6)


def _legacy_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of maps as the released code cuts them, (B, N, E)."""
    first, second = _legacy_cut(first), _legacy_cut(second)
    both = first @ second.mT
    return both / (first.sum(-1).unsqueeze(-1) + second.sum(-1).unsqueeze(-2) - both).clamp_min(1e-6)


def _legacy_cut(maps: Tensor) -> Tensor:
    """Maps (B, N, M) enlarged, scaled over the whole batch and cut: (B, N, 224 * 224) of 0 and 1."""
    side = math.isqrt(maps.shape[-1])
    large = F.interpolate(maps.detach().unflatten(-1, (side, side)), size=(224, 224), mode="bilinear")
    lowest, highest = large.amin(), large.amax()
    return ((large - lowest) / (highest - lowest).clamp_min(1e-6) > 0.5).float().flatten(-2)
