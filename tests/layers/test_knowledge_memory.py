"""What reports write into the knowledge memory, against loops (SPEC 9, number 14)."""

import math

import pytest
import torch
from torch import Tensor

from crossray.layers.knowledge_memory import KnowledgeMemory, look_up


def memory(**options: object) -> KnowledgeMemory:
    torch.manual_seed(0)
    return KnowledgeMemory(6, 8, **options)


def reports(studies: int = 3, words: int = 5) -> tuple[Tensor, Tensor]:
    mask = torch.arange(words) < torch.tensor([words - row for row in range(studies)])[:, None]
    return torch.randn(studies, words, 8, generator=torch.Generator().manual_seed(1)), mask


def what_they_add(one: KnowledgeMemory, words: Tensor, mask: Tensor) -> Tensor:
    """Mean over the studies of each slot's attention to unit words, by loops."""
    slots = one.map(one.slots).detach()
    added = torch.zeros_like(slots)
    for study in range(len(words)):
        valid = words[study][mask[study]]
        for slot, row in enumerate(slots):
            query = (row - row.mean()) / math.sqrt(float(row.var(unbiased=False)) + 1e-5)
            weights = [math.exp(float(query @ word) / math.sqrt(8)) for word in valid]
            for weight, word in zip(weights, valid, strict=True):
                added[slot] += weight / sum(weights) * word / word.norm() / len(words)
    return added


def test_a_look_up_equals_loops() -> None:
    query, key, value = torch.randn(2, 3, 4), torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    found = look_up(query, key, value)
    for study in range(2):
        for row in range(3):
            weights = (key[study] @ query[study, row] / 2).softmax(dim=0)
            torch.testing.assert_close(found[study, row], weights @ value[study])


def test_a_step_moves_what_is_written_towards_the_reports() -> None:
    one = memory(momentum=0.9)
    words, mask = reports()
    one.read(words, mask)
    assert (one.written == 0).all()
    one.write()
    torch.testing.assert_close(one.written, 0.1 * what_they_add(one, words, mask), atol=1e-6, rtol=1e-4)
    before = one.written.clone()
    one.write()  # nothing was read since
    assert torch.equal(one.written, before)
    one.read(words, mask)
    one.write()
    torch.testing.assert_close(one.written, 1.9 * before, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(one(), one.map(one.slots) + one.written)


def test_batches_of_one_step_count_by_their_studies() -> None:
    whole, parts = memory(), memory()
    words, mask = reports()
    whole.read(words, mask)
    parts.read(words[:1], mask[:1])
    parts.read(words[1:], mask[1:])
    whole.write()
    parts.write()
    torch.testing.assert_close(parts.written, whole.written)


def test_padding_writes_nothing() -> None:
    one, other = memory(), memory()
    words, mask = reports()
    one.read(words, mask)
    other.read(torch.where(mask[..., None], words, 9.0), mask)
    one.write()
    other.write()
    torch.testing.assert_close(other.written, one.written)


def test_what_is_written_never_gets_longer_than_the_slots_were() -> None:
    one = memory(momentum=0.5)
    words = torch.ones(2, 5, 8) * 100
    for _ in range(30):
        one.read(words, torch.ones(2, 5, dtype=torch.bool))
        one.write()
    torch.testing.assert_close(one.written.norm(dim=1), torch.ones(6))


def test_a_momentum_of_one_writes_nothing() -> None:
    one = memory(momentum=1.0)
    one.read(*reports())
    one.write()
    assert (one.written == 0).all()


@pytest.mark.parametrize("trained", [True, False])
def test_slots_are_unit_vectors_and_trained_on_demand(trained: bool) -> None:
    one = memory(trained=trained)
    assert torch.equal(one.slots, torch.eye(6, 8))
    assert ("slots" in dict(one.named_parameters())) == trained
    assert {"slots", "written"} <= set(one.state_dict())
