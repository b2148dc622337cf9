"""Decodes a report of each study: greedy search, beam search and sampling.

All methods are one loop over `ReportModel.step`: each of the K hypotheses of a study is continued by one token, K of
all continuations are kept, those that end are compared with the best finished report, and studies that no running
hypothesis can improve leave the batch. Shapes: B studies, K hypotheses per study, N = B x K rows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossray.decoding.choice import Best, Choice, Sample
from crossray.decoding.config import DecodingConfig
from crossray.decoding.constraints import Constraints, SpecialIds
from crossray.decoding.hypotheses import Finished, Generated
from crossray.errors import UserError
from crossray.layers.packed import mixed_precision, packed_weights
from crossray.models.base import Encoded, ReportModel

__all__ = ["DecodingConfig", "Generated", "SpecialIds", "Watch", "generate"]

#: Called after every token with the index of a study and its text so far: the most probable hypothesis, so later words
#: may replace earlier ones.
Watch = Callable[[int, Sequence[int]], None]

#: Ended studies are dropped when they reach this share of the batch, because dropping copies the cache.
IDLE_SHARE = 1 / 8


def generate(
    model: ReportModel,
    encoded: Encoded,
    ids: SpecialIds,
    config: DecodingConfig,
    need_attention: bool = False,
    seeds: Sequence[int] | None = None,
    watch: Watch | None = None,
) -> list[Generated]:
    """Write one report per study; each depends only on its own study, not on the batch.

    The score of a hypothesis is the sum of its tokens' log-probabilities in float32. A hypothesis finishes with eos or
    at the length limit and counts among the K of its step. The finished one with the best score
    (`DecodingConfig.normalizer`) wins; ties go to the one that finished first, then to the better beam.

    Args:
        model: the system; it runs in eval mode and is returned to its previous mode.
        encoded: B studies.
        ids: special tokens of its vocabulary.
        config: the decoding settings.
        need_attention: also return the cross-attention weights of the chosen reports, which takes one more decoder
            pass.
        seeds: random seed of each study for method "sample"; by default, `config.seed` plus the index in the batch.
        watch: called after every token.

    Raises:
        UserError: the model's probabilities are not numbers, for example because it has diverged.
    """
    studies = encoded.memory.shape[0]
    if seeds is None:
        seeds = range(config.seed, config.seed + studies)
    elif len(seeds) != studies:
        raise ValueError(f"{len(seeds)} seeds for {studies} studies")
    device = encoded.memory.device
    choice: Choice = Sample(config, seeds, device) if config.method == "sample" else Best(config.rows)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode(), mixed_precision(device, config.bf16), packed_weights(model):
            finished = _search(model, encoded, ids, config, choice, watch)
            reports = finished.reports(ids.eos)
            require_numbers(model, reports)
            if need_attention:
                add_attention(model, encoded, ids, reports)
    finally:
        model.train(training)
    return reports


def require_numbers(model: ReportModel, reports: Sequence[Generated]) -> None:
    """Reject reports of a model that has diverged.

    Raises:
        UserError: a score is not a number.
    """
    if not all(math.isfinite(report.score) for report in reports):
        raise UserError(
            f"the probabilities of model '{getattr(model, 'system', type(model).__name__)}' are not numbers; "
            "use a checkpoint from before the training diverged, or decode in float32."
        )


@dataclass
class _Running:
    """The running hypotheses.

    Attributes:
        studies: (B,) indices of the studies in the original batch.
        scores: (B, K) log-probabilities; -inf for a row that has ended or is unused.
        latest: (N, 1) int64, the token that each row reads next.
        tokens: (N, T) int64, the tokens of each row, with room for T tokens.
        log_probabilities: (N, T) log-probabilities of these tokens.
    """

    studies: Tensor
    scores: Tensor
    latest: Tensor
    tokens: Tensor
    log_probabilities: Tensor

    @classmethod
    def begin(cls, studies: int, rows: int, room: int, bos: int, device: torch.device) -> "_Running":
        """The initial state with bos only. All rows of a study are equal, so only the first one counts."""
        scores = torch.full((studies, rows), -math.inf, device=device)
        scores[:, 0] = 0.0
        count = studies * rows
        return cls(
            studies=torch.arange(studies, device=device),
            scores=scores,
            latest=torch.full((count, 1), bos, dtype=torch.long, device=device),
            tokens=torch.zeros(count, room, dtype=torch.long, device=device),
            log_probabilities=torch.zeros(count, room, device=device),
        )

    def extend(self, choice: Choice, probable: Tensor, position: int) -> Tensor:
        """Append one token to each row, given the log-probabilities (N, vocabulary) of all tokens.

        Returns:
            (N,) int64, the row that each new row continues.
        """
        vocabulary = probable.shape[-1]
        totals = (self.scores.view(-1, 1) + probable).view(len(self.studies), -1)
        chosen = choice(totals, position)
        self.scores = totals.gather(1, chosen)
        self.latest = (chosen % vocabulary).view(-1, 1)
        rows = self._rows(chosen // vocabulary)
        self.tokens = self.tokens.index_select(0, rows)
        self.log_probabilities = self.log_probabilities.index_select(0, rows)
        self.tokens[:, position] = self.latest[:, 0]
        self.log_probabilities[:, position] = probable.view_as(totals).gather(1, chosen).flatten()
        return rows

    def tell(self, watch: Watch, length: int, eos: int) -> None:
        """Report the text of the most probable row of each study."""
        best = self.scores.argmax(dim=1, keepdim=True)
        written = self.tokens[self._rows(best), :length].tolist()
        for study, tokens in zip(self.studies.tolist(), written, strict=True):
            watch(study, tokens[:-1] if tokens[-1] == eos else tokens)

    def select(self, kept: Tensor) -> None:
        """Keep only these studies, (B',) int64."""
        beams = torch.arange(self.scores.shape[1], device=kept.device).expand(len(kept), -1)
        rows = self._rows(beams, kept)
        self.studies, self.scores, self.latest = self.studies[kept], self.scores[kept], self.latest[rows]
        self.tokens, self.log_probabilities = self.tokens[rows], self.log_probabilities[rows]

    def _rows(self, beams: Tensor, studies: Tensor | None = None) -> Tensor:
        """(N,) row indices of (B, K) beams, for these studies of the batch or for all."""
        count, width = beams.shape
        places = torch.arange(count, device=beams.device) if studies is None else studies
        return (places[:, None] * width + beams).flatten()


def _search(
    model: ReportModel,
    encoded: Encoded,
    ids: SpecialIds,
    config: DecodingConfig,
    choice: Choice,
    watch: Watch | None = None,
) -> Finished:
    count, device = encoded.memory.shape[0], encoded.memory.device
    finished = Finished.empty(count, config.max_length, device)
    if count == 0:
        return finished
    running = _Running.begin(count, config.rows, config.max_length, ids.bos, device)
    best = finished.select(running.studies)
    cache = model.start(encoded)
    cache.reserved = config.max_length + (0 if encoded.prompt is None else encoded.prompt.shape[1])
    constraints: Constraints | None = None
    for position in range(config.max_length):
        if position == 0:
            # the rows of a study are still equal: one of them reads the prompt and bos
            logits = model.step(running.latest[:: config.rows], encoded, cache).logits[:, -1]
            logits = logits.repeat_interleave(config.rows, dim=0)
            cache.widen(config.rows)
        else:
            logits = model.step(running.latest, encoded, cache).logits[:, -1]
        constraints = constraints or Constraints(ids, config, logits.shape[-1], device)
        rows = running.extend(choice, constraints(logits, running.tokens[:, :position]), position)
        length = position + 1
        if watch is not None:
            running.tell(watch, length, ids.eos)
        ended = running.latest.view_as(running.scores) == ids.eos
        if length == config.max_length:
            ended = torch.ones_like(ended)
        scores = (running.scores / config.normalizer(length)).masked_fill(~ended, -math.inf)
        best.offer(scores, running.tokens, running.log_probabilities, length)
        running.scores = running.scores.masked_fill(ended, -math.inf)
        kept = _undecided(running.scores, best.score, config).nonzero()[:, 0]
        if len(kept) == 0:
            break
        if config.rows > 1:
            cache.reorder(rows)
        present = len(running.studies)
        if present - len(kept) >= IDLE_SHARE * present:
            finished.store(running.studies, best)
            running.select(kept)
            cache.select(kept)
            choice.select(kept)
            best, encoded = best.select(kept), encoded.select(kept)
    finished.store(running.studies, best)
    return finished


def _undecided(scores: Tensor, best: Tensor, config: DecodingConfig) -> Tensor:
    """(B,) bool, True where one of the running `scores` (B, K) can still beat `best` (B,).

    Log-probabilities only fall and the normalizer only grows, so the highest running score over the largest normalizer
    bounds all continuations. The bound is reached if the remaining tokens are certain.
    """
    reachable = scores.amax(dim=1)
    if config.early_stop:
        return reachable / config.normalizer(config.max_length) > best
    return reachable > -math.inf


def add_attention(model: ReportModel, encoded: Encoded, ids: SpecialIds, reports: list[Generated]) -> None:
    """Read the chosen reports again, all positions at once, which is cheaper than keeping the weights of all beams."""
    device = encoded.memory.device
    written = [[ids.bos, *report.tokens][: len(report.log_probabilities)] for report in reports]
    longest = max(len(row) for row in written)
    inputs = torch.tensor([row + [ids.pad] * (longest - len(row)) for row in written], device=device)
    attention = model.step(inputs, encoded, need_attention=True).cross_attention
    if attention is not None:
        for report, weights in zip(reports, attention.float().cpu(), strict=True):
            report.cross_attention = weights[:, :, : len(report.log_probabilities)].clone()
