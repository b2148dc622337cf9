"""Hyperbolic network and distance against geoopt and the Moebius formulas."""

import geoopt
import pytest
import torch
from torch import Tensor

from crossray.layers.hyperbolic import (
    HyperbolicNetwork,
    exponential_map,
    logarithmic_map,
    mobius_add,
    poincare_distance,
    project,
)

CURVATURE = 0.01
RADIUS = CURVATURE**-0.5


def ball(curvature: float) -> geoopt.PoincareBall:
    """The oracle, with its curvature in float64 as the points are."""
    return geoopt.PoincareBall(c=torch.tensor(curvature, dtype=torch.float64))


BALL = ball(CURVATURE)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def points(count: int, width: int = 12, seed: int = 0, farthest: float = 0.99) -> Tensor:
    """Points at all radii up to this share of the ball's."""
    directions = torch.nn.functional.normalize(random(count, width, seed=seed), dim=1)
    return directions * torch.linspace(0, farthest * RADIUS, count, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("curvature", [0.01, 1.0])
def test_closed_form_is_the_moebius_distance(curvature: float) -> None:
    x, y = points(40) * 0.1 / curvature**0.5, points(50, seed=1) * 0.1 / curvature**0.5
    expected = ball(curvature).dist(x[:, None], y[None])
    torch.testing.assert_close(poincare_distance(x, y, curvature), expected, rtol=1e-6, atol=1e-12)


def test_is_a_metric() -> None:
    x = points(60)
    distance = poincare_distance(x, x, CURVATURE)
    assert torch.equal(distance.diagonal(), torch.zeros(60, dtype=torch.float64))
    torch.testing.assert_close(distance, distance.T, rtol=1e-14, atol=0)
    through = distance[:, :, None] + distance[None]  # from i through j to k
    assert (distance[:, None, :] <= through * (1 + 1e-12)).all()


def test_float32_keeps_what_the_points_hold() -> None:
    """Near the origin, near the boundary and between neighbors, against float64 on the same rounded points."""
    x = torch.cat([points(50, farthest=0.996), 1e-5 * points(50, seed=1)]).float()
    y = torch.cat([x * (1 - 1e-5), x.flip(0)])
    exact = poincare_distance(x.double(), y.double(), CURVATURE)
    torch.testing.assert_close(poincare_distance(x, y, CURVATURE).double(), exact, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("radius", [0.0, 1e-6, 0.5, 0.996, 1.0])
def test_gradient_is_finite_where_points_meet(radius: float) -> None:
    x = (radius * RADIUS * torch.nn.functional.normalize(random(4, 12), dim=1)).float().requires_grad_()
    poincare_distance(x, x.detach().clone(), CURVATURE).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    x.grad = None
    poincare_distance(x, x, CURVATURE).diagonal().sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_gradient_of_the_distance() -> None:
    x, y = points(5, 3)[1:].requires_grad_(), points(6, 3, seed=1)[1:].requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: poincare_distance(a, b, CURVATURE), (x, y))


def test_maps_are_those_of_geoopt() -> None:
    vectors, x, y = 3 * random(30, 12), points(30), points(30, seed=1)
    torch.testing.assert_close(exponential_map(vectors, CURVATURE), BALL.expmap0(vectors))
    torch.testing.assert_close(logarithmic_map(x, CURVATURE), BALL.logmap0(x))
    torch.testing.assert_close(mobius_add(x, y, CURVATURE), BALL.mobius_add(x, y))
    assert torch.equal(exponential_map(vectors[:1] * 0, CURVATURE), torch.zeros(1, 12, dtype=torch.float64))
    outside = project(100 * random(5, 12), CURVATURE)
    torch.testing.assert_close(outside.norm(dim=1), torch.full((5,), (1 - 1e-5) * RADIUS, dtype=torch.float64))


def test_network_is_the_published_composition() -> None:
    """Moebius matrix product, translation by the bias, ReLU in the tangent space: each by geoopt's own operation."""
    network = HyperbolicNetwork((7, 9, 5), CURVATURE).double()
    for number, layer in enumerate(network.layers):
        torch.nn.init.normal_(layer.bias, std=0.3, generator=torch.Generator().manual_seed(number))
    vectors = random(20, 7)
    expected = BALL.expmap0(vectors)
    for layer in network.layers:
        expected = BALL.mobius_add(BALL.mobius_matvec(layer.weight, expected), BALL.expmap0(layer.bias))
        expected = BALL.expmap0(BALL.logmap0(expected).relu())
    torch.testing.assert_close(network(vectors), expected)


def test_initial_weights() -> None:
    network = HyperbolicNetwork()
    assert [tuple(layer.weight.shape) for layer in network.layers] == [(512, 75), (512, 512)]
    for layer in network.layers:
        bound = (2 * 6 / sum(layer.weight.shape)) ** 0.5  # Xavier, gain sqrt(2)
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 50.0])
def test_training_stays_finite_and_inside(scale: float) -> None:
    """Entity logits up to 50 and a hundred steps at a high rate, in float32."""
    torch.manual_seed(0)
    network = HyperbolicNetwork()
    logits = scale * (2 * torch.rand(16, 75) - 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(100):
        found = network(logits)
        assert found.isfinite().all() and (found.norm(dim=1) < RADIUS).all()
        loss = poincare_distance(found, found, CURVATURE)[:8, 8:].mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in network.parameters())
        optimizer.step()


def test_autocast_changes_nothing() -> None:
    network, logits = HyperbolicNetwork(), random(4, 75).float()
    expected = network(logits)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(network(logits), expected)
        distance = poincare_distance(expected, expected, CURVATURE)
    assert torch.equal(distance, poincare_distance(expected, expected, CURVATURE))


def test_a_last_relu_can_put_different_studies_onto_one_point() -> None:
    """What a fifth of a phantom set's studies met in a whole training; without it they stay apart."""
    apart = {}
    for last_relu in (True, False):
        torch.manual_seed(0)
        network = HyperbolicNetwork((5, 8, 8), 0.01, last_relu=last_relu)
        with torch.no_grad():
            network.layers[1].bias.fill_(-30.0)
            points = network(torch.randn(4, 5))
        distances = poincare_distance(points, points, 0.01)
        apart[last_relu] = distances[~torch.eye(4, dtype=torch.bool)]
    assert (apart[True] == 0).all()
    assert (apart[False] > 0).all()
