"""Exact nearest neighbors among stored vectors by hyperbolic, Euclidean or cosine distance.

A product in single precision selects candidates; those that its rounding error cannot exclude are ranked again in
double precision. Shapes: N entries and Q queries of D channels.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Metric = Literal["hyperbolic", "euclidean", "cosine"]

#: Group of an entry that belongs to none, and of a query that may meet every entry.
NO_GROUP = -1
#: Row of a neighbor that does not exist because fewer than k entries may be met; its distance is infinite.
NO_ROW = -1

#: Queries at once, whose scores with all entries are held in memory; entries in one product; pairs compared at once.
_QUERIES, _ENTRIES, _PAIRS = 64, 4096, 8192
#: Relative error that a product in "float32" makes of each operand, by `torch.get_float32_matmul_precision`.
_OPERAND_ERROR = {"highest": 0.0, "high": 2.0**-10, "medium": 2.0**-7}


class _Parts(NamedTuple):
    """What makes a score of p = x . y: constant(x) + weight(x) * offset(y) - slope(x) * scale(y) * p.

    Each part is given for a vector as a query and as an entry alike: (n,) float64.
    """

    constant: Tensor
    weight: Tensor
    slope: Tensor
    offset: Tensor
    scale: Tensor


class ReportIndex:
    """Vectors of the training studies, searched exactly and without a tensor of Q x N x D.

    Distances grow with a score that is linear in p = x . y: |x|^2 + |y|^2 - 2 p for the Euclidean, 1 - p / (|x| |y|)
    for the cosine, and for the hyperbolic one minus the inner product in the Lorentz model, which is cosh(sqrt(c) d).
    The rounding error of the scores has a bound; the shortlist is every entry that may be among the k nearest within
    it, however many these are, and is ranked by distances in float64.

    Args:
        vectors: (N, D), N at least 1, kept in float32; inside the Poincare ball for "hyperbolic".
        metric: which distance.
        curvature: c of the ball of radius 1 / sqrt(c), for "hyperbolic".
        groups: (N,) int64, whom a query may exclude together, such as the studies of one patient; `NO_GROUP` for none.

    Raises:
        ValueError: there are no vectors, they are not finite or not inside the ball, or not as many as groups.
    """

    def __init__(
        self,
        vectors: Tensor,
        *,
        metric: Metric = "hyperbolic",
        curvature: float = 0.01,
        groups: Tensor | None = None,
    ) -> None:
        self.vectors = vectors.detach().float().contiguous()
        self.metric, self.curvature = metric, curvature
        device = self.vectors.device
        self.groups = torch.full((len(vectors),), NO_GROUP) if groups is None else groups
        self.groups = self.groups.to(device, torch.int64)
        if not len(vectors) or len(self.groups) != len(vectors):
            raise ValueError(f"an index needs vectors and as many groups: {len(vectors)} and {len(self.groups)}")
        # written in place: small results that are kept between large ones that are not would fragment the memory
        squared = torch.empty(len(vectors), dtype=torch.float64, device=device)
        for start in range(0, len(vectors), _ENTRIES):
            part = slice(start, start + _ENTRIES)
            squared[part] = self.vectors[part].double().square().sum(1)
        if not bool((squared < (1 / curvature if metric == "hyperbolic" else torch.inf)).all()):
            raise ValueError("vectors of an index are finite and, for the hyperbolic metric, inside the ball")
        parts = self._parts(squared)
        self._offset, self._scale = parts.offset.float(), parts.scale.float()

    def __len__(self) -> int:
        return len(self.vectors)

    @torch.no_grad()
    def search(self, queries: Tensor, k: int, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The k nearest entries of each query, nearest first; of equal distances the lower row first.

        Args:
            queries: (Q, D), read in float32.
            k: number of neighbors.
            exclude: (Q,) int64, the group that a query may not meet; `NO_GROUP` to meet all.

        Returns:
            Distances (Q, k) float64 and rows (Q, k) int64. Where fewer than k entries may be met, the rest has the
            distance infinity and the row `NO_ROW`.
        """
        device = self.vectors.device
        queries = queries.detach().to(device, torch.float32)
        distances = torch.full((len(queries), k), torch.inf, dtype=torch.float64, device=device)
        rows = torch.full((len(queries), k), NO_ROW, device=device)
        for start in range(0, len(queries), _QUERIES):
            part = slice(start, start + _QUERIES)
            lowest = self._lower_bounds(queries[part])
            if exclude is not None:
                unwanted = exclude[part].to(device)[:, None]
                lowest.masked_fill_((unwanted == self.groups) & (unwanted != NO_GROUP), torch.inf)
            for query, (near, where) in enumerate(self._nearest(queries[part], lowest, min(k, len(self)))):
                distances[start + query, : len(near)], rows[start + query, : len(where)] = near, where
        return distances, rows

    def _parts(self, squared: Tensor) -> _Parts:
        """Parts of the scores of vectors with these squared norms, (n,) float64."""
        one, c = torch.ones_like(squared), self.curvature
        if self.metric == "euclidean":
            return _Parts(constant=squared, weight=one, slope=2 * one, offset=squared, scale=one)
        if self.metric == "cosine":
            inverse = squared.clamp_min(torch.finfo(torch.float32).tiny).rsqrt()
            return _Parts(constant=one, weight=0 * one, slope=inverse, offset=0 * one, scale=inverse)
        inside = 1 - c * squared
        time = (1 + c * squared) / inside
        return _Parts(constant=0 * one, weight=time, slope=4 * c / inside, offset=time, scale=1 / inside)

    def _lower_bounds(self, queries: Tensor) -> Tensor:
        """(Q, N) float32, none above the exact score and none below it by more than twice the bound of the error.

        Rounding the operands, the D products and sums, and the score costs at most this share of the sum of the two
        positive terms, which the third never exceeds; less that share, the positive terms give the bound.
        """
        parts = self._parts(queries.double().square().sum(1))
        operands = _OPERAND_ERROR[torch.get_float32_matmul_precision()]
        less = 1 - ((queries.shape[1] + 16) * 2.0**-24 + 2 * operands + operands**2)
        constant, weight = (less * parts.constant).float()[:, None], (less * parts.weight).float()[:, None]
        scaled = -(queries * parts.slope.float()[:, None])
        lowest = torch.empty(len(queries), len(self), device=queries.device)
        for start in range(0, len(self), _ENTRIES):
            part = slice(start, start + _ENTRIES)
            with torch.autocast(queries.device.type, enabled=False):
                products = scaled @ self.vectors[part].T
            products.mul_(self._scale[part]).add_(constant)
            torch.addcmul(products, weight, self._offset[part], out=products)
            lowest[:, part] = products
        return lowest

    def _nearest(self, queries: Tensor, lowest: Tensor, k: int) -> Iterator[tuple[Tensor, Tensor]]:
        """For each query the distances and rows, at most (k,) each, given lower bounds (Q, N) of the scores."""
        some, rows = lowest.topk(k, dim=1, largest=False)
        number = torch.arange(len(queries), device=queries.device)
        # whichever k entries these are, the k-th nearest is no farther than the farthest of them
        farthest = self._distances(queries, number.repeat_interleave(k), rows.flatten()).view(-1, k).amax(1)
        limit = self._score(farthest).where(some.amax(1) < torch.inf, torch.inf).float()
        # rounded up, and finite, so that excluded entries stay out where fewer than k remain
        limit = limit.nextafter(limit.new_tensor(torch.inf)).clamp_max(torch.finfo(torch.float32).max)
        possible = lowest <= limit[:, None]
        number, rows = possible.nonzero(as_tuple=True)
        counts = number.bincount(minlength=len(queries)).tolist()
        found = self._distances(queries, number, rows)
        for near, where in zip(torch.split(found, counts), torch.split(rows, counts), strict=True):
            order = near.argsort(stable=True)[:k]
            yield near[order], where[order]

    def _score(self, distances: Tensor) -> Tensor:
        """Exact scores of exact distances, a little more for the rounding of this very function."""
        if self.metric == "euclidean":
            scores = distances.square()
        else:
            scores = distances if self.metric == "cosine" else (self.curvature**0.5 * distances).cosh()
        return scores * (1 + 1e-12) + 1e-12

    def _distances(self, queries: Tensor, number: Tensor, rows: Tensor) -> Tensor:
        """Distances (P,) in float64 between P queries, given by their number, and P entries, given by their row."""
        pairs = zip(torch.split(number, _PAIRS), torch.split(rows, _PAIRS), strict=True)
        return torch.cat([self._compare(queries[q].double(), self.vectors[r].double()) for q, r in pairs])

    def _compare(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances (P,) of the vectors (P, D) one by one."""
        if self.metric == "cosine":
            return 1 - torch.nn.functional.cosine_similarity(x, y, dim=1, eps=1e-30)
        apart: Tensor = torch.linalg.vector_norm(x - y, dim=1)
        if self.metric == "euclidean":
            return apart
        c = self.curvature
        inside: Tensor = (1 - c * x.square().sum(1)) * (1 - c * y.square().sum(1))
        distance: Tensor = 2 / c**0.5 * (c**0.5 * apart / inside.sqrt()).asinh()
        return distance
