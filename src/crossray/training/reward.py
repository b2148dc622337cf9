"""Learning from rewards: sample several reports per study and make those with high scores more probable.

Self-critical sequence training (Rennie et al. 2017) compares each sampled report with the greedy one; the
group-relative advantage (Kool et al. 2019; Shao et al. 2024) compares it with the other samples of the study. Both are
unbiased: the expectation of the estimate is the gradient of the expected reward. The policy is the model as used for
generation: in eval mode, without dropout, from the image alone. A system that retrieves training reports does not meet
the study's own.

Shapes: B studies, K samples per study, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from crossray.data.batches.batch import Batch
from crossray.decoding.config import DecodingConfig
from crossray.decoding.constraints import Constraints, SpecialIds
from crossray.decoding.reports import special_ids
from crossray.decoding.sampling import Samples, sample
from crossray.decoding.search import generate
from crossray.evaluation.labelers import Labeler, RuleLabeler
from crossray.evaluation.metrics.cider import cider
from crossray.evaluation.metrics.clinical import clinical_f1, rarity_weights
from crossray.evaluation.metrics.ngrams import code_reports
from crossray.models.base import Encoded, ReportModel
from crossray.text.tokenizer import Tokenizer
from crossray.training.config import RewardConfig

#: Maximum number of training reports for the document frequencies; evenly spaced ones are used of a larger set.
MOST_DOCUMENTS = 5000

#: Ratio of two lengths up to which there is no length penalty.
_FREE_RATIO = 1.25


class RewardFunction:
    """Scores reports against the true ones: a weighted sum of CIDEr-D and clinical F1, minus penalties on the language.

    Args:
        documents: training reports as the tokenizer decodes them, for the document frequencies of CIDEr-D.
        config: weights of the parts of the reward.
        labeler: labeler of the observations; the rules by default.
    """

    def __init__(self, documents: Sequence[str], config: RewardConfig, labeler: Labeler | None = None) -> None:
        places = np.linspace(0, len(documents) - 1, min(len(documents), MOST_DOCUMENTS)).astype(np.int64)
        self.documents = [documents[place] for place in places]
        self.config = config
        self.labeler = labeler or RuleLabeler()
        labels = self.labeler.label(self.documents)
        self.weights = rarity_weights(labels, self.labeler.observations, config.rarity)

    def __call__(self, hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Score N reports.

        Args:
            hypotheses: N generated reports.
            references: N true reports.

        Returns:
            Arrays of shape (N,): "cider" from 0 to 10; "clinical" (F1) from 0 to 1; "length", the logarithm of the
            length ratio beyond a quarter; "repetition", the share of repeated 4-grams; and "total", their weighted sum,
            in which length and repetition are penalties.
        """
        ours, theirs, documents = code_reports(hypotheses, references, self.documents)
        codes = self.labeler.label([*hypotheses, *references])
        lengths = [np.maximum(1, side.lengths) for side in (ours, theirs)]
        off = np.abs(np.log(lengths[0] / lengths[1])) - np.log(_FREE_RATIO)
        parts = {
            "cider": cider(ours, theirs, np.arange(len(references)), documents),
            "clinical": clinical_f1(
                codes[: len(hypotheses)], codes[len(hypotheses) :], self.labeler.observations, self.weights
            ),
            "length": np.maximum(0.0, off),
            "repetition": _repetition(hypotheses),
        }
        config = self.config
        total = config.cider * np.minimum(parts["cider"], config.cider_limit) + config.clinical * parts["clinical"]
        return {**parts, "total": total - config.length * parts["length"] - config.repetition * parts["repetition"]}


def _repetition(reports: Sequence[str]) -> NDArray[np.float64]:
    shares = []
    for report in reports:
        words = report.split()
        grams = [tuple(words[place : place + 4]) for place in range(len(words) - 3)]
        shares.append(1 - len(set(grams)) / len(grams) if grams else 0.0)
    return np.array(shares)


