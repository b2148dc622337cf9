"""Minimum Bayes risk: of several sampled reports the one on which all of them agree most (Eikema and Aziz, 2020).

The most probable report is the most frequent one far beyond its share; what most samples say is nearer to what a model
has learned of a study. How much two reports agree is for the caller to say (`crossray.evaluation.utilities`).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from crossray.decoding.config import DecodingConfig
from crossray.decoding.constraints import SpecialIds
from crossray.decoding.hypotheses import Generated
from crossray.decoding.sampling import sample
from crossray.decoding.search import require_numbers
from crossray.models.base import Encoded, ReportModel

#: From K reports of one study to (K, K): how good each (row) is where each (column) is the truth.
Utility = Callable[[Sequence[str]], NDArray[np.float64]]


def consensus(texts: Sequence[str], utility: Utility) -> int:
    """Place of the report with the highest expected utility, of equals the first; repeated reports count repeatedly."""
    different = list(dict.fromkeys(texts))
    counts = np.array([texts.count(text) for text in different], np.float64)
    expected = utility(different) @ counts
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
        utility: utility of the texts.

    Returns:
        The chosen sample of each study; its score is its log-probability.

    Raises:
        UserError: the model's probabilities are not numbers.
    """
    with torch.inference_mode():
        found = sample(model, encoded, ids, config, config.samples, seeds)
    reports = []
    columns = (found.tokens.tolist(), found.length.tolist(), found.log_probabilities.tolist())
    for tokens, lengths, probabilities in zip(*columns, strict=True):
        written = [row[:length] for row, length in zip(tokens, lengths, strict=True)]
        words = [row[:-1] if row[-1] == ids.eos else row for row in written]
        texts = tuple(map(decode, words))
        chosen = consensus(texts, utility)
        own = probabilities[chosen][: lengths[chosen]]
        reports.append(Generated(words[chosen], sum(own), own, samples=texts))
    require_numbers(model, reports)
    return reports
