"""Of every system: a view's vector depends on that view alone, so that one image can be checked like a study."""

from dataclasses import replace

import pytest
import torch
from tests.models.tiny import make_inputs, tiny

from crossray.models.registry import list_models


@pytest.mark.parametrize("system", list_models())
def test_a_views_vector_depends_on_that_view_alone(system: str) -> None:
    model = tiny(system)
    both = make_inputs(studies=1)
    mask = both.view_mask.clone()
    mask[:, 1] = False
    alone = replace(both, view_mask=mask, view_position=torch.zeros_like(both.view_position))
    with torch.inference_mode():
        first, second = model.encode(both).pooled, model.encode(alone).pooled
    assert first[0, 0].std() > 0
    assert torch.allclose(first[0, 0], second[0, 0], atol=1e-5)
    assert not torch.allclose(first[0, 1], second[0, 1], atol=1e-3)
