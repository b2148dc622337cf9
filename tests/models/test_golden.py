"""No change of the code changes what a model with given weights writes and learns from, unless it is meant to."""

import json

import pytest
import torch
from tests.models.golden import FOLDER, record

from crossray.models.registry import list_models


@pytest.mark.parametrize("system", list_models())
def test_logits_and_losses_are_those_recorded(system: str) -> None:
    recorded = json.loads((FOLDER / f"{system}.json").read_text(encoding="utf-8"))
    found = record(system)
    torch.testing.assert_close(torch.tensor(found["logits"]), torch.tensor(recorded["logits"]), atol=2e-4, rtol=1e-4)
    assert found["losses"] == pytest.approx(recorded["losses"], abs=2e-4)
