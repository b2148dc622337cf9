"""Gram-Schmidt by QR against the textbook recursion in float64, and where that recursion fails."""

import pytest
import torch
from torch import Tensor

from crossray.layers.orthogonal import gram_schmidt


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def textbook(rows: Tensor, tolerance: float) -> tuple[Tensor, list[int]]:
    """Each row minus its projections on those before it, twice, in float64."""
    found: list[Tensor] = []
    kept: list[int] = []
    for place, row in enumerate(rows.double()):
        rest = row.clone()
        for _ in range(2):
            for unit in found:
                rest = rest - (rest @ unit) * unit
        if rest.norm() > tolerance * row.norm():
            found.append(rest / rest.norm())
            kept.append(place)
    return torch.stack(found), kept


def assert_orthonormal(rows: Tensor) -> None:
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("count", "width"), [(1, 5), (6, 6), (32, 512), (64, 512)])
def test_equals_the_textbook(count: int, width: int) -> None:
    rows = random(count, width) * torch.logspace(-3, 3, count)[:, None]
    found, kept = gram_schmidt(rows)
    expected, places = textbook(rows, 1e-5)
    assert kept.tolist() == places == list(range(count))
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=0)
    assert_orthonormal(found)


def test_a_row_that_is_not_new_is_left_out() -> None:
    a, b, c, d = random(4, 16)
    rows = torch.stack([a, 3 * a, b, a, 0 * a, a - 2 * b, c, b + c, d])
    found, kept = gram_schmidt(rows)
    assert kept.tolist() == [0, 2, 6, 8]
    expected, places = textbook(torch.stack([a, b, c, d]), 1e-5)
    assert places == [0, 1, 2, 3]
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=0)


def test_the_arbitrary_direction_of_a_dependent_row_takes_nothing_away() -> None:
    # Householder reflections complete [x, x] by the next axis, in which the third row lies
    x, y, z = torch.eye(3)
    found, kept = gram_schmidt(torch.stack([x, x, y, x + y, z]))
    assert kept.tolist() == [0, 2, 4]
    torch.testing.assert_close(found, torch.eye(3))


def test_more_rows_than_channels() -> None:
    rows = random(20, 7)
    rows[3], rows[5] = rows[1], rows[0] + rows[2]
    found, kept = gram_schmidt(rows)
    assert kept.tolist() == [0, 1, 2, 4, 6, 7, 8]
    assert_orthonormal(found)


@pytest.mark.parametrize("closeness", [1e-1, 1e-3])
def test_stays_orthogonal_where_rows_almost_agree(closeness: float) -> None:
    rows = random(1, 512) + closeness * random(64, 512, seed=1)
    found, kept = gram_schmidt(rows)
    assert len(kept) == 64
    assert_orthonormal(found)


def test_rounding_noise_is_no_direction() -> None:
    rows = random(3, 512)[torch.arange(24) % 3] * (1 + 1e-7 * random(24, 1, seed=1))
    assert gram_schmidt(rows)[1].tolist() == [0, 1, 2]


def test_zero_rows_give_no_basis() -> None:
    found, kept = gram_schmidt(torch.zeros(3, 4))
    assert found.shape == (0, 4)
    assert len(kept) == 0


@pytest.mark.parametrize("dependent", [False, True])
def test_gradient_is_finite_and_that_of_the_textbook(dependent: bool) -> None:
    rows, weights = random(6, 10), random(6, 10, seed=2)
    if dependent:
        rows[2], rows[4] = rows[0], rows[1] - rows[3]
    ours, theirs = rows.clone().requires_grad_(), rows.double().clone().requires_grad_()
    found, kept = gram_schmidt(ours)
    expected, _ = textbook(theirs, 1e-5)
    assert len(kept) == (4 if dependent else 6)
    (found * weights[kept]).sum().backward()
    (expected * weights[kept]).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad.float(), atol=1e-4, rtol=1e-4)


def test_float32_under_autocast() -> None:
    rows = random(16, 64).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _ = gram_schmidt(rows)
    assert found.dtype == torch.float32
    assert_orthonormal(found)
