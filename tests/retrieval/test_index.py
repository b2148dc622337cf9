"""The index finds exactly what a dense search in float64 finds, also where single precision cannot tell."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from crossray.retrieval import index as module
from crossray.retrieval.index import NO_GROUP, NO_ROW, Metric, ReportIndex

CURVATURE = 0.01


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def at_radius(directions: Tensor, radius: Tensor | float) -> Tensor:
    """Points of the ball (radius 10) at this share of its radius."""
    return torch.nn.functional.normalize(directions, dim=1) * radius / CURVATURE**0.5


def boundary(count: int, seed: int = 0) -> Tensor:
    """What the hyperbolic network gives: points in one quadrant, nearly all of them at the same large radius."""
    return at_radius(random(count, 64, seed=seed).abs(), 0.996)


def crowd(count: int, seed: int = 0) -> Tensor:
    """Points at the boundary that differ in the last bits of single precision."""
    return at_radius(torch.ones(count, 64) + 1e-6 * random(count, 64, seed=seed), 0.995)


def dense(queries: Tensor, vectors: Tensor, metric: Metric) -> Tensor:
    """All distances (Q, N) by their definitions in float64; the hyperbolic one through the Moebius sum."""
    x, y = queries.double()[:, None], vectors.double()[None]
    if metric == "euclidean":
        return (x - y).norm(dim=2)
    if metric == "cosine":
        return 1 - (x * y).sum(2) / (x.norm(dim=2) * y.norm(dim=2))
    c, product = CURVATURE, -(x * y).sum(2, keepdim=True)
    x2, y2 = x.square().sum(2, keepdim=True), y.square().sum(2, keepdim=True)
    difference = ((1 + 2 * c * product + c * y2) * -x + (1 - c * x2) * y) / (1 + 2 * c * product + c**2 * x2 * y2)
    return 2 / c**0.5 * (c**0.5 * difference.norm(dim=2)).atanh()


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks so small that every search here takes several of each kind."""
    monkeypatch.setattr(module, "_QUERIES", 3)
    monkeypatch.setattr(module, "_ENTRIES", 100)
    monkeypatch.setattr(module, "_PAIRS", 7)


@pytest.fixture(params=["highest", "high", "medium"])
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("precision")
@pytest.mark.parametrize("metric", ["hyperbolic", "euclidean", "cosine"])
@pytest.mark.parametrize("make", [boundary, crowd, lambda n, seed=0: random(n, 64, seed=seed) * 0.01])
def test_equals_the_dense_search(metric: Metric, make) -> None:  # type: ignore[no-untyped-def]
    vectors, queries = make(430), make(8, seed=1)
    distances, rows = ReportIndex(vectors, metric=metric, curvature=CURVATURE).search(queries, 21)
    expected = dense(queries, vectors, metric)
    # entries closer to each other than float64 resolves may come in either order
    nearest, _ = expected.sort(dim=1, stable=True)
    torch.testing.assert_close(distances, nearest[:, :21], atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(expected.gather(1, rows), nearest[:, :21], atol=1e-7, rtol=1e-6)
    assert all(len(set(found.tolist())) == 21 for found in rows)


def test_single_precision_alone_would_be_wrong() -> None:
    """The crowd is a case that the ranking in float64 decides: without it other rows come first."""
    vectors, queries = crowd(430), crowd(8, seed=1)
    index = ReportIndex(vectors, curvature=CURVATURE)
    naive = index._lower_bounds(queries).argsort(dim=1, stable=True)[:, 0]
    assert (index.search(queries, 1)[1][:, 0] != naive).any()
    assert torch.equal(index.search(queries, 1)[1][:, 0], dense(queries, vectors, "hyperbolic").argmin(1))


def test_lower_bounds_hold_and_are_tight() -> None:
    vectors, queries = boundary(430), boundary(8, seed=1)
    exact = (CURVATURE**0.5 * dense(queries, vectors, "hyperbolic")).cosh()
    below = exact - ReportIndex(vectors, curvature=CURVATURE)._lower_bounds(queries)
    assert (below > 0).all()
    assert (below < 0.01 * exact).all()


@pytest.mark.parametrize("metric", ["hyperbolic", "euclidean", "cosine"])
def test_equal_entries_come_in_the_order_of_their_rows(metric: Metric) -> None:
    vectors = boundary(40).repeat(3, 1)
    distances, rows = ReportIndex(vectors, metric=metric, curvature=CURVATURE).search(vectors[:5], 3)
    assert rows.tolist() == [[row, row + 40, row + 80] for row in range(5)]
    assert (distances < 1e-12).all()


def test_excluded_groups_are_never_met() -> None:
    vectors = boundary(200)
    groups = torch.arange(200) // 4
    index = ReportIndex(vectors, groups=groups, curvature=CURVATURE)
    _, rows = index.search(vectors, 5, exclude=groups)
    assert (groups[rows] != groups[:, None]).all()
    expected = dense(vectors, vectors, "hyperbolic").masked_fill(groups[:, None] == groups, torch.inf).argmin(1)
    assert torch.equal(rows[:, 0], expected)
    free = torch.full((200,), NO_GROUP)
    assert index.search(vectors, 1, exclude=free)[1][:, 0].tolist() == list(range(200))
    without = ReportIndex(vectors, curvature=CURVATURE)
    assert without.search(vectors, 1, exclude=free)[1][:, 0].tolist() == list(range(200))


def test_fewer_entries_than_asked_for() -> None:
    vectors = boundary(4)
    groups = torch.tensor([0, 0, 0, 1])
    distances, rows = ReportIndex(vectors, groups=groups).search(vectors[:1], 6, exclude=torch.tensor([0]))
    assert rows.tolist() == [[3] + [NO_ROW] * 5]
    assert distances[0, 0].isfinite() and distances[0, 1:].isinf().all()


def test_a_query_is_independent_of_the_others() -> None:
    index, queries = ReportIndex(boundary(430)), boundary(8, seed=1)
    together = index.search(queries, 5)
    for number in range(8):
        alone = index.search(queries[number : number + 1], 5)
        assert torch.equal(alone[0][0], together[0][number]) and torch.equal(alone[1][0], together[1][number])


def test_searches_the_same_under_autocast() -> None:
    index, queries = ReportIndex(boundary(430)), boundary(8, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distances, rows = index.search(queries, 5)
    assert torch.equal(rows, index.search(queries, 5)[1])
    assert distances.dtype == torch.float64


@pytest.mark.parametrize(
    "vectors", [torch.full((1, 4), float("nan")), torch.full((1, 4), float("inf")), torch.full((1, 4), 5.0)]
)
def test_refuses_what_lies_outside_the_ball(vectors: Tensor) -> None:
    with pytest.raises(ValueError, match="inside the ball"):
        ReportIndex(vectors, curvature=CURVATURE)
