"""No change of the code changes what a model with given weights writes, unless it is meant to."""

import json

import pytest
import torch
from tests.models.golden import FOLDER, logits

from crossray.models.registry import list_models


@pytest.mark.parametrize("system", list_models())
def test_logits_are_those_recorded(system: str) -> None:
    recorded = json.loads((FOLDER / f"{system}.json").read_text(encoding="utf-8"))
    torch.testing.assert_close(torch.tensor(logits(system)), torch.tensor(recorded), atol=2e-4, rtol=1e-4)
