"""From images to report texts, for validation and `crossray generate`."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from crossray.data.batches.batch import Guide, Inputs
from crossray.decoding.config import DecodingConfig
from crossray.decoding.constraints import SpecialIds
from crossray.decoding.risk import Utility, least_risk
from crossray.decoding.sampling import sample
from crossray.decoding.search import Watch, add_attention, generate
from crossray.errors import UserError
from crossray.models.base import Encoded, ReportModel
from crossray.text.display import SENTENCE_ENDS
from crossray.text.tokenizer import CONTINUATION, Tokenizer


@dataclass(frozen=True)
class WrittenReport:
    """A generated report.

    Attributes:
        text: text in the form of the tokenizer: lower case, with spaces around punctuation.
        tokens: the text's token ids, without bos and eos.
        token_log_probabilities: the model's log-probability of each token, followed by that of eos if the model ended
            the report.
        cross_attention: (layers, heads, T, S) as in `crossray.decoding.hypotheses.Generated`, or None.
        samples: texts of reports sampled for the same study, by method "mbr" or `with_samples`; empty if there are
            none.
    """

    text: str
    tokens: tuple[int, ...]
    token_log_probabilities: tuple[float, ...]
    cross_attention: Tensor | None = None
    samples: tuple[str, ...] = ()

    @property
    def log_probability(self) -> float:
        """Log-probability of the whole report."""
        return math.fsum(self.token_log_probabilities)

    def sentences(self, tokenizer: Tokenizer) -> list[tuple[str, list[float]]]:
        """The words of each sentence, including its full stop, and the log-probabilities of its tokens."""
        found: list[tuple[list[str], list[float]]] = [([], [])]
        for word, places in zip(self.text.split(), word_tokens(tokenizer, self.tokens), strict=True):
            found[-1][0].append(word)
            found[-1][1].extend(self.token_log_probabilities[place] for place in places)
            if word in SENTENCE_ENDS:
                found.append(([], []))
        return [(" ".join(words), values) for words, values in found if values]


def write_reports(
    model: ReportModel,
    inputs: Inputs,
    config: DecodingConfig,
    *,
    need_attention: bool = False,
    seeds: Sequence[int] | None = None,
    encoded: Encoded | None = None,
    utility: Utility | None = None,
    watch: Watch | None = None,
    guide: Guide | None = None,
) -> list[WrittenReport]:
    """Write one report per study.

    Args:
        model: the system, with its tokenizer; it runs in eval mode and is returned to its previous mode.
        inputs: B studies on the model's device, images transformed (`transform_inputs`) or cached features.
        config: the decoding settings.
        need_attention: also return the cross-attention weights.
        seeds: random seed of each study for sampling methods, see `study_seed`; by default, `config.seed` plus the
            index in the batch.
        encoded: result of `model.encode(inputs)` in eval mode, if the caller already has it.
        utility: agreement of reports, for method "mbr" (`crossray.evaluation.utilities`).
        watch: called after every token, except by method "mbr", which chooses a report at the end.
        guide: identifies training studies (`guide_of`), unless `encoded` is given.

    Raises:
        UserError: the model has no tokenizer, a forbidden word is not in its vocabulary, or its probabilities are not
            numbers.
    """
    if model.tokenizer is None:
        raise UserError("model: the tokenizer is missing; copy the whole model folder, including tokenizer.json.")
    ids = special_ids(model.tokenizer, config)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            encoded = model.encode(inputs, guide) if encoded is None else encoded
        if config.method != "mbr":
            reports = generate(model, encoded, ids, config, need_attention, seeds, watch)
        elif utility is None:
            raise ValueError("method 'mbr' needs a utility")
        else:
            if seeds is None:
                seeds = range(config.seed, config.seed + encoded.memory.shape[0])
            reports = least_risk(model, encoded, ids, config, seeds, model.tokenizer.decode, utility)
            if need_attention:
                with torch.inference_mode():
                    add_attention(model, encoded, ids, reports)
    finally:
        model.train(training)
    return [
        WrittenReport(
            text=model.tokenizer.decode(report.tokens),
            tokens=tuple(report.tokens),
            token_log_probabilities=tuple(report.log_probabilities),
            cross_attention=report.cross_attention,
            samples=report.samples,
        )
        for report in reports
    ]


def with_samples(
    model: ReportModel,
    encoded: Encoded,
    config: DecodingConfig,
    count: int,
    seeds: Sequence[int],
    reports: Sequence[WrittenReport],
) -> list[WrittenReport]:
    """The reports with `count` random reports of the same study, unless they have samples already.

    Args:
        model: the system, in eval mode, with its tokenizer.
        encoded: B studies.
        config: temperature, top_k, top_p and the restrictions; the method is ignored.
        count: number of reports per study.
        seeds: random seed of each study, see `study_seed`.
        reports: the reports of the studies.

    Raises:
        UserError: the model has no tokenizer, or a forbidden word is not in its vocabulary.
    """
    if all(report.samples for report in reports):
        return list(reports)
    if model.tokenizer is None:
        raise UserError("model: the tokenizer is missing; copy the whole model folder, including tokenizer.json.")
    with torch.inference_mode():
        found = sample(model, encoded, special_ids(model.tokenizer, config), config, count, seeds)
    decode = model.tokenizer.decode
    return [
        replace(report, samples=tuple(decode(row[:end]) for row, end in zip(rows, ends, strict=True)))
        for report, rows, ends in zip(reports, found.tokens.tolist(), found.length.tolist(), strict=True)
    ]


def study_seed(seed: int, study: str) -> int:
    """The seed of a study, which does not depend on its place in the file or in the batch."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {study}".encode(), digest_size=7).digest(), "little")


def special_ids(tokenizer: Tokenizer, config: DecodingConfig) -> SpecialIds:
    """The ids that decoding treats specially; forbidden words and non-text tokens, such as statuses, are never written.

    Raises:
        UserError: a forbidden word is not one token of the vocabulary.
    """
    forbidden = list(tokenizer.unwritten)
    for word in config.forbidden:
        token = tokenizer.id_of(word.lower())
        if token is None:
            raise UserError(
                f"decoding: field 'forbidden' contains {word!r}, which is not one token of the model's vocabulary; "
                "remove it or name a word of tokenizer.json."
            )
        forbidden.append(token)
    return SpecialIds(tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id, tuple(forbidden))


def word_tokens(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[list[int]]:
    """Positions of the tokens of each word in the decoded text."""
    words: list[list[int]] = []
    for place, token in enumerate(tokens):
        if token in (tokenizer.pad_id, tokenizer.bos_id):
            continue  # not part of the text
        if words and tokenizer.kind == "wordpiece" and tokenizer.tokens[token].startswith(CONTINUATION):
            words[-1].append(place)
        else:
            words.append([place])
    return words
