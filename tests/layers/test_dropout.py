"""Dropout against what PyTorch's promises: shares, scale, gradients, seeds."""

import pytest
import torch

from crossray.layers.dropout import Dropout, dropout


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keeps_the_mean_and_drops_the_share(share: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dropped = dropout(torch.ones(1000, 999, dtype=dtype), share)
    assert dropped.dtype == dtype
    assert set(dropped.float().unique().tolist()) == {0.0, torch.tensor(1 / (1 - share), dtype=dtype).item()}
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=0.002)


def test_positions_are_independent() -> None:
    torch.manual_seed(0)
    zero = (dropout(torch.ones(400_003), 0.5) == 0).float() - 0.5
    for lag in (1, 2, 3, 4, 8, 64):
        assert abs((zero[lag:] * zero[:-lag]).mean().item()) < 0.002


def test_the_gradient_reaches_what_was_kept() -> None:
    x = torch.randn(5, 7, requires_grad=True)
    dropped = dropout(x, 0.4)
    dropped.sum().backward()
    torch.testing.assert_close(x.grad, (dropped != 0) / 0.6)


def test_a_seed_repeats_it_and_another_does_not() -> None:
    x = torch.ones(101)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(dropout(x, 0.5))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_nothing_is_dropped_outside_training() -> None:
    x = torch.randn(3, 4)
    assert torch.equal(Dropout(0.9).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    with pytest.raises(ValueError, match="share"):
        Dropout(1.0)
