"""The statements of a report by sentence and by observation, and the signals for each statement.

A statement consists of claims that an observation is present or absent, as labeled by the rules. As in the clinical
scores (`POSITIVE_OR_UNCERTAIN`), uncertain counts as present, and an observation that is not mentioned as absent. A
statement is correct if all its claims agree with the true report. A sentence without an observation makes no claim that
could be correct or wrong: it is left out of all measurements, and its confidence is not calibrated.

Shapes: N reports, K observations.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from crossray.decoding.reports import WrittenReport
from crossray.evaluation.metrics.clinical import POSITIVE_OR_UNCERTAIN
from crossray.text.observations import OBSERVATIONS, STATUSES, label_report, label_reports
from crossray.text.tokenizer import Tokenizer

_NO_FINDING = OBSERVATIONS.index("no_finding")
_PRESENT = POSITIVE_OR_UNCERTAIN.present

#: Names of the signals of a statement, whose values are between 0 and 1.
PROBABILITY, BASE_RATE, AGREEMENT = "probability", "base_rate", "agreement"


@dataclass(frozen=True)
class Statement:
    """A sentence, or what a report says about one observation.

    Attributes:
        text: the sentence, or the name of the observation.
        claims: whether an observation is said to be present, by its index in `OBSERVATIONS`; empty for a sentence
            without observations.
        probability: geometric mean of the model's probabilities of the tokens that make the statement, from 0 to 1.
    """

    text: str
    claims: Mapping[int, bool]
    probability: float


def sentences(report: WrittenReport, tokenizer: Tokenizer) -> list[Statement]:
    """Return a statement for each sentence of a report."""
    return [Statement(text, _claims(text), _mean(values)) for text, values in report.sentences(tokenizer)]


def observations(report: WrittenReport, tokenizer: Tokenizer) -> list[Statement]:
    """Return a statement for each observation that a report mentions, in the order of `OBSERVATIONS`.

    Its tokens are those of the sentences that mention the observation with the same status as the report; for
    "no_finding", they are those of the whole report.
    """
    parts = report.sentences(tokenizer)
    codes = [label_report(text).codes for text, _ in parts]
    found = []
    for column, (name, status) in enumerate(zip(OBSERVATIONS, label_report(report.text).statuses, strict=True)):
        if status == "blank":
            continue
        code = STATUSES.index(status)
        if column == _NO_FINDING:
            tokens = list(report.token_log_probabilities)
        else:
            tokens = [value for (_, values), own in zip(parts, codes, strict=True) if own[column] == code
                      for value in values]  # fmt: skip
        found.append(Statement(name, {column: status in _PRESENT}, _mean(tokens)))
    return found


def presence(reports: Sequence[str]) -> NDArray[np.bool_]:
    """Return which observations N reports state as positive or uncertain, (N, K)."""
    return POSITIVE_OR_UNCERTAIN.present_in(label_reports(reports))


def holds(claims: Mapping[int, bool], present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return for which reports all claims are true, (N,); `present`: (N, K) from `presence`."""
    columns = list(claims)
    return np.asarray((present[:, columns] == [claims[column] for column in columns]).all(axis=1))


def base_rate(claims: Mapping[int, bool], rates: NDArray[np.float64]) -> float:
    """Return the share of the training reports for which a claim is true; for several claims, the smallest share.

    Args:
        claims: claims of a statement.
        rates: (K,) share of the training reports that state each observation.
    """
    return min((float(rates[column] if there else 1 - rates[column]) for column, there in claims.items()), default=1.0)


def share(count: int, total: int) -> float:
    """Return the share of `count` in `total` trials, moved away from 0 and 1 by half a trial."""
    return (count + 0.5) / (total + 1)


def signals(
    statements: Sequence[Statement], rates: NDArray[np.float64], samples: NDArray[np.bool_] | None = None
) -> dict[str, NDArray[np.float64]]:
    """Compute the signals of each statement of one report.

    Args:
        statements: the S statements of the report.
        rates: (K,) rates; see `base_rate`.
        samples: (N, K) presence of the observations in reports sampled for the same study; None without samples.

    Returns:
        Arrays (S,) by name: the model's own probability; how often such a statement is true for any study; and, with
        samples, the share of them that say the same.
    """
    found = {
        PROBABILITY: np.array([statement.probability for statement in statements], np.float64),
        BASE_RATE: np.array([base_rate(statement.claims, rates) for statement in statements], np.float64),
    }
    if samples is not None and len(samples):
        agree = [share(int(holds(statement.claims, samples).sum()), len(samples)) for statement in statements]
        found[AGREEMENT] = np.array(agree, np.float64)
    return found


@lru_cache(maxsize=4096)
def _claims(sentence: str) -> Mapping[int, bool]:
    statuses = label_report(sentence).statuses
    # as a report, every sentence without a finding would be "no finding"
    return {
        column: status in _PRESENT
        for column, status in enumerate(statuses)
        if status != "blank" and column != _NO_FINDING
    }


def _mean(log_probabilities: Sequence[float]) -> float:
    """Return the geometric mean of probabilities; 1 if there are none."""
    return math.exp(math.fsum(log_probabilities) / max(len(log_probabilities), 1))
