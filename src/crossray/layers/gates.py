"""The dual gate of COACL (GFM) and UAR (CRA), which fuses a raw vector with its attention output.

Shapes: (..., D) throughout; positions are independent of each other.
"""

from typing import Literal

from torch import Tensor, nn

#: Fusion of a raw and an attended vector: the dual gate, their sum, or the attended vector alone.
Fusion = Literal["gate", "addition", "no_gate"]


class DualGate(nn.Module):
    """F' = F + g1 * tanh(V + F) + g2 * V with g = sigmoid(V W + F W') for raw V and attended F (UAR, dual gate).

    The first gate is on the tanh path (UAR's input gate), the second on the raw vector (UAR's forget gate); COACL's
    figure swaps these names. There are no biases.

    Args:
        width: D.
        shared: whether both gates share one pair of weights, as COACL's figure may suggest.
    """

    def __init__(self, width: int, shared: bool = False) -> None:
        super().__init__()
        self.gates = 1 if shared else 2
        self.raw = nn.Linear(width, self.gates * width, bias=False)
        self.attended = nn.Linear(width, self.gates * width, bias=False)
        for weight in (*self.raw.weight.chunk(self.gates), *self.attended.weight.chunk(self.gates)):
            nn.init.xavier_uniform_(weight)

    def forward(self, raw: Tensor, attended: Tensor) -> Tensor:
        """V and F, (..., D) each -> F' (..., D)."""
        gates = (self.raw(raw) + self.attended(attended)).sigmoid().chunk(self.gates, dim=-1)
        return attended + gates[0] * (raw + attended).tanh() + gates[-1] * raw


class GuidedFusion(nn.Module):
    """The dual gate or its replacement in an ablation.

    Args:
        width: D.
        kind: see `Fusion`.
        share_gates: see `DualGate`.
    """

    def __init__(self, width: int, kind: Fusion = "gate", share_gates: bool = False) -> None:
        super().__init__()
        self.kind = kind
        self.gate = DualGate(width, share_gates) if kind == "gate" else None

    def forward(self, raw: Tensor, attended: Tensor) -> Tensor:
        """Raw and attended vectors, (..., D) each -> (..., D)."""
        if self.gate is not None:
            return self.gate(raw, attended)
        return raw + attended if self.kind == "addition" else attended
