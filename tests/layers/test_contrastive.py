"""Contrastive losses against double loops, SciPy and a single process."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import scipy.sparse.csgraph
import torch

from crossray.layers.contrastive import connected_components, gather_ranks, supervised_contrastive


def naive(features: torch.Tensor, positive: torch.Tensor, temperature: float) -> float:
    """RCAN eq. 19 as it is written, one pair after the other, in double precision."""
    rows = [row / row.norm() for row in features.double()]
    total = 0.0
    for i, one in enumerate(rows):
        denominator = sum(math.exp(float(one @ rows[k]) / temperature) for k in range(len(rows)) if k != i)
        terms = [
            math.log(math.exp(float(one @ rows[j]) / temperature) / denominator)
            for j in range(len(rows)) if j != i and positive[i, j]
        ]  # fmt: skip
        total -= sum(terms) / len(terms) if terms else 0.0
    return total / len(rows)


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_supervised_contrastive_equals_a_double_loop(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(9, 5, generator=generator)
    label = torch.tensor([0, 1, 0, 2, 1, 0, 3, 3, 4])  # rows 3 and 8 have no positive
    positive = label[:, None] == label
    found = supervised_contrastive(features, positive, temperature)
    assert float(found) == pytest.approx(naive(features, positive, temperature), rel=1e-5)


def test_one_positive_each_is_the_cross_entropy_of_finding_it() -> None:
    features = torch.nn.functional.normalize(torch.randn(8, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    partner = torch.arange(8) ^ 1
    scores = (features @ features.T / 0.5).fill_diagonal_(-math.inf)
    expected = torch.nn.functional.cross_entropy(scores, partner)
    found = supervised_contrastive(features, torch.nn.functional.one_hot(partner, 8).bool(), 0.5)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_rows_without_positives_give_zero_and_finite_gradients(rows: int) -> None:
    features = torch.randn(rows, 3, requires_grad=True)
    loss = supervised_contrastive(features, torch.eye(rows, dtype=torch.bool), 0.1)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert features.grad is not None
    assert (features.grad == 0).all()


def test_far_apart_features_stay_finite_at_a_small_temperature() -> None:
    features = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    positive = torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
    loss = supervised_contrastive(features, positive, 1e-3)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(naive(features.detach(), positive, 1e-2) * 10, rel=1e-2)
    assert features.grad is not None
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("nodes", [1, 2, 7, 40])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.05, 0.3])
def test_components_equal_those_of_scipy(nodes: int, density: float) -> None:
    for seed in range(10):
        adjacency = torch.rand(nodes, nodes, generator=torch.Generator().manual_seed(seed)) < density
        _, expected = scipy.sparse.csgraph.connected_components(adjacency.numpy(), directed=False)
        found = connected_components(adjacency)
        assert torch.equal(found[:, None] == found, torch.from_numpy(expected[:, None] == expected))


def test_the_components_of_a_long_path_in_any_order_are_one() -> None:
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    adjacency = torch.zeros(200, 200, dtype=torch.bool)
    adjacency[order[:-1], order[1:]] = True
    assert (connected_components(adjacency) == 0).all()


def test_one_process_gathers_its_own_rows() -> None:
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather_ranks(rows) is rows


@pytest.mark.slow
def test_two_processes_find_the_gradient_of_one(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    rows, weight = torch.randn(5, 4, generator=generator), torch.randn(4, 3, generator=generator)
    label = torch.tensor([0, 1, 0, 1, 0])  # positives stand in the other process too
    torch.save((rows, weight, label), tmp_path / "given.pt")
    (tmp_path / "worker.py").write_text(
        "import sys\n"
        "import torch, torch.distributed as distributed\n"
        "from crossray.layers.contrastive import gather_ranks, supervised_contrastive\n"
        "folder, rank = sys.argv[1], int(sys.argv[2])\n"
        "distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)\n"
        "rows, weight, label = torch.load(f'{folder}/given.pt')\n"
        "weight.requires_grad_()\n"
        "own = rows[:3] if rank == 0 else rows[3:]  # shares differ\n"
        "gathered = gather_ranks(own @ weight)\n"
        "loss = supervised_contrastive(gathered, label[:, None] == label, 0.2)\n"
        "loss.backward()\n"
        "distributed.all_reduce(weight.grad)\n"
        "torch.save((gathered.detach(), loss.detach(), weight.grad / 2), f'{folder}/found{rank}.pt')\n"
        "distributed.destroy_process_group()\n"  # its threads could abort the process at exit
    )
    workers = [
        subprocess.Popen([sys.executable, str(tmp_path / "worker.py"), str(tmp_path), str(rank)]) for rank in (0, 1)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    weight.requires_grad_()
    expected = supervised_contrastive(rows @ weight, label[:, None] == label, 0.2)
    expected.backward()
    for rank in (0, 1):
        gathered, loss, gradient = torch.load(tmp_path / f"found{rank}.pt")
        torch.testing.assert_close(gathered, (rows @ weight).detach())
        torch.testing.assert_close(loss, expected.detach())
        torch.testing.assert_close(gradient, weight.grad)
