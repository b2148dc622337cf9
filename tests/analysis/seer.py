"""A model that writes one report whatever it sees, and whose attention is planted: the oracle of grounding tests."""

import torch
from torch import Tensor

from crossray.data.batches.batch import Guide, Inputs
from crossray.data.batches.transform import ImageTransform
from crossray.layers.cache import Cache
from crossray.models.base import Encoded, ModelConfig, ReportModel, Step
from crossray.models.parts.backbones import joined_cells
from crossray.text.tokenizer import Tokenizer


class Seer(ReportModel):
    """Recognizes a study by the brightness of its first view.

    Args:
        report: what it writes.
        brightness: (N,) mean of the first view of every study, as the model is shown it.
        planted: (N, words, S), attention of each of the report's words in every study.
        transform: its image transform.
    """

    def __init__(self, report: str, brightness: Tensor, planted: Tensor, transform: ImageTransform) -> None:
        super().__init__()
        self.system = "seer"
        self.tokenizer = Tokenizer.train([report], min_count=1)
        self.transform = transform
        self.config = ModelConfig(vocabulary_size=self.tokenizer.vocabulary_size, max_length=60)
        self.written = torch.tensor(self.tokenizer.encode(report, 60)[1:])
        self.brightness = brightness
        # the end of the report looks where the last word looked
        self.planted = torch.cat([planted, planted[:, -1:]], dim=1).transpose(1, 2)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def encode(self, inputs: Inputs, guide: Guide | None = None) -> Encoded:
        seen = inputs.images[:, 0].mean(dim=(1, 2, 3))
        study = (seen[:, None] - self.brightness).abs().argmin(dim=1)
        memory = self.planted[study]
        everywhere = torch.ones(memory.shape[:2], dtype=torch.bool)
        return Encoded(memory, everywhere, memory.new_zeros(*inputs.view_mask.shape, 1))

    def start(self, encoded: Encoded, beams: int = 1) -> Cache:
        return Cache(beams, 0, [encoded.memory], [], None)

    def step(
        self, tokens: Tensor, encoded: Encoded, cache: Cache | None = None, *, need_attention: bool = False
    ) -> Step:
        first = 0 if cache is None else cache.length
        places = torch.arange(first, first + tokens.shape[1]).clamp_max(len(self.written) - 1)
        logits = torch.full((*tokens.shape, self.config.vocabulary_size), -20.0)
        logits[:, torch.arange(len(places)), self.written[places]] = 20.0
        if cache is not None:
            cache.length += tokens.shape[1]
        attention = encoded.memory.transpose(1, 2)[:, None, None, places] if need_attention else None
        return Step(logits, cache, attention)

    def memory_cells(self, views: int, positions: int) -> Tensor:
        return joined_cells(views, positions)
