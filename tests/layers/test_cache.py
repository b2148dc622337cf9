"""The cache against the plain way: every row keeps its own keys, and moving beams copies them."""

import pytest
import torch

from crossray.layers.cache import Cache


def fresh(studies: int, beams: int) -> Cache:
    memory = torch.arange(float(studies)).view(studies, 1, 1, 1)
    return Cache(beams, 0, [memory], [memory.clone()], torch.ones(studies, 1, 1, 1, dtype=torch.bool))


@pytest.mark.parametrize("prompt", [0, 1, 40])
def test_rows_see_exactly_their_own_text(prompt: int) -> None:
    """Also behind a prompt, which all rows of a study see and which is held once a study."""
    studies, beams, heads, depth = 3, 4, 2, 5
    generator = torch.Generator().manual_seed(0)
    cache, read = fresh(studies, 1), torch.randn(studies, heads, prompt, depth, generator=generator)
    if prompt:
        cache.extend(prompt, read.device)
        cache.write(0, read, -read)
    cache.widen(beams)
    assert cache.slots == prompt
    written = read.repeat_interleave(beams, dim=0)
    for turn, count in enumerate([3, 1, 1, 2, 1, 30, 1, 1]):
        rows = studies * beams
        new = torch.randn(rows, heads, count, depth, generator=generator)
        written = torch.cat([written, new], dim=2)
        visible = cache.extend(count, new.device)
        slots = new.view(studies, beams, heads, count, depth).permute(0, 2, 3, 1, 4).flatten(2, 3)
        keys, values = cache.write(0, slots, -slots)
        assert visible is not None
        assert cache.length == written.shape[2]
        assert keys.shape[2] == cache.slots == prompt + beams * (cache.length - prompt)
        visible = visible.expand(studies, 1, beams * count, keys.shape[2]).reshape(rows, count, -1)
        for row in range(rows):
            for place in range(count):
                seen = keys[row // beams][:, visible[row, place]]
                end = cache.length - count + place + 1
                assert torch.equal(seen, written[row, :, :end])
                assert torch.equal(values[row // beams][:, visible[row, place]], -written[row, :, :end])
        cache.state["row"] = torch.arange(rows)
        order = (torch.arange(studies)[:, None] * beams + torch.randint(0, beams, (studies, beams))).flatten()
        cache.reorder(order)
        assert torch.equal(cache.state["row"], order)
        written = written[order]
        if turn == 3:
            kept = torch.tensor([2, 0])
            cache.select(kept)
            assert cache.memory_keys[0].flatten().tolist() == [2.0, 0.0]
            written = written.unflatten(0, (studies, beams))[kept].flatten(0, 1)
            studies = 2


def test_one_beam_sees_all_that_is_written() -> None:
    cache = fresh(2, 1)
    first = torch.randn(2, 1, 3, 4)
    visible = cache.extend(3, first.device)
    assert visible is not None
    assert torch.equal(visible, torch.ones(3, 3, dtype=torch.bool).tril())
    cache.write(0, first, first)
    for _ in range(40):
        new = torch.randn(2, 1, 1, 4)
        assert cache.extend(1, new.device) is None
        keys, _ = cache.write(0, new, new)
        first = torch.cat([first, new], dim=2)
        assert torch.equal(keys, first)
    cache.reorder(torch.tensor([0, 1]))
    cache.select(torch.tensor([1]))
    assert torch.equal(cache.keys[0][:, :, : cache.length], first[1:])


def test_what_studies_share_stays() -> None:
    cache = fresh(3, 2)
    cache.shared["table"] = torch.arange(7)
    cache.reorder(torch.tensor([1, 0, 3, 2, 5, 4]))
    cache.select(torch.tensor([1]))
    assert torch.equal(cache.shared["table"], torch.arange(7))


def test_rows_apart_see_their_own_text_and_leave_one_by_one() -> None:
    """Samples: behind what they have in common, each row is on its own."""
    cache, read = fresh(2, 1), torch.randn(2, 1, 3, 4)
    cache.reserved = 10
    cache.extend(3, read.device)
    cache.write(0, read, -read)
    cache.widen(4, apart=True)
    written = read.repeat_interleave(4, dim=0)
    cache.state["row"] = torch.arange(8)
    for turn in range(12):
        new = torch.randn(len(written), 1, 1, 4)
        assert cache.extend(1, new.device) is None
        keys, values = cache.write(0, new, -new)
        written = torch.cat([written, new], dim=2)
        assert torch.equal(keys, written)
        assert torch.equal(values, -written)
        if turn == 2:
            cache.narrow(torch.tensor([[3, 0], [1, 2]]))
            written = written[[3, 0, 5, 6]]
            assert cache.state["row"].tolist() == [3, 0, 5, 6]
        if turn == 4:
            cache.select(torch.tensor([1]))
            written = written[2:]
            assert cache.memory_keys[0].flatten().tolist() == [1.0]
            assert cache.state["row"].tolist() == [5, 6]
