"""Orthonormalizes vectors in order, stable in float32 (COACL's MOM, UAR's basis).

Shapes: N vectors of D channels, r of them independent.
"""

from typing import Literal

import torch
from torch import Tensor


def gram_schmidt(rows: Tensor, tolerance: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Orthonormalize rows in order, each against the rows before it.

    The result equals that of Gram-Schmidt, but is computed by QR decomposition with Householder reflections, which
    remains orthogonal up to rounding where the textbook recursion does not. Rows that depend almost linearly on those
    before them are dropped before the differentiable decomposition: their remainder would be noise scaled to length 1,
    and the gradient for dependent rows is infinite.

    Args:
        rows: rows (N, D).
        tolerance: a row is dropped unless its component orthogonal to the rows before it is longer than this share of
            its length.

    Returns:
        The orthonormal rows (r, D) in float32 (float64 for float64 input), r <= min(N, D), and the indices (r,) int64
        of the rows that were not dropped. r is 0 if all rows are zero.

    Example:
        >>> rows, kept = gram_schmidt(torch.tensor([[2.0, 0.0], [4.0, 0.0], [1.0, 3.0]]))
        >>> rows.round(decimals=3).abs(), kept
        (tensor([[1., 0.],
                [0., 1.]]), tensor([0, 2]))
    """
    with torch.autocast(rows.device.type, enabled=False):
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        kept = _independent(rows.detach(), tolerance)
        orthonormal, triangle = torch.linalg.qr(rows[kept].T)
        return (orthonormal * triangle.diagonal().sign()).T, kept


def _independent(rows: Tensor, tolerance: float) -> Tensor:
    """Return the indices of the independent rows, with a single decomposition if all of them are."""
    least = tolerance * rows.norm(dim=1)
    kept = torch.arange(len(rows), device=rows.device)
    while True:
        candidates = rows[kept]
        orthonormal, triangle = torch.linalg.qr(candidates.T)
        new = triangle.diagonal().abs() > least[kept[: triangle.shape[0]]]
        if bool(new.all()):
            return kept[: len(new)]
        # the diagonal is only valid up to the first dependent row, whose direction is arbitrary: drop all rows that
        # depend on those before it, and test the others again
        first = int(new.int().argmin())
        basis = orthonormal[:, :first]
        rest = (candidates - candidates @ basis @ basis.T).norm(dim=1) > least[kept]
        rest[:first], rest[first] = True, False
        kept = kept[rest]


#: Type of a basis; see `make_basis`.
Basis = Literal["semi", "blocks", "uniform", "normal"]


def make_basis(kind: Basis, rows: int, width: int) -> Tensor:
    """Create UAR's basis, in which features are represented.

    More than `width` vectors cannot be orthonormal, so the paper's 2,048 vectors of 512 channels can be understood in
    two ways ("semi" and "blocks").

    Args:
        kind: "semi", orthonormal columns; "blocks", square blocks with orthonormal rows; "uniform" or "normal", random
            numbers with the same variance as "semi", 1 / rows, but other angles.
        rows: number of vectors; at least `width` for "semi".
        width: number of channels D.

    Returns:
        Basis (rows, width) float32.
    """
    if torch.get_default_device().type == "meta":  # only the shape is needed
        return torch.empty(rows, width)
    if kind == "semi":
        return gram_schmidt(torch.randn(width, rows))[0].T.contiguous()
    if kind == "blocks":
        blocks = [gram_schmidt(torch.randn(width, width))[0] for _ in range(-(-rows // width))]
        return torch.cat(blocks)[:rows]
    if kind == "uniform":
        return (torch.rand(rows, width) * 2 - 1) * (3 / rows) ** 0.5
    return torch.randn(rows, width) / rows**0.5
