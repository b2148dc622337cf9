"""Sinkhorn attention against POT, its gradient against unrolled iterations."""

import math

import numpy as np
import ot
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crossray.layers.sinkhorn import SinkhornAttention, sinkhorn


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosine_cost(rows: int, columns: int, batch: int = 2, width: int = 8, seed: int = 0) -> Tensor:
    """1 - cosine of random vectors: costs between 0 and 2, as attention makes them."""
    query, key = (
        F.normalize(random(batch, rows, width, seed=seed), dim=-1),
        random(batch, columns, width, seed=seed + 1),
    )
    return 1 - query @ F.normalize(key, dim=-1).mT


def masks(batch: int, columns: int) -> Tensor:
    """Different numbers of valid columns, one at least."""
    lengths = torch.linspace(1, columns, batch).long()
    return torch.arange(columns)[None] < lengths[:, None]


def unrolled(cost: Tensor, mask: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The textbook iteration in the log domain, for autograd to go through."""
    kernel = (-cost / epsilon).masked_fill(~mask[:, None], -1e9)
    row, column = -math.log(cost.shape[1]), -mask.sum(1, keepdim=True).to(cost.dtype).log()
    v = torch.zeros_like(kernel[:, 0])
    for _ in range(iterations):
        u = row - (kernel + v[:, None]).logsumexp(2)
        v = torch.where(mask, column - (kernel + u[:, :, None]).logsumexp(1), -1e9)
    return (kernel + u[:, :, None] + v[:, None]).exp()


@pytest.mark.parametrize(("rows", "columns"), [(49, 75), (49, 20), (49, 2), (5, 7)])
@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_equals_pot(rows: int, columns: int, epsilon: float) -> None:
    cost, mask = cosine_cost(rows, columns, batch=3), masks(3, columns)
    plan, error = sinkhorn(cost, mask, epsilon, iterations=2000, tolerance=1e-6)
    assert (error < 1e-4).all()
    for number in range(3):
        valid = int(mask[number].sum())
        expected = ot.sinkhorn(
            np.full(rows, 1 / rows), np.full(valid, 1 / valid), cost[number, :, :valid].double().numpy(), epsilon,
            method="sinkhorn_log", numItermax=20000, stopThr=1e-12,
        )  # fmt: skip
        torch.testing.assert_close(plan[number, :, :valid].double(), torch.from_numpy(expected), atol=1e-6, rtol=1e-3)


def test_marginals() -> None:
    """Within 1e-4 with the default number of iterations, at the shape of the paper; the rows to rounding."""
    cost, mask = cosine_cost(49, 75, batch=4, width=64), masks(4, 75)
    plan, error = sinkhorn(cost, mask)
    assert (plan >= 0).all()
    assert torch.equal(plan == 0, ~mask[:, None].expand_as(plan))
    torch.testing.assert_close(plan.sum(2), torch.full((4, 49), 1 / 49), atol=1e-7, rtol=0)
    torch.testing.assert_close(plan.sum(1), mask / mask.sum(1, keepdim=True), atol=1e-4, rtol=0)
    missing = (plan.sum(1) - mask / mask.sum(1, keepdim=True)).abs().sum(1)
    torch.testing.assert_close(error, missing)


def test_error_tells_of_too_few_iterations() -> None:
    cost = cosine_cost(49, 75)
    errors = [sinkhorn(cost, iterations=count, tolerance=0)[1].max().item() for count in (1, 5, 50, 500)]
    assert errors == sorted(errors, reverse=True) and errors[0] > 0.05 and errors[3] < 1e-5


def test_permutations_of_prompts_permute_the_plan() -> None:
    cost, mask, order = cosine_cost(49, 20), masks(2, 20), torch.randperm(20)
    torch.testing.assert_close(sinkhorn(cost[..., order], mask[:, order])[0], sinkhorn(cost, mask)[0][..., order])


def test_a_problem_is_independent_of_the_others() -> None:
    """One that converges at once beside one that does not: each has the plan that it has alone."""
    cost = torch.stack([torch.zeros(49, 20), cosine_cost(49, 20, batch=1)[0]])
    together = sinkhorn(cost, iterations=300)[0]
    for number in range(2):
        torch.testing.assert_close(together[number], sinkhorn(cost[number], iterations=300)[0], atol=1e-9, rtol=1e-5)
    padded = torch.cat([cost, torch.zeros(2, 49, 7)], dim=2)
    mask = torch.arange(27) < 20
    torch.testing.assert_close(sinkhorn(padded, mask, iterations=300)[0][..., :20], together, atol=1e-9, rtol=1e-5)


def test_nothing_valid_is_a_plan_of_zeros() -> None:
    cost = cosine_cost(5, 4).requires_grad_()
    mask = torch.tensor([[False] * 4, [True, True, False, False]])
    plan, error = sinkhorn(cost, mask)
    assert not plan[0].any() and error[0] == 0
    (plan * random(2, 5, 4)).sum().backward()
    assert cost.grad.isfinite().all() and not cost.grad[0].any() and cost.grad[1].any()


@pytest.mark.parametrize("epsilon", [0.002, 0.0001])
def test_a_tiny_epsilon_stays_finite(epsilon: float) -> None:
    """Kernels of exp(-2 / 0.0001) underflow; logarithms do not, to the resolution of such large numbers."""
    cost = cosine_cost(49, 20).requires_grad_()
    plan, _ = sinkhorn(cost, None, epsilon)
    torch.testing.assert_close(plan.sum(2), torch.full((2, 49), 1 / 49), atol=0, rtol=2 / epsilon * 2**-22)
    (plan * random(2, 49, 20)).sum().backward()
    assert cost.grad.isfinite().all()


@pytest.mark.parametrize(("rows", "columns"), [(6, 9), (9, 6), (49, 20)])
def test_gradient_is_that_of_unrolled_iterations(rows: int, columns: int) -> None:
    cost = cosine_cost(rows, columns, batch=3).double().requires_grad_()
    mask, weight = masks(3, columns), random(3, rows, columns, seed=5).double()
    plan, _ = sinkhorn(cost, mask, iterations=5000, tolerance=1e-13)
    expected = unrolled(cost, mask, 0.05, 3000)
    torch.testing.assert_close(plan, expected, atol=1e-9, rtol=1e-6)
    (gradient,) = torch.autograd.grad((plan * weight).sum(), cost)
    (other,) = torch.autograd.grad((expected * weight).sum(), cost)
    torch.testing.assert_close(gradient, other, atol=1e-5 * other.abs().max().item(), rtol=1e-4)


def test_gradient_in_float32_after_few_iterations() -> None:
    """What training uses: default options, single precision, against the converged gradient in float64."""
    cost = cosine_cost(49, 75, width=64)
    weight, mask = random(2, 49, 75, seed=5), torch.ones(2, 75, dtype=torch.bool)
    single = cost.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((sinkhorn(single)[0] * weight).sum(), single)
    double = cost.double().requires_grad_()
    (expected,) = torch.autograd.grad((unrolled(double, mask, 0.05, 3000) * weight.double()).sum(), double)
    assert (gradient - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("tau", [0.01, 0.1, 3.0])
def test_unbalanced_equals_pot(tau: float) -> None:
    """POT relaxes both sides; a weight of 1e6 on the rows is as good as a strict rule."""
    cost, mask = cosine_cost(7, 5, batch=3), masks(3, 5)
    plan, error = sinkhorn(cost, mask, 0.05, iterations=5000, tolerance=1e-7, tau=tau)
    assert (error < 1e-6).all()
    torch.testing.assert_close(plan.sum(2), torch.full((3, 7), 1 / 7))
    for number in range(3):
        valid = int(mask[number].sum())
        expected = ot.unbalanced.sinkhorn_unbalanced(
            np.full(7, 1 / 7), np.full(valid, 1 / valid), cost[number, :, :valid].double().numpy(), 0.05, (1e6, tau),
            method="sinkhorn_stabilized", reg_type="entropy", numItermax=100000, stopThr=1e-14,
        )  # fmt: skip
        torch.testing.assert_close(plan[number, :, :valid].double(), torch.from_numpy(expected), atol=1e-5, rtol=1e-3)


def test_tau_leads_from_softmax_to_balanced_transport() -> None:
    cost, mask = cosine_cost(49, 20), masks(2, 20)
    softmax = (-cost / 0.05).masked_fill(~mask[:, None], -math.inf).softmax(2) / 49
    torch.testing.assert_close(sinkhorn(cost, mask, tau=0)[0], softmax)
    torch.testing.assert_close(sinkhorn(cost, mask, iterations=500, tau=1e-6)[0], softmax, atol=1e-6, rtol=1e-2)
    balanced = sinkhorn(cost, mask, iterations=3000, tolerance=1e-7)[0]
    near = sinkhorn(cost, mask, iterations=3000, tolerance=1e-7, tau=1e4)[0]
    torch.testing.assert_close(near, balanced, atol=1e-6, rtol=1e-3)


def test_unbalanced_transport_drops_a_prompt_that_fits_nowhere() -> None:
    """Balanced transport gives every prompt its share, whatever it costs."""
    cost = cosine_cost(49, 20)
    cost[..., 3] = 2.0
    share = [float(sinkhorn(cost, iterations=500, tau=tau)[0][..., 3].sum(1).max()) * 20 for tau in (math.inf, 0.05)]
    assert share[0] == pytest.approx(1, abs=1e-3) and share[1] < 0.01


@pytest.mark.parametrize("tau", [0.0, 0.02, 0.5, 50.0])
def test_gradient_of_unbalanced_transport(tau: float) -> None:
    """Against autograd through the textbook iteration with the columns' potential damped by tau / (tau + epsilon)."""
    cost, mask, epsilon = cosine_cost(6, 9, batch=3).double().requires_grad_(), masks(3, 9), 0.05
    weight = random(3, 6, 9, seed=5).double()
    plan, _ = sinkhorn(cost, mask, epsilon, iterations=20000, tolerance=1e-13, tau=tau)
    kernel = (-cost / epsilon).masked_fill(~mask[:, None], -1e9)
    uniform, v = -mask.sum(1, keepdim=True).double().log(), torch.zeros(3, 9, dtype=torch.float64)
    for _ in range(6000):
        u = -math.log(6) - (kernel + v[:, None]).logsumexp(2)
        v = torch.where(mask, (uniform - (kernel + u[:, :, None]).logsumexp(1)) * tau / (tau + epsilon), -1e9)
    expected = (kernel + v[:, None]).softmax(2) / 6
    torch.testing.assert_close(plan, expected, atol=1e-9, rtol=1e-6)
    (gradient,) = torch.autograd.grad((plan * weight).sum(), cost)
    (other,) = torch.autograd.grad((expected * weight).sum(), cost)
    torch.testing.assert_close(gradient, other, atol=1e-5 * other.abs().max().item(), rtol=1e-4)


def attention(**options) -> SinkhornAttention:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return SinkhornAttention(16, 12, 24, **options).eval()


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_by_its_definition(heads: int) -> None:
    """Head by head: cosine cost, POT's plan, 49 T times the values, the output map."""
    module, visual, text, mask = (
        attention(heads=heads, iterations=2000),
        random(2, 49, 16),
        random(2, 9, 12),
        masks(2, 9),
    )
    attended, plan, _ = module(visual, text, mask)
    query, key, value = module.query(visual), module.key(text), module.value(text)
    width = 24 // heads
    for study in range(2):
        valid, parts = int(mask[study].sum()), []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            cosine = F.normalize(query[study, :, part], dim=1) @ F.normalize(key[study, :valid, part], dim=1).T
            expected = ot.sinkhorn(
                np.full(49, 1 / 49), np.full(valid, 1 / valid), (1 - cosine).detach().double().numpy(), 0.05,
                method="sinkhorn_log", numItermax=20000, stopThr=1e-12,
            )  # fmt: skip
            transport = torch.from_numpy(expected).float()
            torch.testing.assert_close(plan[study, head, :, :valid], transport, atol=1e-5, rtol=1e-2)
            parts.append(49 * transport @ value[study, :valid, part])
        torch.testing.assert_close(attended[study], module.output(torch.cat(parts, 1)), atol=2e-3, rtol=1e-3)


def test_positions_attend_to_different_prompts() -> None:
    """The released code's degeneration: with a problem for each prompt all positions received the same vector."""
    visual, text, mask = random(2, 49, 16), random(2, 9, 12), torch.ones(2, 9, dtype=torch.bool)
    attended, _, _ = attention()(visual, text, mask)
    assert attended.std(dim=1).min() > 0.01
    module = attention(kind="legacy_uniform")
    constant, _, _ = module(visual, text, mask)
    expected = module.output(module.value(text).sum(1) / 49)
    torch.testing.assert_close(constant, expected[:, None].expand_as(constant))
    # a single prompt leaves no choice to the transport either
    one, forced, _ = attention()(visual, text[:, :1], mask[:, :1])
    torch.testing.assert_close(forced, torch.full((2, 1, 49, 1), 1 / 49))
    torch.testing.assert_close(one, one[:, :1].expand_as(one))


def test_softmax_kind_is_attention_by_cosines() -> None:
    module, visual, text, mask = attention(kind="softmax", heads=4), random(2, 49, 16), random(2, 9, 12), masks(2, 9)
    attended, plan, _ = module(visual, text, mask)
    query, key, value = (
        x.unflatten(2, (4, 6)).transpose(1, 2) for x in (module.query(visual), module.key(text), module.value(text))
    )
    query, key = F.normalize(query, dim=3), F.normalize(key, dim=3)
    expected = F.scaled_dot_product_attention(query, key, value, mask[:, None, None], scale=1 / module.epsilon)
    torch.testing.assert_close(attended, module.output(expected.transpose(1, 2).flatten(2)))
    torch.testing.assert_close(plan.sum(3), torch.full((2, 4, 49), 1 / 49))


@pytest.mark.parametrize("kind", ["sinkhorn", "softmax", "legacy_uniform"])
def test_masked_prompts_do_not_matter(kind) -> None:  # type: ignore[no-untyped-def]
    module, visual, text, mask = attention(kind=kind, heads=2), random(3, 49, 16), random(3, 9, 12), masks(3, 9)
    mask[0] = False
    attended, plan, _ = module(visual, text, mask)
    other, _, _ = module(visual, text.masked_fill(~mask[..., None], 1e3), mask)
    torch.testing.assert_close(other, attended)
    assert not plan.masked_select(~mask[:, None, None].expand_as(plan)).any()
    torch.testing.assert_close(attended[0], module.output.bias.expand(49, -1))


@pytest.mark.parametrize("kind", ["sinkhorn", "softmax", "legacy_uniform"])
def test_autocast_and_gradients(kind) -> None:  # type: ignore[no-untyped-def]
    module = attention(kind=kind, heads=2, dropout=0.1).train()
    mask = masks(3, 9)
    mask[0] = False
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attended, plan, _ = module(random(3, 49, 16), random(3, 9, 12), mask)
    assert plan.dtype == torch.float32
    attended.float().square().sum().backward()
    reached = {name for name, parameter in module.named_parameters() if parameter.grad is not None}
    every = {name for name, _ in module.named_parameters()}
    uniform = {name for name in every if name.startswith(("query", "key"))}
    assert reached == (every - uniform if kind == "legacy_uniform" else every)
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters() if parameter.grad is not None)
