"""The dual gate against its formula, element by element."""

import math

import pytest
import torch

from crossray.layers.gates import DualGate, GuidedFusion


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("shared", [False, True])
def test_equals_a_hand_computation(shared: bool) -> None:
    gate = DualGate(2, shared)
    values = torch.arange(8.0).view(4, 2) / 10
    pairs = 1 if shared else 2
    gate.raw.weight.data = values[: 2 * pairs]
    gate.attended.weight.data = -values.flip(0)[: 2 * pairs]
    v, f = [0.5, -1.0], [2.0, 0.25]
    scores = [
        sum(gate.raw.weight[row, k].item() * v[k] + gate.attended.weight[row, k].item() * f[k] for k in range(2))
        for row in range(2 * pairs)
    ]
    first, second = scores[:2], scores[-2:]
    expected = [f[k] + sigmoid(first[k]) * math.tanh(v[k] + f[k]) + sigmoid(second[k]) * v[k] for k in range(2)]
    assert gate(torch.tensor(v), torch.tensor(f)).tolist() == pytest.approx(expected, abs=1e-6)


def test_without_weights_both_gates_are_half_open() -> None:
    gate = DualGate(6)
    gate.raw.weight.data.zero_()
    gate.attended.weight.data.zero_()
    raw, attended = torch.randn(2, 3, 4, 6)
    expected = attended + 0.5 * (raw + attended).tanh() + 0.5 * raw
    torch.testing.assert_close(gate(raw, attended), expected)


def test_what_stands_in_for_the_gate() -> None:
    raw, attended = torch.randn(2, 5, 4)
    assert torch.equal(GuidedFusion(4, "addition")(raw, attended), raw + attended)
    assert torch.equal(GuidedFusion(4, "no_gate")(raw, attended), attended)
    for kind in ("addition", "no_gate"):
        assert not list(GuidedFusion(4, kind).parameters())


def test_number_of_weights() -> None:
    assert sum(p.numel() for p in GuidedFusion(8).parameters()) == 4 * 8 * 8
    assert sum(p.numel() for p in GuidedFusion(8, share_gates=True).parameters()) == 2 * 8 * 8
