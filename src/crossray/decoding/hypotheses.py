"""The state of a search: the best finished report of each study, and the resulting report."""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass
class Generated:
    """A report as token ids.

    Attributes:
        tokens: its words, without bos and eos.
        score: log-probability divided by the length normalizer, by which hypotheses are compared.
        log_probabilities: the model's log-probability of each word, followed by that of eos if the model ended the
            report.
        cross_attention: (layers, heads, T, S) weights over the image positions for each of the T entries of
            `log_probabilities`, on the CPU; None if they were not requested or the system has none.
        samples: texts of the sampled reports from which this one was chosen; empty if there are none.
    """

    tokens: list[int]
    score: float
    log_probabilities: list[float]
    cross_attention: Tensor | None = None
    samples: tuple[str, ...] = ()

    @property
    def log_probability(self) -> float:
        """Log-probability of the whole report."""
        return math.fsum(self.log_probabilities)


@dataclass
class Finished:
    """The best finished hypothesis of each of B studies, with room for T tokens.

    Attributes:
        score: (B,), -inf if no hypothesis has finished.
        length: (B,) int64, number of emitted tokens, including eos.
        tokens: (B, T) int64; `log_probabilities`: (B, T); both are valid up to `length`.
    """

    score: Tensor
    length: Tensor
    tokens: Tensor
    log_probabilities: Tensor

    @classmethod
    def empty(cls, studies: int, room: int, device: torch.device) -> "Finished":
        """The initial state, in which nothing has finished."""
        return cls(
            score=torch.full((studies,), -math.inf, device=device),
            length=torch.zeros(studies, dtype=torch.long, device=device),
            tokens=torch.zeros(studies, room, dtype=torch.long, device=device),
            log_probabilities=torch.zeros(studies, room, device=device),
        )

    def offer(self, score: Tensor, tokens: Tensor, log_probabilities: Tensor, length: int) -> None:
        """Keep the hypotheses that beat the best one of their study; ties keep the earlier one.

        Args:
            score: (B, K), -inf for unfinished hypotheses.
            tokens: (B x K, T), filled as far as they are written.
            log_probabilities: (B x K, T) log-probabilities of the tokens.
            length: number of tokens, which is the same for all.
        """
        best, beam = score.max(dim=1)
        rows = torch.arange(score.shape[0], device=score.device) * score.shape[1] + beam
        better = best > self.score
        self.score = torch.where(better, best, self.score)
        self.length = self.length.masked_fill(better, length)
        written = better[:, None]
        self.tokens = torch.where(written, tokens.index_select(0, rows), self.tokens)
        self.log_probabilities = torch.where(written, log_probabilities.index_select(0, rows), self.log_probabilities)

    def select(self, studies: Tensor) -> "Finished":
        """The state of these studies only, (B',) int64."""
        return Finished(**{f.name: getattr(self, f.name).index_select(0, studies) for f in fields(self)})

    def store(self, studies: Tensor, part: "Finished") -> None:
        """Copy the state of these studies, (B',) int64, from `part`."""
        for f in fields(self):
            getattr(self, f.name).index_copy_(0, studies, getattr(part, f.name))

    def reports(self, eos: int) -> list[Generated]:
        """One report per study, as plain numbers."""
        columns = (self.score.tolist(), self.length.tolist(), self.tokens.tolist(), self.log_probabilities.tolist())
        reports = []
        for score, length, tokens, log_probabilities in zip(*columns, strict=True):
            written = tokens[:length]
            words = written[:-1] if written and written[-1] == eos else written
            reports.append(Generated(words, score, log_probabilities[:length]))
        return reports
