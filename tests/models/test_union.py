"""Union: its prompts are what its diagnosis says, and without its parts it is the baseline."""

import pytest
import torch
from tests.models.tiny import make_batch, tiny

from crossray.errors import UserError
from crossray.models.union import Diagnosis


def test_a_sure_diagnosis_is_read_as_the_embedding_of_its_status() -> None:
    diagnosis = Diagnosis(channels=6, width=8, classes=3, dropout=0.0)
    chosen = torch.tensor([[0, 3, 1], [2, 2, 0]])
    logits = 1e4 * torch.nn.functional.one_hot(chosen, 4).transpose(1, 2).float()
    for row, statuses in enumerate(chosen.tolist()):
        for place, status in enumerate(statuses):
            torch.testing.assert_close(diagnosis.prompts(logits)[row, place], diagnosis.statuses[place, status])
    even = diagnosis.prompts(torch.zeros(1, 4, 3))[0]
    torch.testing.assert_close(even, diagnosis.statuses.mean(dim=1))


def test_without_its_parts_it_is_the_baseline() -> None:
    plain, baseline = tiny("union", cra=False, diagnosis=False), tiny("baseline")
    baseline.load_state_dict(plain.state_dict())
    batch = make_batch()
    ours, theirs = (model.step(batch.targets.tokens, model.encode(batch.inputs)).logits for model in (plain, baseline))
    assert torch.equal(ours, theirs)
    assert set(plain.losses(batch)) == {"language"}


def test_training_and_generation_read_the_same_prompts() -> None:
    """The true labels guide the loss alone: what the decoder reads is predicted always."""
    model, batch = tiny("union"), make_batch()
    told, alone = model.encode(batch.inputs, batch.guide), model.encode(batch.inputs)
    assert torch.equal(told.memory, alone.memory)


def test_prompts_stand_for_no_place() -> None:
    model, batch = tiny("union"), make_batch()
    positions = model.encode(batch.inputs).memory.shape[1]
    cells = model.memory_cells(2, positions)
    assert cells is not None and cells.shape == (2, positions)
    assert (cells[:, -3:] == -1).all() and (cells[:, :-3] >= 0).any(dim=0).all()


def test_a_view_that_is_missing_does_not_dilute_the_diagnosis() -> None:
    diagnosis = Diagnosis(channels=6, width=8, classes=3, dropout=0.0)
    pooled = torch.randn(1, 2, 6)
    pooled[:, 1] = 0
    both = diagnosis(pooled, torch.tensor([[True, False]]))
    torch.testing.assert_close(both, diagnosis(pooled[:, :1], torch.tensor([[True]])))


def test_it_says_that_it_needs_labels() -> None:
    with pytest.raises(UserError, match="prepare it again"):
        tiny("union", observations=())
