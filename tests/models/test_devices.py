"""What a GPU would refuse or wait for, found without one, in every system's training step and in its writing.

The model computes on the processor, while the default device is `meta`: a tensor that is created without naming a
device comes into being there, and the first operation that mixes it with the model's own fails, as it would on a GPU.
"""

from collections import Counter
from typing import Any

import pytest
import torch
from tests.models.tiny import make_batch, repeated, tiny
from torch.utils._python_dispatch import TorchDispatchMode

from crossray.models.base import ReportModel
from crossray.models.registry import list_models

#: Operators whose result's size or value the host must know: on a GPU it waits for them.
WAITS = {"aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.unique"}
every_system = pytest.mark.parametrize("system", list_models())


class Waits(TorchDispatchMode):
    """Counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func.overloadpacket)
        boolean = name == "aten.index" and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in WAITS or boolean:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def train(model: ReportModel) -> None:
    batch = make_batch()
    with torch.device("meta"):
        losses = model.train().losses(batch)
        sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(loss.device.type == "cpu" for loss in losses.values())
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.device.type == "cpu" for gradient in gradients)


@every_system
def test_a_training_step_names_its_device(system: str) -> None:
    train(tiny(system))


@every_system
def test_writing_names_its_device(system: str) -> None:
    model, batch = tiny(system), make_batch()
    with torch.no_grad(), torch.device("meta"):
        encoded = model.encode(batch.inputs)
        cache = model.start(encoded)
        tokens = batch.targets.tokens
        model.step(tokens[:, :1], encoded, cache)
        cache.widen(2)
        for place in (1, 2):
            step = model.step(tokens[:, place : place + 1].repeat_interleave(2, dim=0), encoded, cache)
    whole = model.step(tokens[:, :3].repeat_interleave(2, dim=0), repeated(encoded, 2))
    torch.testing.assert_close(step.logits[:, -1], whole.logits[:, -1], atol=1e-4, rtol=1e-4)


def test_a_tensor_without_a_device_is_found() -> None:
    """The test tests something."""
    model = tiny("baseline")
    plain = model.losses_of
    model.losses_of = lambda *given: {"language": plain(*given)["language"] * torch.ones(1).sum()}  # type: ignore[method-assign]
    with pytest.raises((RuntimeError, AssertionError)):
        train(model)


#: Waits of a step that reads images: everyone picks the views that exist (none over cached features). COACL and RCAN
#: ask besides which studies of the batch are alike, and RCAN which have one view; REVTAF searches its database of
#: reports, whose answers differ in length, and picks views again for every text that they read.
KNOWN = {"baseline": 1, "cmn": 1, "uar": 1, "union": 1, "coacl": 3, "rcan": 6, "revtaf": 18}


@every_system
def test_a_training_step_waits_no_more_than_it_must(system: str) -> None:
    model, batch = tiny(system).train(), make_batch()
    with Waits() as waits:
        model.losses(batch)
    assert sum(waits.found.values()) <= KNOWN.get(system, 1), waits.found
