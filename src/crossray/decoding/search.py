"""Searching for the most probable report of each study: greedy, beam search and sampling.

All methods are one loop over `ReportModel.step`: K hypotheses of each study are continued by one token, K of all
continuations are chosen, those that end are compared with the best finished report, and studies that no running
hypothesis can improve leave the batch. Shapes: B studies, K hypotheses a study, N = B x K rows.
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
from crossray.layers.packed import packed_weights
from crossray.models.base import Encoded, ReportModel

__all__ = ["DecodingConfig", "Generated", "SpecialIds", "Watch", "generate"]

#: Told the place of a study and what is written of it so far, after every token: of several hypotheses the most
#: probable one, so that later words may replace earlier ones.
Watch = Callable[[int, Sequence[int]], None]

#: Ended studies are dropped when they are at least this share of the batch: dropping copies the cache.
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
    """Write one report a study; each depends on its own study alone, not on the batch.

    The score of a hypothesis is the sum of its tokens' log-probabilities in float32. Each emitted eos, or the length
    limit, moves a hypothesis to the finished ones; it takes a place among the K of its step. The best finished one by
    `DecodingConfig.normalizer` wins; of equals the one that finished first, then the one of the better beam.

    Args:
        model: the system; it is run in eval mode and left in the mode it had.
        encoded: B studies.
        ids: special tokens of its vocabulary.
        config: the search.
        need_attention: also return the cross-attention weights of the chosen reports; one more pass of the decoder.
        seeds: random seed of each study for method "sample"; by default `config.seed` plus its place in the batch.
        watch: called with every token that is written.

    Raises:
        UserError: the model gives no probabilities (not a number), as a diverged one does.
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
        with torch.inference_mode(), packed_weights(model):
            finished = _search(model, encoded, ids, config, choice, watch)
            reports = finished.reports(ids.eos)
            if not all(math.isfinite(report.score) for report in reports):
                raise UserError(
                    f"the probabilities of model '{getattr(model, 'system', type(model).__name__)}' are not numbers; "
                    "use a checkpoint from before the training diverged, or decode in float32."
                )
            if need_attention:
                add_attention(model, encoded, ids, reports)
    finally:
        model.train(training)
    return reports


@dataclass
class _Running:
    """The hypotheses that go on.

    Attributes:
        studies: (B,) places of the studies in the original batch.
        scores: (B, K) log-probabilities; -inf for a row that has ended or never counted.
        latest: (N, 1) int64, the token that each row reads next.
        tokens: (N, T) int64, what each row has written, with room for T tokens.
        log_probabilities: (N, T), of these tokens.
    """

    studies: Tensor
    scores: Tensor
    latest: Tensor
    tokens: Tensor
    log_probabilities: Tensor

    @classmethod
    def begin(cls, studies: int, rows: int, room: int, bos: int, device: torch.device) -> "_Running":
        """Nothing but bos. All rows of a study are alike, so only the first one counts."""
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
        """Write one token each, given the log-probabilities (N, vocabulary) of all tokens.

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
        """Say what the most probable row of each study has written."""
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
        """(N,) places of (B, K) beams, of these studies of the batch or of all."""
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
            # the rows of a study are still alike: one of them reads prompt and bos
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

    Log-probabilities only fall and the normalizer only grows: the highest running score over the largest normalizer
    bounds everything that can follow, and it is reached where the remaining tokens are certain.
    """
    reachable = scores.amax(dim=1)
    if config.early_stop:
        return reachable / config.normalizer(config.max_length) > best
    return reachable > -math.inf


def add_attention(model: ReportModel, encoded: Encoded, ids: SpecialIds, reports: list[Generated]) -> None:
    """Read the chosen reports once more, all positions at a time: cheaper than to keep all beams' weights."""
    device = encoded.memory.device
    written = [[ids.bos, *report.tokens][: len(report.log_probabilities)] for report in reports]
    longest = max(len(row) for row in written)
    inputs = torch.tensor([row + [ids.pad] * (longest - len(row)) for row in written], device=device)
    attention = model.step(inputs, encoded, need_attention=True).cross_attention
    if attention is not None:
        for report, weights in zip(reports, attention.float().cpu(), strict=True):
            report.cross_attention = weights[:, :, : len(report.log_probabilities)].clone()
