"""Packed weights against `torch.nn.functional.linear`, and that nothing of them stays."""

import copy

import pytest
import torch
from torch import nn

from crossray.layers.packed import packable, packed_weights


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 7, bias=False))


@pytest.mark.parametrize("shape", [(24,), (5, 24), (2, 3, 24), (0, 24)])
def test_products_are_the_same(shape: tuple[int, ...]) -> None:
    model, x = network(), torch.randn(shape)
    with torch.no_grad():
        plain = model(x)
        with packed_weights(model):
            torch.testing.assert_close(model(x), plain)
            assert model(x).shape == plain.shape


def test_autocast_decides_the_element_type() -> None:
    model, x = network(), torch.randn(4, 24)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        plain = model(x)
        with packed_weights(model):
            found = model(x)
    assert found.dtype == plain.dtype == torch.bfloat16
    torch.testing.assert_close(found, plain, atol=0.02, rtol=0.02)


def test_gradients_flow_as_usual() -> None:
    model, x = network(), torch.randn(4, 24)
    (expected,) = torch.autograd.grad(model(x).sum(), model[0].weight)
    with packed_weights(model):
        (found,) = torch.autograd.grad(model(x).sum(), model[0].weight)
    assert torch.equal(found, expected)


def test_nothing_stays_and_changed_weights_count() -> None:
    model, x = network(), torch.randn(4, 24)
    state = set(copy.deepcopy(model.state_dict()))
    with torch.no_grad():
        with packed_weights(model), packed_weights(model):
            model(x)
            assert set(model.state_dict()) == state
        assert all("forward" not in vars(module) for module in model.modules())
        model[2].weight.zero_()
        with packed_weights(model):
            assert not model(x).any()


@pytest.mark.skipif(not packable(torch.float32), reason="oneDNN computes with packed weights on x86 only")
def test_the_packed_copy_computes() -> None:
    """What was packed is what is used: inside, a change of the weights is not seen."""
    model, x = network(), torch.randn(4, 24)
    with torch.no_grad(), packed_weights(model):
        before = model(x)
        model[2].weight.zero_()
        assert torch.equal(model(x), before)
