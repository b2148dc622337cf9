"""FCC: overlap of attention maps weighted by the similarity of prompts, by its definition (eq. 12-14)."""

import pytest
import torch
from tests.layers.test_sinkhorn import masks, random
from torch import Tensor

from crossray.models.retrieval.fusion import FCC


def consistency(first: Tensor, second: Tensor, similarity: Tensor, mask: Tensor, kind: str = "soft") -> Tensor:
    return FCC(kind)(first, second, similarity, mask)


def plans(batch: int = 2, positions: int = 49, columns: int = 5, seed: int = 0) -> Tensor:
    return random(batch, positions, columns, seed=seed).softmax(1)


def test_consistency_by_its_definition() -> None:
    sentences, entities, similarity = plans(), plans(columns=7, seed=1), random(2, 5, 7).sigmoid()
    mask = masks(2, 5)
    total, count = 0.0, 0
    for study in range(2):
        for n in range(int(mask[study].sum())):
            for m in range(7):
                first, second = sentences[study, :, n] / sentences[study, :, n].max(), entities[study, :, m]
                second = second / second.max()
                overlap = torch.minimum(first, second).sum() / torch.maximum(first, second).sum()
                assert 0 <= overlap <= 1
                total, count = total + (1 - similarity[study, n, m] * overlap).item(), count + 1
    found = consistency(sentences, entities, similarity, mask)
    assert found.item() == pytest.approx(total / count, abs=1e-6)


def test_the_similarity_of_prompts_has_full_precision_under_autocast() -> None:
    sentences, phrases = random(2, 5, 16), random(2, 7, 16, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = FCC.similarity(sentences, phrases)
    assert torch.equal(found, FCC.similarity(sentences, phrases))


def test_equal_maps_overlap_fully_and_disjoint_ones_not_at_all() -> None:
    one, mask = torch.ones(1, 1, 1), torch.ones(1, 1, dtype=torch.bool)
    sentence = plans(1, 49, 1)
    assert consistency(sentence, 3 * sentence, one, mask).item() == pytest.approx(0, abs=1e-6)
    left, right = torch.zeros(1, 4, 1), torch.zeros(1, 4, 1)
    left[0, :2], right[0, 2:] = 0.25, 0.25
    assert consistency(left, right, one, mask).item() == 1


def test_consistency_has_a_gradient_and_ignores_padding() -> None:
    sentences, entities = plans().requires_grad_(), plans(columns=7, seed=1).requires_grad_()
    similarity, mask = random(2, 5, 7).sigmoid(), masks(2, 5)
    loss = consistency(sentences, entities, similarity, mask)
    loss.backward()
    for maps in (sentences, entities):
        assert maps.grad.isfinite().all() and maps.grad.any()
    assert not sentences.grad[~mask[:, None].expand(-1, 49, -1)].any()
    changed = torch.where(mask[:, None], sentences, 7.0)
    torch.testing.assert_close(consistency(changed, entities, similarity, mask), loss)
    assert consistency(sentences, entities, similarity, torch.zeros_like(mask)).item() == 0


def test_a_step_along_the_gradient_moves_the_maps_together() -> None:
    logits, entities = random(1, 49, 3).requires_grad_(), plans(1, 49, 3, seed=1)
    ones, mask = torch.ones(1, 3, 3), torch.ones(1, 3, dtype=torch.bool)
    before = consistency(logits.softmax(1), entities, ones, mask)
    before.backward()
    after = consistency((logits - 5 * logits.grad).softmax(1), entities, ones, mask)
    assert after < before


def test_legacy_consistency() -> None:
    """The released code: cut maps have no gradient, and boxes at the extremes overlap as their areas do."""
    left, both = torch.zeros(1, 7, 7), torch.zeros(1, 7, 7)
    left[0, :, :3], both[0, :, :] = 1, 1
    both[0, :, 6] = 0
    sentences = left.flatten(1)[..., None].requires_grad_()
    similarity = torch.ones(1, 1, 1, requires_grad=True)
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss = consistency(sentences, both.flatten(1)[..., None], similarity, mask, kind="legacy")
    assert loss.item() == pytest.approx(0.5)
    loss.backward()
    assert sentences.grad is None and similarity.grad.item() == pytest.approx(-0.5)


def test_contrast_by_its_definition() -> None:
    """One minus twice the covariance of the overlap with the standardized similarity, averaged over views."""
    sentences, entities, similarity, mask = plans(), plans(columns=7, seed=1), random(2, 5, 7).sigmoid(), masks(2, 5)
    overlap, losses = FCC("soft").overlap(sentences, entities), []
    for view in range(2):
        wanted, seen = (x[view, : int(mask[view].sum())].flatten() for x in (similarity, overlap))
        wanted = (wanted - wanted.mean()) / wanted.std(correction=0)
        losses.append(1 - 2 * (wanted * (seen - seen.mean())).mean())
    found = consistency(sentences, entities, similarity, mask, "contrast")
    torch.testing.assert_close(found, torch.stack(losses).mean(), atol=1e-5, rtol=1e-5)
    assert consistency(sentences, entities, similarity, torch.zeros_like(mask), "contrast") == 0


def test_equal_maps_satisfy_the_printed_loss_and_gain_nothing_by_contrast() -> None:
    """Eq. 14 as printed is least when all prompts look everywhere alike, which is what an attention then learns."""
    uniform, mask = torch.full((1, 48, 6), 1 / 48), torch.ones(1, 6, dtype=torch.bool)
    similarity = (4 * torch.eye(6)[None] - 1).sigmoid()
    own_place = torch.eye(6).repeat_interleave(8, dim=0)[None]  # prompts that say the same look at the same place
    assert consistency(uniform, uniform, similarity, mask) < consistency(own_place, own_place, similarity, mask)
    assert consistency(uniform, uniform, similarity, mask, "contrast").item() == pytest.approx(1, abs=1e-5)
    assert consistency(own_place, own_place, similarity, mask, "contrast") < 0.5
