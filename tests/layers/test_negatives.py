"""Uniformity, hard negatives, margins and the losses over them against loops over single pairs."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crossray.layers.contrastive import (
    different_reports,
    hardest,
    info_nce,
    label_margin,
    next_study,
    triplet,
    uniformity,
)  # fmt: skip


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def similarity(studies: int, seed: int = 0) -> Tensor:
    return F.normalize(random(studies, 5, seed=seed), dim=1) @ F.normalize(random(studies, 5, seed=seed + 1), dim=1).T


@pytest.mark.parametrize("studies", [2, 3, 9])
def test_uniformity_equals_a_double_loop(studies: int) -> None:
    features = random(studies, 4)
    units = [row / row.norm() for row in features.double()]
    pairs = [
        math.exp(-2 * float(((units[i] - units[j]) ** 2).sum()))
        for i in range(studies) for j in range(studies) if i != j
    ]  # fmt: skip
    assert float(uniformity(features)) == pytest.approx(math.log(sum(pairs) / len(pairs)), abs=1e-5)


def test_uniformity_of_a_point_and_of_a_sphere() -> None:
    assert float(uniformity(random(1, 8).expand(6, 8))) == pytest.approx(0, abs=1e-5)
    # far from the origin of a wide space directions are at right angles: exp(-2 * 2)
    assert float(uniformity(random(64, 4096))) == pytest.approx(-4, abs=0.05)


def test_hardest_negatives_equal_a_sort() -> None:
    scores, keys = similarity(7), torch.tensor([0, 1, 2, 1, 4, 5, 1])
    negative = different_reports(keys)
    for count in range(8):
        chosen = hardest(scores, negative, torch.tensor(count))
        assert torch.equal(chosen, hardest(scores, negative, count))
        for row in range(7):
            others = [j for j in range(7) if keys[j] != keys[row]]
            expected = sorted(others, key=lambda j: -float(scores[row, j]))[:count]
            assert sorted(expected) == chosen[row].nonzero().flatten().tolist()


def test_margin_equals_m2kts_definition() -> None:
    truth = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]).bool()
    found = label_margin(truth, torch.tensor([True] * 5))
    for i in range(5):
        for j in range(5):
            one, other = set(truth[i].nonzero().flatten().tolist()), set(truth[j].nonzero().flatten().tolist())
            expected = 0.0 if one == other else max(0.5, len(one ^ other) / len(one | other))
            assert float(found[i, j]) == pytest.approx(expected)
    partly = label_margin(truth, torch.tensor([True, True, False, True, True]))
    assert (partly[2] == 0.5).all()
    assert (partly[:, 2] == 0.5).all()
    assert partly[0, 1] == 0


@pytest.mark.parametrize("count", [1, 2, 5])
def test_triplet_equals_loops(count: int) -> None:
    scores, keys = similarity(6), torch.tensor([0, 1, 2, 1, 4, 5])
    margin = label_margin(random(6, 4) > 0, torch.ones(6, dtype=torch.bool))
    rows = []
    for i in range(6):
        others = sorted((j for j in range(6) if keys[j] != keys[i]), key=lambda j: -float(scores[i, j]))[:count]
        losses = [max(0.0, float(scores[i, j] - scores[i, i] + margin[i, j])) for j in others]
        rows.append(sum(losses) / len(losses))
    found = triplet(scores, hardest(scores, different_reports(keys), count), margin)
    assert float(found) == pytest.approx(sum(rows) / 6, abs=1e-6)


def test_infonce_equals_loops() -> None:
    scores, keys = similarity(6), torch.tensor([0, 1, 2, 1, 4, 5])
    rows = []
    for i in range(6):
        others = sorted((j for j in range(6) if keys[j] != keys[i]), key=lambda j: -float(scores[i, j]))[:3]
        own = math.exp(float(scores[i, i]) / 0.07)
        rows.append(-math.log(own / (own + sum(math.exp(float(scores[i, j]) / 0.07) for j in others))))
    found = info_nce(scores, hardest(scores, different_reports(keys), 3), 0.07)
    assert float(found) == pytest.approx(sum(rows) / 6, rel=1e-5)


def test_without_negatives_nothing_is_lost() -> None:
    scores = similarity(4).requires_grad_()
    nobody = hardest(scores, different_reports(torch.zeros(4)), 3)
    for loss in (triplet(scores, nobody, 0.5), info_nce(scores, nobody, 0.07)):
        assert loss.item() == 0
        (gradient,) = torch.autograd.grad(loss, scores)
        assert (gradient == 0).all()


def test_a_triplet_is_satisfied_by_its_margin() -> None:
    scores = torch.tensor([[0.9, 0.6], [0.7, 0.8]])
    one = hardest(scores, different_reports(torch.arange(2)), 1)
    assert float(triplet(scores, one, 0.1)) == 0
    assert float(triplet(scores, one, 0.2)) == pytest.approx((0 + 0.1) / 2)


def test_next_study_is_cyclic() -> None:
    assert next_study(3, torch.device("cpu")).int().tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
