"""Liveness: planted constants are found, and what works is not taken for one."""

from typing import Any

import pytest
import torch
from tests.models.tiny import make_batch, tiny

from crossray.analysis.liveness import Measured, measure, relative_gradients
from crossray.models.base import ReportModel


def cmn(**options: Any) -> ReportModel:
    torch.manual_seed(0)
    model = tiny("cmn", **options)
    assert isinstance(model, ReportModel)
    return model


def measured(model: ReportModel) -> Measured:
    return measure(model, [make_batch(), make_batch(5)], model.loss_weights)


def test_a_module_that_works_is_alive_and_the_model_is_left_as_it_was() -> None:
    model = cmn()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = measured(model).modules["memory"]
    assert found.dependent is not None
    assert found.dependent > 0.3
    assert found.over_rounding > 1e3
    assert found.perplexity is not None
    assert 1 < found.perplexity < 6
    assert found.slots == 48
    assert found.gradient is not None
    assert found.gradient > 1e-3
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(p.grad is not None for p in model.parameters())


def test_a_planted_constant_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cmn()
    constant = torch.randn(32)
    memory: Any = model.get_submodule("memory")
    monkeypatch.setattr(memory, "forward", lambda x, *_: constant.to(x.dtype).expand_as(x))
    found = measured(model)
    assert found.modules["memory"].dependent == pytest.approx(0, abs=1e-6)
    assert found.modules["memory"].over_rounding < 100
    assert found.gradients["memory.matrix"] == 0


def test_the_weights_of_a_plain_mean_have_the_perplexity_of_all_slots() -> None:
    model = cmn(memory_top=48)
    memory: Any = model.get_submodule("memory")
    with torch.no_grad():
        memory.query.weight.zero_()
        memory.query.bias.zero_()
    assert measured(model).modules["memory"].perplexity == pytest.approx(48)


def test_a_gradient_counts_beside_those_of_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second loss, a million times as steep and elsewhere, makes nothing look dead that the first one trains."""
    model = cmn()
    batches = [make_batch()]
    before = relative_gradients(model, batches, {"language": 1.0})
    plain = ReportModel.losses

    def losses(self: ReportModel, batch: Any) -> dict[str, Any]:
        return plain(self, batch) | {
            "steep": 1e6 * self.get_parameter("visual_embedding.project.weight").square().sum()
        }

    monkeypatch.setattr(ReportModel, "losses", losses)
    after = relative_gradients(model, batches, {"language": 1.0, "steep": 1.0})
    others = [name for name in before if name != "visual_embedding.project.weight"]
    assert {name: after[name] for name in others} == pytest.approx({name: before[name] for name in others})
    assert relative_gradients(model, batches, {"language": 0.0, "steep": 1.0})["memory.matrix"] == 0
