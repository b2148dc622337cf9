"""Every system's forward pass as one graph (`torch.export`): no shape, branch or value of it depends on the studies."""

import pytest
import torch
from tests.models.tiny import make_batch, tiny
from torch import Tensor, nn

from crossray.data.batches.batch import Inputs
from crossray.models.base import ReportModel
from crossray.models.registry import list_models

#: What cannot be one graph, and why: between two networks it searches its database of reports, which is no tensor.
RETRIEVING = {"revtaf"}


class Reads(nn.Module):
    """Images and words in, logits out."""

    def __init__(self, model: ReportModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, size: Tensor, mask: Tensor, position: Tensor, tokens: Tensor) -> Tensor:
        return self.model.step(tokens, self.model.encode(Inputs(images, size, mask, position))).logits


@pytest.mark.parametrize("system", sorted(set(list_models()) - RETRIEVING))
def test_the_exported_graph_reads_other_studies_alike(system: str) -> None:
    model, batch = Reads(tiny(system).eval()), make_batch()
    inputs = batch.inputs
    rest = inputs.image_size, inputs.view_mask, inputs.view_position, batch.targets.tokens[:, :4]
    fewer = inputs.view_mask.clone()
    fewer[0] = torch.tensor([True, False])
    others = (inputs.images.flip(0), inputs.image_size, fewer, inputs.view_position, batch.targets.tokens[:, 1:5])
    with torch.no_grad():
        graph = torch.export.export(model, (inputs.images, *rest), strict=False).module()
        assert (fewer != inputs.view_mask).any()
        torch.testing.assert_close(graph(*others), model(*others), atol=1e-5, rtol=1e-5)
