"""Hyperbolic network and distance in the Poincare ball, stable in float32 (REVTAF's LRE, eq. 3-5).

The ball of curvature -c has radius 1 / sqrt(c). Shapes: N and M points of D channels.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Minimum distance of points from the boundary as a share of the radius; closer to it, distances lose all precision.
_MARGIN = {torch.float32: 4e-3, torch.float64: 1e-5}
#: Minimum norm in a division.
_SHORTEST = 1e-7
#: Maximum argument of artanh.
_LARGEST = 1 - 1e-5


class HyperbolicNetwork(nn.Module):
    """A multilayer perceptron whose activations are points of the Poincare ball (Ganea et al. 2018).

    The input becomes a point by the exponential map at the origin; each layer is a Moebius product, a Moebius
    translation by the bias, and ReLU in the tangent space of the origin. All of it runs in float32 (float64 for weights
    in float64), even under autocast.

    Args:
        dims: channels of the input and of each layer's output.
        curvature: c.
        last_relu: also use a ReLU after the last layer. It moves all points without a positive channel to the origin,
            where they cannot be distinguished.
    """

    def __init__(
        self, dims: Sequence[int] = (75, 512, 512), curvature: float = 0.01, *, last_relu: bool = True
    ) -> None:
        super().__init__()
        self.curvature, self.last_relu = curvature, last_relu
        layers = [nn.Linear(before, after) for before, after in pairwise(dims)]
        self.layers = nn.ModuleList(layers)
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight, gain=2**0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """From vectors (N, dims[0]) of any length to points (N, dims[-1]) strictly inside the ball."""
        c = self.curvature
        with torch.autocast(x.device.type, enabled=False):
            layers = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
            point = exponential_map(x.to(_wide(layers[0].weight)), c)
            for layer in layers:
                # a Moebius product is an ordinary product in the tangent space of the origin
                product = exponential_map(F.linear(logarithmic_map(point, c), layer.weight.to(point.dtype)), c)
                point = mobius_add(product, exponential_map(layer.bias.to(point.dtype), c), c)
                if self.last_relu or layer is not layers[-1]:
                    point = exponential_map(logarithmic_map(point, c).relu(), c)
        return point


def poincare_distance(x: Tensor, y: Tensor, curvature: float) -> Tensor:
    """Compute the geodesic distances between all points of two sets in the ball, without an N x M x D tensor.

    The closed form arcosh(1 + 2 r^2) / sqrt(c) with r^2 = c |x - y|^2 / ((1 - c |x|^2) (1 - c |y|^2)) equals
    2 arsinh(r) / sqrt(c), which is accurate where x and y are close and has gradient 0 where they are equal.
    Equation 3 of the paper lacks the minus of (-x) + y.

    Args:
        x: (N, D), each c |x|^2 < 1.
        y: (M, D), each c |y|^2 < 1.
        curvature: c.

    Returns:
        Distances (N, M), float32, or float64 for points in float64.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, y = x.to(_wide(x)), y.to(_wide(y))
        apart = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        inside = _conformal(x, curvature)[:, None] * _conformal(y, curvature)[None, :]
        return 2 / curvature**0.5 * (curvature**0.5 * apart / inside.sqrt()).asinh()


def exponential_map(vector: Tensor, curvature: float) -> Tensor:
    """Map tangent vectors (..., D) at the origin to points strictly inside the ball."""
    norm = _norm(vector, curvature)
    return project(vector * (norm.tanh() / norm), curvature)


def logarithmic_map(point: Tensor, curvature: float) -> Tensor:
    """Map points (..., D) to tangent vectors at the origin; the inverse of `exponential_map`."""
    norm = _norm(point, curvature)
    return point * (norm.clamp_max(_LARGEST).atanh() / norm)


def mobius_add(x: Tensor, y: Tensor, curvature: float) -> Tensor:
    """Compute the Moebius sum of points (..., D), projected strictly inside the ball."""
    c = curvature
    product = (x * y).sum(-1, keepdim=True)
    x_squared, y_squared = x.square().sum(-1, keepdim=True), y.square().sum(-1, keepdim=True)
    numerator = (1 + 2 * c * product + c * y_squared) * x + (1 - c * x_squared) * y
    return project(numerator / (1 + 2 * c * product + c**2 * x_squared * y_squared).clamp_min(_SHORTEST), c)


def project(point: Tensor, curvature: float) -> Tensor:
    """Move points (..., D) that are beyond or too close to the boundary back along their radius."""
    longest = 1 - _MARGIN[point.dtype]
    norm = _norm(point, curvature)
    return torch.where(norm > longest, point * (longest / norm), point)


def _norm(x: Tensor, curvature: float) -> Tensor:
    """Compute norms (..., 1) in units of the radius, never 0, so that the gradient at the origin is 0, not NaN."""
    return (curvature**0.5 * torch.linalg.vector_norm(x, dim=-1, keepdim=True)).clamp_min(_SHORTEST)


def _conformal(x: Tensor, curvature: float) -> Tensor:
    """Compute 1 - c |x|^2 of points (N, D), clamped to be positive."""
    return (1 - curvature * x.square().sum(-1)).clamp_min(_SHORTEST)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
