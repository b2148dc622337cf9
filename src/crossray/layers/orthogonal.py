"""Orthonormal vectors out of given ones, in their order: Gram-Schmidt that float32 can bear (COACL's MOM, UAR's basis).

Shapes: N vectors of D channels, r of them independent.
"""

from typing import Literal

import torch
from torch import Tensor


def gram_schmidt(rows: Tensor, tolerance: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Orthonormalize rows one after the other; each loses what the rows before it already span.

    Gram-Schmidt is the QR decomposition of the transposed matrix, made unique by a positive diagonal of R, and QR by
    Householder reflections stays orthogonal to rounding where the textbook recursion does not. A row that is hardly
    new is left out before the decomposition that gradients run through: what remains of it would be noise blown up to
    length 1, and the gradient of a decomposition of dependent rows is infinite.

    Args:
        rows: (N, D).
        tolerance: a row is left out unless the part of it that is new is longer than this share of its own length.

    Returns:
        The orthonormal rows (r, D) in float32 (float64 for float64), r <= min(N, D), and the places (r,) int64 of those
        that were kept. r is 0 when all rows are zero.
    """
    with torch.autocast(rows.device.type, enabled=False):
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        kept = _independent(rows.detach(), tolerance)
        orthonormal, triangle = torch.linalg.qr(rows[kept].T)
        return (orthonormal * triangle.diagonal().sign()).T, kept


def _independent(rows: Tensor, tolerance: float) -> Tensor:
    """Places of the rows that are new; one decomposition when all of them are."""
    least = tolerance * rows.norm(dim=1)
    kept = torch.arange(len(rows), device=rows.device)
    while True:
        candidates = rows[kept]
        orthonormal, triangle = torch.linalg.qr(candidates.T)
        new = triangle.diagonal().abs() > least[kept[: triangle.shape[0]]]
        if bool(new.all()):
            return kept[: len(new)]
        # the diagonal is only right up to the first dependent row, whose direction is arbitrary: all rows that depend
        # on those before it go, the others are looked at again
        first = int(new.int().argmin())
        basis = orthonormal[:, :first]
        rest = (candidates - candidates @ basis @ basis.T).norm(dim=1) > least[kept]
        rest[:first], rest[first] = True, False
        kept = kept[rest]


#: Kinds of basis, see `make_basis`.
Basis = Literal["semi", "blocks", "uniform", "normal"]


def make_basis(kind: Basis, rows: int, width: int) -> Tensor:
    """Vectors that features are written in: UAR's basis.

    More than `width` vectors cannot be orthonormal; two readings of the paper's 2,048 of 512 channels remain.

    Args:
        kind: "semi", orthonormal columns; "blocks", one square block below the other, each with orthonormal rows;
            "uniform" or "normal" numbers with the variance of "semi", 1 / rows, which differ from it by nothing but
            their angles.
        rows: number of vectors; at least `width` for "semi".
        width: channels D.

    Returns:
        (rows, width) float32.
    """
    if torch.get_default_device().type == "meta":  # only the shape is asked for
        return torch.empty(rows, width)
    if kind == "semi":
        return gram_schmidt(torch.randn(width, rows))[0].T.contiguous()
    if kind == "blocks":
        blocks = [gram_schmidt(torch.randn(width, width))[0] for _ in range(-(-rows // width))]
        return torch.cat(blocks)[:rows]
    if kind == "uniform":
        return (torch.rand(rows, width) * 2 - 1) * (3 / rows) ** 0.5
    return torch.randn(rows, width) / rows**0.5