@dataclass
class RewardObjective:
    """Computes the losses of a stage with objective reward.

    Attributes:
        function: reward of a report.
        config: number of samples, baseline and temperature.
        decoding: maximum length of the samples, and words that they must not contain.
    """

    function: RewardFunction
    config: RewardConfig
    decoding: DecodingConfig

    def losses(
        self, model: ReportModel, batch: Batch, reference: ReportModel | None = None
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Return the losses "reward" and, with a reference model, "kl"; and the mean scores of the samples.

        "reward" is the negative mean of advantage times log-probability of a report, divided by `max_length` to give it
        the magnitude of a loss per token. "kl" is the mean KL divergence from the reference over the sampled tokens.

        Args:
            model: the system in eval mode.
            batch: batch of B studies.
            reference: model in eval mode to which the trained one should stay close; it is not trained.
        """
        if model.tokenizer is None:
            raise ValueError("rewards need the tokenizer of the model")
        tokenizer, count = model.tokenizer, self.config.samples
        own = replace(batch.guide, labels=None)  # keeps a study from reading its own report
        encoded = model.encode(batch.inputs, own)
        search = replace(
            DecodingConfig(), method="sample", max_length=self.decoding.max_length, temperature=self.config.temperature,
            forbidden=self.decoding.forbidden, suppress_unk=self.decoding.suppress_unk,
        )  # fmt: skip
        ids = special_ids(tokenizer, search)
        still = encoded.apply(torch.Tensor.detach)
        seeds = torch.randint(2**62, (batch.inputs.size,)).tolist()
        with torch.no_grad():
            samples = sample(model, still, ids, search, count, seeds)
        truth = [tokenizer.decode(row) for row in batch.targets.tokens.tolist()]
        written = [decoded for rows in _texts(samples, tokenizer) for decoded in rows]
        scores = self.function(written, [text for text in truth for _ in range(count)])
        rewards = torch.from_numpy(scores["total"]).float().view(-1, count).to(still.memory.device)
        advantages = self._advantages(rewards, self._greedy(model, still, ids, search, tokenizer, truth))

        policy, valid = log_policy(model, encoded, samples, ids, search)
        # samples are padded after their end, with log-probability -inf
        chosen = policy.gather(3, samples.tokens[..., : policy.shape[2], None]).squeeze(3).masked_fill(~valid, 0.0)
        losses = {"reward": policy_loss(chosen.sum(dim=2), advantages) / search.max_length}
        if reference is not None:
            with torch.no_grad():
                near, _ = log_policy(reference, reference.encode(batch.inputs, own), samples, ids, search)
            ratio = (policy - near).masked_fill(policy.isneginf(), 0.0)
            apart = (policy.exp() * ratio).sum(dim=3)
            losses["kl"] = (apart * valid).sum() / valid.sum().clamp_min(1)
        measured = {f"reward_{name}": float(values.mean()) for name, values in scores.items()}
        return losses, measured

    def _greedy(
        self, model: ReportModel, encoded: Encoded, ids: SpecialIds, search: DecodingConfig, tokenizer: Tokenizer,
        truth: Sequence[str],
    ) -> Tensor | None:  # fmt: skip
        if self.config.baseline != "greedy":
            return None
        best = generate(model, encoded, ids, replace(search, method="greedy"))
        scores = self.function([tokenizer.decode(report.tokens) for report in best], truth)["total"]
        return torch.from_numpy(scores).float().to(encoded.memory.device)

    def _advantages(self, rewards: Tensor, greedy: Tensor | None) -> Tensor:
        if greedy is not None:
            advantages = rewards - greedy[:, None]
        else:
            count = rewards.shape[1]
            advantages = (rewards - rewards.mean(dim=1, keepdim=True)) * (count / (count - 1))
        if self.config.standardize:
            advantages = advantages / rewards.std(dim=1, keepdim=True).clamp_min(1e-3)
        return advantages


def policy_loss(log_probabilities: Tensor, advantages: Tensor) -> Tensor:
    """Return the negative mean of advantage times log-probability, (B, K) each.

    Its gradient is an unbiased estimate of the negative gradient of the expected reward.
    """
    return -(advantages.detach() * log_probabilities).mean()


def log_policy(
    model: ReportModel, encoded: Encoded, samples: Samples, ids: SpecialIds, config: DecodingConfig
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all tokens at each position of the samples, with gradients.

    Returns:
        (B, K, T', vocabulary) float32, -inf for tokens that are never generated, where T' is the length of the longest
        sample; and a mask of the sampled tokens, (B, K, T') bool.
    """
    studies, count, _ = samples.tokens.shape
    longest = int(samples.length.max())
    rows = samples.tokens[..., :longest].flatten(0, 1)
    inputs = torch.cat([torch.full_like(rows[:, :1], ids.bos), rows[:, :-1]], dim=1)
    logits = model.step(inputs, encoded).logits.float()
    never = Constraints(ids, config, logits.shape[-1], logits.device).always
    policy = torch.log_softmax(logits / config.temperature + never, dim=-1)
    valid = torch.arange(longest, device=logits.device) < samples.length[..., None]
    return policy.view(studies, count, longest, -1), valid


def _texts(samples: Samples, tokenizer: Tokenizer) -> list[list[str]]:
    lengths = samples.length.tolist()
    return [
        [tokenizer.decode(row[:length]) for row, length in zip(rows, own, strict=True)]
        for rows, own in zip(samples.tokens.tolist(), lengths, strict=True)
    ]
