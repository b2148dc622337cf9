"""Liveness: planted constants are found, and what works is not taken for one."""

import dataclasses
from typing import Any

import pytest
import torch
from tests.models.tiny import make_batch, tiny

from crossray.analysis.liveness import Liveness, Measured, largest_change, measure, relative_gradients
from crossray.models.base import ReportModel
from crossray.pages.liveness_table import grid


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


def test_changes_that_cancel_out_in_one_batch_do_not_make_a_module_look_dead() -> None:
    before = [{"loss": torch.tensor(1.0)}] * 4
    after = [{"loss": torch.tensor(value)} for value in (1.0, 1.01, 0.99, 1.02)]
    name, multiple, relative = largest_change(before, after, [{"loss": 1e-6}] * 4)
    assert name == "loss"
    assert relative == pytest.approx(0.01, rel=1e-3)
    assert multiple > 9000


def test_a_selection_that_rounding_flips_in_one_batch_is_no_noise() -> None:
    before, after = [{"logits": torch.zeros(3)}] * 4, [{"logits": torch.full((3,), 1e-3)}] * 4
    noise = [{"logits": value} for value in (1e-7, 1e-7, 1e-4, 1e-7)]
    assert largest_change(before, after, noise)[1] == pytest.approx(1e4, rel=1e-3)
    # nor does a flip make a dead module look alive
    flipped = [*before[:3], {"logits": torch.full((3,), 1e-3)}]
    assert largest_change(before, flipped, [{"logits": 1e-7}] * 4) == ("", 0.0, 0.0)


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


def test_the_table_has_a_line_a_module_and_one_for_the_weakest_parameter() -> None:
    fresh = Liveness(
        dependent=0.5, effect=0.01, observed="logits", over_rounding=1e4, perplexity=None, slots=0, gradient=0.5,
        weakest="memory.matrix",
    )  # fmt: skip
    trained = dataclasses.replace(fresh, perplexity=6.0, slots=48)
    found = {
        "cmn/phantom": (Measured({"m": fresh}, {"a": 0.2, "b": 3.0}), Measured({"m": trained}, {"a": 0.1, "b": 2.0}))
    }
    module, parameters = grid(found, "").lines
    assert module == [
        "cmn/phantom",
        "m",
        "50% / 50%",
        "1.0% / 1.0%",
        "logits",
        "1e+04 / 1e+04",
        "- / 6",
        "48",
        "0.5000 / 0.5000",
    ]
    assert parameters[1] == "all parameters (a)"
    assert parameters[-1] == "0.2000 / 0.1000"
