"""Searching for the most probable report of each study: greedy, beam search and sampling (SPEC 1.7).

All methods are one loop over `ReportModel.step`: K hypotheses of each study are continued by one token, K of all
continuations are chosen, those that end are compared with the best finished report, and studies that no running
hypothesis can improve leave the batch. Shapes: B studies, K hypotheses a study, N = B x K rows.
"""

import math
from collections.abc import Sequence

import torch

from crossray.decoding.choice import Best, Choice, Sample
from crossray.decoding.config import DecodingConfig
from crossray.decoding.constraints import Constraints, SpecialIds
from crossray.decoding.hypotheses import Finished, Generated
from crossray.errors import UserError
from crossray.models.base import Encoded, ReportModel

__all__ = ["DecodingConfig", "Generated", "SpecialIds", "generate"]

#: Ended studies are dropped when they are at least this share of the batch: dropping copies the cache.
IDLE_SHARE = 1 / 8


def generate(
    model: ReportModel,
    encoded: Encoded,
    ids: SpecialIds,
    config: DecodingConfig,
    need_attention: bool = False,
    seeds: Sequence[int] | None = None,
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
        with torch.inference_mode():
            finished = _search(model, encoded, ids, config, choice)
            reports = finished.reports(ids.eos)
            if not all(math.isfinite(report.score) for report in reports):
                raise UserError(
                    f"model '{getattr(model, 'system', type(model).__name__)}': its probabilities are not numbers; "
                    "use a checkpoint from before the training diverged, or decode in float32."
                )
            if need_attention:
                _add_attention(model, encoded, ids, finished, reports)
    finally:
        model.train(training)
    return reports


def _search(model: ReportModel, encoded: Encoded, ids: SpecialIds, config: DecodingConfig, choice: Choice) -> Finished:
    device, count, rows_each = encoded.memory.device, encoded.memory.shape[0], config.rows
    finished = Finished.empty(count, config.max_length, device)
    if count == 0:
        return finished
    constraints: Constraints | None = None
    cache = model.start(encoded, rows_each)
    studies = torch.arange(count, device=device)  # places in the original batch
    best = finished.select(studies)
    offsets = (studies * rows_each)[:, None]
    # all rows of a study start alike, so only the first one counts in the first step
    scores = torch.full((count, rows_each), -math.inf, device=device)
    scores[:, 0] = 0.0
    latest = torch.full((count * rows_each, 1), ids.bos, dtype=torch.long, device=device)
    tokens = torch.zeros(count * rows_each, config.max_length, dtype=torch.long, device=device)
    written = torch.zeros(count * rows_each, config.max_length, device=device)

    for position in range(config.max_length):
        step = model.step(latest, encoded, cache)
        logits = step.logits[:, -1]
        vocabulary = logits.shape[-1]
        constraints = constraints or Constraints(ids, config, vocabulary, device)
        probable = constraints(logits, tokens[:, :position]).view(len(studies), -1)
        totals = (scores.view(-1, 1) + probable.view(-1, vocabulary)).view_as(probable)
        chosen = choice(totals, position)
        scores = totals.gather(1, chosen)
        rows = (offsets + chosen // vocabulary).flatten()
        latest = (chosen % vocabulary).view(-1, 1)
        tokens, written = tokens.index_select(0, rows), written.index_select(0, rows)
        tokens[:, position] = latest[:, 0]
        written[:, position] = probable.gather(1, chosen).flatten()

        length = position + 1
        if length == config.max_length:
            best.offer(scores / config.normalizer(length), tokens, written, length)
            break
        ended = latest.view_as(scores) == ids.eos
        best.offer((scores / config.normalizer(length)).masked_fill(~ended, -math.inf), tokens, written, length)
        scores = scores.masked_fill(ended, -math.inf)
        # log-probabilities only fall and the normalizer only grows: nothing that still runs can score above this
        reachable = scores.amax(dim=1)
        if config.early_stop:
            going = reachable / config.normalizer(config.max_length) > best.score
        else:
            going = reachable > -math.inf
        kept = going.nonzero()[:, 0]
        if len(kept) == 0:
            break
        if len(studies) - len(kept) >= IDLE_SHARE * len(studies):
            finished.store(studies, best)
            studies, best, encoded = studies[kept], best.select(kept), encoded.select(kept)
            choice.select(kept)
            cache.reorder(rows)
            cache.select(kept)
            keep_rows = (kept[:, None] * rows_each + torch.arange(rows_each, device=device)).flatten()
            scores, latest = scores[kept], latest[keep_rows]
            tokens, written = tokens[keep_rows], written[keep_rows]
            offsets = offsets[: len(kept)]
        elif rows_each > 1:
            cache.reorder(rows)
    finished.store(studies, best)
    return finished


def _add_attention(
    model: ReportModel, encoded: Encoded, ids: SpecialIds, finished: Finished, reports: list[Generated]
) -> None:
    """Read the chosen reports once more, all positions at a time: cheaper than to keep all beams' weights."""
    longest = max(len(report.log_probabilities) for report in reports)
    bos = finished.tokens.new_full((len(reports), 1), ids.bos)
    inputs = torch.cat([bos, finished.tokens[:, : longest - 1]], dim=1)
    attention = model.step(inputs, encoded, need_attention=True).cross_attention
    if attention is not None:
        for report, weights in zip(reports, attention.float().cpu(), strict=True):
            report.cross_attention = weights[:, :, : len(report.log_probabilities)].clone()
