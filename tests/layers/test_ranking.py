"""Ranking by label distances."""

import math

import pytest
import torch
from torch import Tensor

from crossray.layers.ranking import hamming, ranking_loss


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def without_diagonal(matrix: Tensor) -> Tensor:
    size = len(matrix)
    return matrix[~torch.eye(size, dtype=torch.bool)].view(size, size - 1)


def test_hamming_counts_categories() -> None:
    labels, others = torch.randint(0, 4, (7, 18)), torch.randint(0, 4, (5, 18))
    found = hamming(labels, others)
    assert found.dtype == torch.int64
    one_hot = [torch.nn.functional.one_hot(x, 4).flatten(1) for x in (labels, others)]
    assert torch.equal(2 * found, (one_hot[0][:, None] != one_hot[1][None]).sum(2))
    assert hamming(labels[:0], others).shape == (0, 5)


def test_without_ties_it_is_the_published_cross_entropy() -> None:
    """Equation 7: the diagonal is taken out, the logits are the negated distances, the target is the arg-min."""
    distances = 5 * random(6, 6)
    targets = torch.stack([torch.randperm(6, generator=torch.Generator().manual_seed(row)) for row in range(6)])
    expected = torch.nn.functional.cross_entropy(
        -without_diagonal(distances) / 0.5, without_diagonal(targets).argmin(1)
    )
    for ties in ("uniform", "first"):
        torch.testing.assert_close(ranking_loss(distances, targets, ties=ties, temperature=0.5), expected)


def test_any_of_the_nearest_is_right() -> None:
    labels = torch.tensor([[0, 3, 3, 3], [3, 0, 3, 9], [5, 5, 0, 5], [1, 2, 3, 0]])
    distances = 3 * random(4, 4)
    probabilities = (-distances).masked_fill(torch.eye(4, dtype=torch.bool), -math.inf).softmax(1)
    sets = [[1, 2, 3], [0, 2], [0, 1, 3], [0]]
    expected = -sum(math.log(probabilities[row, nearest].sum()) for row, nearest in enumerate(sets)) / 4
    assert ranking_loss(distances, labels).item() == pytest.approx(expected, abs=1e-6)
    first = -sum(math.log(probabilities[row, nearest[0]]) for row, nearest in enumerate(sets)) / 4
    assert ranking_loss(distances, labels, ties="first").item() == pytest.approx(first, abs=1e-6)


def test_ties_are_symmetric() -> None:
    """Which of two equal studies stands first in the batch does not matter, except in the published form."""
    labels, distances = (
        torch.tensor([[0, 1, 1], [1, 0, 2], [1, 2, 0]]),
        torch.tensor([[0.0, 1, 4], [1, 0, 2], [4, 2, 0]]),
    )
    swapped = torch.tensor([0, 2, 1])
    pair = [(distances, labels), (distances[swapped][:, swapped], labels[swapped][:, swapped])]
    equal = [ranking_loss(*given).item() for given in pair]
    assert equal[0] == pytest.approx(equal[1])
    first = [ranking_loss(*given, ties="first").item() for given in pair]
    assert first[0] != pytest.approx(first[1])


def test_soft_targets() -> None:
    labels, distances = 4 * random(5, 5), 3 * random(5, 5, seed=1)
    target = (-without_diagonal(labels)).softmax(1)
    expected = torch.nn.functional.cross_entropy(-without_diagonal(distances), target)
    torch.testing.assert_close(ranking_loss(distances, labels, ties="soft"), expected)


@pytest.mark.parametrize("ties", ["uniform", "first", "soft"])
def test_decreases_when_the_nearest_by_labels_moves_closer(ties) -> None:  # type: ignore[no-untyped-def]
    labels = (torch.arange(6)[:, None] - torch.arange(6)[None]).abs()
    distances = (3 * random(6, 6)).requires_grad_()
    (gradient,) = torch.autograd.grad(ranking_loss(distances, labels, ties=ties), distances)
    assert torch.equal(gradient.diagonal(), torch.zeros(6))
    assert gradient[0, 1] > 0 and gradient[0, 5] < 0
    closer = distances.detach().clone()
    closer[0, 1] -= 0.1
    assert ranking_loss(closer, labels, ties=ties) < ranking_loss(distances, labels, ties=ties)


@pytest.mark.parametrize("ties", ["uniform", "first", "soft"])
def test_candidates(ties) -> None:  # type: ignore[no-untyped-def]
    """Studies that may not answer count as if they were not in the batch; a study without candidates does not count."""
    labels, distances = torch.randint(0, 5, (6, 6)).float(), (3 * random(6, 6)).requires_grad_()
    allowed = torch.zeros(6, 6, dtype=torch.bool)
    allowed[:4, :4] = True
    loss = ranking_loss(distances, labels, ties=ties, candidates=allowed)
    torch.testing.assert_close(loss, ranking_loss(distances[:4, :4], labels[:4, :4], ties=ties))
    loss.backward()
    assert not distances.grad[4:].any() and not distances.grad[:, 4:].any() and distances.grad[:4, :4].any()


@pytest.mark.parametrize("ties", ["uniform", "first", "soft"])
def test_one_study_alone(ties) -> None:  # type: ignore[no-untyped-def]
    distances = torch.zeros(1, 1, requires_grad=True)
    loss = ranking_loss(distances, torch.zeros(1, 1), ties=ties)
    loss.backward()
    assert loss.item() == 0 and distances.grad.item() == 0
