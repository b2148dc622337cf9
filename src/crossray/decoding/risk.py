"""Minimum Bayes risk: of several sampled reports the one on which all of them agree most (Eikema and Aziz, 2020).

The most probable report is the most frequent one far beyond its share; what most samples say is nearer to what a model
has learned of a study. How much two reports agree is for the caller to say (`crossray.evaluation.utilities`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from crossray.decoding.config import DecodingConfig
from crossray.decoding.constraints import SpecialIds
from crossray.decoding.hypotheses import Generated
from crossray.decoding.sampling import sample
from crossray.decoding.search import require_numbers
from crossray.errors import UserError
from crossray.models.base import Encoded, ReportModel


@dataclass(frozen=True)
class Utility:
    """How reports are judged.

    Attributes:
        agreement: from K reports of one study to (K, K), at most 1: how good each (row) is where each (column) is the
            truth.
        findings: from K reports and the names of O observations to (K, O) bool: which report states which.
    """

    agreement: Callable[[Sequence[str]], NDArray[np.float64]]
    findings: Callable[[Sequence[str], Sequence[str]], NDArray[np.bool_]]


def consensus(
    texts: Sequence[str], utility: Utility, observations: Sequence[str] = (), called: NDArray[np.bool_] | None = None,
    weight: float = 0.0,
) -> int:  # fmt: skip
    """Place of the report with the highest expected utility, of equals the first; repeated reports count repeatedly.

    Args:
        texts: reports of one study.
        utility: judges them.
        observations: names of O observations.
        called: (O,), which of them the study's diagnosis finds; None without a diagnosis.
        weight: what is added to the mean utility of a report whose findings are those of the diagnosis
            (`DecodingConfig.diagnosis_weight`).
    """
    different = list(dict.fromkeys(texts))
    shares = np.array([texts.count(text) for text in different], np.float64) / len(texts)
    expected = utility.agreement(different) @ shares
    if called is not None and weight:
        stated = utility.findings(different, observations)
        size = stated.sum(axis=1) + called.sum()
        both = 2 * (stated & called).sum(axis=1)
        expected += weight * np.divide(both, size, out=np.ones(len(different)), where=size > 0)
    # equal up to rounding is equal: the order of a sum must not choose
    best = int(np.flatnonzero(expected >= expected.max() - 1e-9 * max(1.0, abs(float(expected.max()))))[0])
    return texts.index(different[best])


def least_risk(
    model: ReportModel,
    encoded: Encoded,
    ids: SpecialIds,
    config: DecodingConfig,
    seeds: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    utility: Utility,
) -> list[Generated]:
    """Write one report a study; each depends on its own study and seed alone.

    Args:
        model: the system, in eval mode.
        encoded: B studies.
        ids: special tokens of its vocabulary.
        config: `samples`, and how they are drawn.
        seeds: seed of each study.
        decode: token ids to text.
        utility: judges the texts.

    Returns:
        The chosen sample of each study; its score is its log-probability.

    Raises:
        UserError: the model's probabilities are not numbers, or it makes no diagnosis that `diagnosis_weight` needs.
    """
    require_diagnosis(model, encoded, config)
    calls = [None] * len(seeds) if encoded.called is None else encoded.called.cpu().numpy()
    with torch.inference_mode():
        found = sample(model, encoded, ids, config, config.samples, seeds)
    reports = []
    columns = (found.tokens.tolist(), found.length.tolist(), found.log_probabilities.tolist())
    for tokens, lengths, probabilities, called in zip(*columns, calls, strict=True):
        written = [row[:length] for row, length in zip(tokens, lengths, strict=True)]
        words = [row[:-1] if row[-1] == ids.eos else row for row in written]
        texts = tuple(map(decode, words))
        chosen = consensus(texts, utility, model.config.observations, called, config.diagnosis_weight)
        own = probabilities[chosen][: lengths[chosen]]
        reports.append(Generated(words[chosen], sum(own), own, samples=texts))
    require_numbers(model, reports)
    return reports


def require_diagnosis(model: ReportModel, encoded: Encoded, config: DecodingConfig) -> None:
    """Raise a `UserError` if the search needs a diagnosis that the model does not make."""
    if config.method == "mbr" and config.diagnosis_weight and encoded.called is None:
        raise UserError(
            f"decoding: field 'diagnosis_weight' is {config.diagnosis_weight}, and this {model.system} makes no "
            "diagnosis; set it to 0."
        )
