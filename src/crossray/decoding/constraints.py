"""Restrictions on generated text: special tokens, forbidden words, an early end, and repeated n-grams."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crossray.decoding.config import DecodingConfig


@dataclass(frozen=True)
class SpecialIds:
    """Token ids that decoding treats specially.

    Attributes:
        pad: padding, never written; `bos`: start of a report, never written; `eos`: end of a report. All may share an
            id.
        unk: token of unknown words; None if the vocabulary has none.
        forbidden: other tokens that are never written (`DecodingConfig.forbidden`, looked up in the vocabulary, and
            `Tokenizer.unwritten`).
    """

    pad: int
    bos: int
    eos: int
    unk: int | None = None
    forbidden: Sequence[int] = ()


class Constraints:
    """Turns logits into log-probabilities, with -inf for forbidden tokens.

    The remaining probabilities are not renormalized: a score is the model's own log-probability.
    """

    def __init__(self, ids: SpecialIds, config: DecodingConfig, vocabulary_size: int, device: torch.device) -> None:
        self.eos = ids.eos
        self.config = config
        never = ({ids.pad, ids.bos} - {ids.eos}) | set(ids.forbidden)
        if config.suppress_unk and ids.unk is not None:
            never.add(ids.unk)
        always = torch.zeros(vocabulary_size)
        always[sorted(never)] = -math.inf
        before_end = always.clone()
        before_end[ids.eos] = -math.inf
        self.always, self.before_end = always.to(device), before_end.to(device)
        # only then can all tokens be forbidden at once
        self.may_exhaust = config.no_repeat_ngram > 0 or bool(torch.isinf(before_end).all())

    def __call__(self, logits: Tensor, history: Tensor) -> Tensor:
        """Log-probabilities of the next token.

        Args:
            logits: (N, vocabulary), any floating type.
            history: (N, t) int64, the words that each row has written.

        Returns:
            (N, vocabulary) float32; -inf for forbidden tokens. A row without any allowed token may end.
        """
        probable = torch.log_softmax(logits.float(), dim=-1)
        early = self.config.force_length or history.shape[1] < self.config.min_length
        allowed = probable + (self.before_end if early else self.always)
        if self.config.no_repeat_ngram:
            block_repeated_ngrams(allowed, history, self.config.no_repeat_ngram)
        if self.may_exhaust:
            stuck = torch.isneginf(allowed).all(dim=-1)
            allowed[:, self.eos] = torch.where(stuck, probable[:, self.eos], allowed[:, self.eos])
        return allowed


def block_repeated_ngrams(log_probabilities: Tensor, history: Tensor, size: int) -> None:
    """Set each token that would repeat an n-gram of its row to -inf, in place.

    Args:
        log_probabilities: (N, vocabulary).
        history: (N, t) int64.
        size: number of words in an n-gram.
    """
    written = history.shape[1]
    if written < size:
        return
    starts = history.unfold(1, size, 1)  # (N, t - size + 1, size): all n-grams written so far
    last = history[:, written - size + 1 :].unsqueeze(1)
    repeated = (starts[:, :, :-1] == last).all(dim=-1)
    penalty = torch.where(repeated, -math.inf, math.inf).to(log_probabilities)
    log_probabilities.scatter_reduce_(1, starts[:, :, -1], penalty, "amin")
