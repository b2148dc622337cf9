"""The running context against a softmax over each prefix (RCAN eq. 14)."""

import pytest
import torch

from crossray.layers.context import running_context


def brute_force(scores: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    prefixes = [
        (scores[:, : end + 1].double().softmax(dim=1).unsqueeze(-1) * values[:, : end + 1].double()).sum(dim=1)
        for end in range(scores.shape[1])
    ]
    return torch.stack(prefixes, dim=1).to(values.dtype)


@pytest.mark.parametrize("spread", [1.0, 100.0, 1e4])
def test_every_position_equals_the_softmax_over_its_prefix(spread: float) -> None:
    generator = torch.Generator().manual_seed(0)
    scores, values = torch.randn(3, 11, generator=generator) * spread, torch.randn(3, 11, 4, generator=generator)
    context, _ = running_context(scores, values)
    torch.testing.assert_close(context, brute_force(scores, values), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("spread", [1.0, 1e4])
@pytest.mark.parametrize("pieces", [[1] * 11, [4, 1, 6], [1, 10]])
def test_piece_by_piece_equals_all_at_once(spread: float, pieces: list[int]) -> None:
    generator = torch.Generator().manual_seed(1)
    scores, values = torch.randn(3, 11, generator=generator) * spread, torch.randn(3, 11, 4, generator=generator)
    past, found = None, []
    for score, value in zip(scores.split(pieces, dim=1), values.split(pieces, dim=1), strict=True):
        context, past = running_context(score, value, past)
        found.append(context)
    torch.testing.assert_close(torch.cat(found, dim=1), brute_force(scores, values), atol=1e-5, rtol=1e-5)


def test_a_later_position_changes_nothing_before_it_and_gets_no_gradient_from_it() -> None:
    scores, values = torch.randn(2, 6, requires_grad=True), torch.randn(2, 6, 3, requires_grad=True)
    context, _ = running_context(scores, values)
    score_gradient, value_gradient = torch.autograd.grad(context[:, 3].sum(), (scores, values))
    assert (score_gradient[:, 4:] == 0).all()
    assert (value_gradient[:, 4:] == 0).all()
    assert (value_gradient[:, :4] != 0).all()
    other = torch.cat([scores[:, :4], scores[:, 4:] + 1e6], dim=1)
    torch.testing.assert_close(running_context(other, values)[0][:, :4], context[:, :4], atol=0, rtol=0)


def test_half_precision_values_keep_a_float32_state() -> None:
    scores, values = torch.zeros(1, 400), torch.ones(1, 400, 2)
    values[:, ::2] = 2.0
    past = None
    for score, value in zip(scores.bfloat16().split(1, dim=1), values.bfloat16().split(1, dim=1), strict=True):
        context, past = running_context(score, value, past)
    assert context.dtype == torch.bfloat16
    assert past is not None
    torch.testing.assert_close(past[1], torch.full((1, 2), 1.5), atol=1e-3, rtol=0)
