"""What reports write into the knowledge memory, against loops."""

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


def what_they_write(one: KnowledgeMemory, words: Tensor, mask: Tensor) -> dict[int, Tensor]:
    """For each slot that fits a word best the mean of those words, of length 1 without the mean of all, by loops."""
    slots = one.map(one.slots).detach()
    valid = [word for study in range(len(words)) for word in words[study][mask[study]]]
    middle = sum(valid) / len(valid)
    found: dict[int, list[Tensor]] = {}
    for word in valid:
        rest = (word - middle) / (word - middle).norm()
        fit = [float(((row - row.mean()) / math.sqrt(float(row.var(unbiased=False)) + 1e-5)) @ rest) for row in slots]
        found.setdefault(fit.index(max(fit)), []).append(rest)
    return {slot: sum(rows) / len(rows) for slot, rows in found.items()}


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
    expected = what_they_write(one, words, mask)
    assert 1 < len(expected) < 6
    for slot in range(6):
        row = 0.1 * expected[slot] if slot in expected else torch.zeros(8)
        torch.testing.assert_close(one.written[slot], row, atol=1e-6, rtol=1e-4)
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
    words = torch.tensor([[[1.0] * 8, [-1.0] * 8] * 3]) * 100
    for _ in range(30):
        one.read(words, torch.ones(1, 6, dtype=torch.bool))
        one.write()
    norms = one.written.norm(dim=1)
    assert sorted(norms.round(decimals=4).tolist()) == [0, 0, 0, 0, 1, 1]


def test_slots_differ_in_what_is_written_of_them() -> None:
    """Words that have much in common write what they do not have in common: the same for all slots would cancel."""
    one = KnowledgeMemory(20, 64, momentum=0.5)
    generator = torch.Generator().manual_seed(0)
    words = 10 * torch.randn(64, generator=generator) + torch.randn(8, 40, 64, generator=generator)
    for _ in range(20):
        one.read(words, torch.ones(8, 40, dtype=torch.bool))
        one.write()
    written = one.update()[one.update().norm(dim=1) > 0]
    assert len(written) > 15
    rest = written - written.mean(dim=0)
    assert rest.norm() / written.norm() > 0.9


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
