"""Extracts the cross-attention over the views for each word of a report (RCAN Fig. 4, UAR Fig. 6).

Shapes: B studies, V views, S memory positions, L decoder layers, T tokens, G cells along a side of the grid.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossray.analysis.inputs import tokenizer_of, transform_of
from crossray.data.batches.batch import Guide, Inputs
from crossray.data.batches.transform import transform_inputs
from crossray.decoding.config import DecodingConfig
from crossray.decoding.reports import WrittenReport, study_seed, word_tokens, write_reports
from crossray.errors import UserError
from crossray.evaluation.utilities import utility_of
from crossray.models.base import ReportModel
from crossray.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ReportAttention:
    """A generated report with the model's attention for each of its words.

    Attributes:
        text: the tokenized report.
        words: index of each word's first character in `text`, and the index after its last one.
        weights: (words, L, V, G, G) float32, share of the attention on each cell, averaged over heads; the rest to 1 is
            on positions without a place in an image.
        windows: (V, 4) top, left, bottom and right of the part of each view that the model saw, as shares of its height
            and width; the cells divide this part evenly.
        view_mask: (V,) bool, True for existing views.
    """

    text: str
    words: tuple[tuple[int, int], ...]
    weights: NDArray[np.float32]
    windows: NDArray[np.float64]
    view_mask: NDArray[np.bool_]

    def words_within(self, start: int, end: int) -> list[int]:
        """Indices of the words that overlap with a part of the text."""
        return [number for number, (first, last) in enumerate(self.words) if first < end and start < last]


def attend_reports(
    model: ReportModel, inputs: Inputs, config: DecodingConfig, names: Sequence[str], guide: Guide | None = None
) -> list[ReportAttention]:
    """Generate one report per study, with the attention of the model.

    The attention is computed from the finished report in one additional pass, and averaged over the tokens of a word.

    Args:
        model: model with tokenizer and image transform.
        inputs: B studies as stored, before the transform, on the model's device.
        config: the decoding settings.
        names: (B,) names of the studies, which seed their random numbers.
        guide: identifies training studies (`guide_of`); None if the studies are new to the model.

    Raises:
        UserError: the system returns no attention, or its positions have no place in the image.
    """
    transform = transform_of(model)
    prepared = transform_inputs(inputs, transform, train=False)
    seeds = [study_seed(config.seed, name) for name in names]
    reports = write_reports(
        model, prepared, config, need_attention=True, seeds=seeds, utility=utility_of(config), guide=guide
    )
    return lay_out(model, reports, inputs)


def lay_out(model: ReportModel, reports: Sequence[WrittenReport], inputs: Inputs) -> list[ReportAttention]:
    """Compute the attention of each word for reports that were generated with `need_attention`.

    Args:
        model: model with tokenizer and image transform.
        reports: reports of B studies.
        inputs: these studies as stored, before the transform.

    Raises:
        UserError: see `attend_reports`.
    """
    transform, tokenizer = transform_of(model), tokenizer_of(model)
    studies, views = inputs.view_mask.shape
    windows = transform.window(inputs.image_size.flatten(0, 1)).view(studies, views, 4).cpu().numpy()
    masks = inputs.view_mask.cpu().numpy()
    return [
        _laid_out(model, tokenizer, report, window, mask)
        for report, window, mask in zip(reports, windows, masks, strict=True)
    ]


def _laid_out(
    model: ReportModel,
    tokenizer: Tokenizer,
    report: WrittenReport,
    windows: NDArray[np.float64],
    view_mask: NDArray[np.bool_],
) -> ReportAttention:
    weights = report.cross_attention
    cells = None if weights is None else model.memory_cells(len(view_mask), weights.shape[-1])
    if weights is None or cells is None:
        raise UserError(f"system '{model.system}' has no attention over the image; give a model of another system.")
    # A position shared by all views must not show attention on a missing view.
    cells = cells.masked_fill(~torch.from_numpy(view_mask)[:, None], -1)
    token_maps = on_grid(weights.mean(dim=1).transpose(0, 1)[: len(report.tokens)], cells)
    spans = tuple((match.start(), match.end()) for match in re.finditer(r"\S+", report.text))
    maps = torch.zeros(len(spans), *token_maps.shape[1:])
    for number, places in enumerate(word_tokens(tokenizer, report.tokens)):
        maps[number] = token_maps[places].mean(dim=0)
    return ReportAttention(report.text, spans, maps.numpy(), windows, view_mask)


def on_grid(weights: Tensor, cells: Tensor) -> Tensor:
    """Convert attention over memory positions, (..., S), to maps over the views, (..., V, G, G).

    A position for a place in several views gives each of them an equal part of its weight.

    Args:
        weights: attention over the positions.
        cells: (V, S) int64, result of `ReportModel.memory_cells`.
    """
    side = round((int(cells.max()) + 1) ** 0.5)
    placed = cells >= 0
    share = weights.unsqueeze(-2) * placed / placed.sum(dim=0).clamp_min(1)
    maps = weights.new_zeros(*weights.shape[:-1], len(cells), side * side)
    maps.scatter_add_(-1, cells.clamp_min(0).expand_as(share), share)
    return maps.view(*maps.shape[:-1], side, side)
