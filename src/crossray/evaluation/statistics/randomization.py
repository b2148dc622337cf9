"""Approximate randomization: tests whether two systems differ by exchanging their reports (docs/evaluation.md).

If two systems were equal, exchanging their reports of a study would have no systematic effect. The reports of random
studies are therefore exchanged, and the actual difference is compared with the differences after such exchanges. As in
the bootstrap, all exchanges of all metrics are matrix products with the statistics of single studies. Document
frequencies of CIDEr do not change, because they come from the references.

Sources: E. Noreen, "Computer-Intensive Methods for Testing Hypotheses", 1989; S. Riezler and J. Maxwell, "On Some
Pitfalls in Automatic Evaluation and Significance Testing for MT", 2005.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossray.evaluation.statistics.significance import (
    LEVEL,
    ROUNDING,
    Interval,
    Statistics,
    bootstrap_p,
    interval,
    require_paired,
    resampled_scores,
    rows_at_once,
    scores_of,
)

_Joinable = TypeVar("_Joinable")


@dataclass(frozen=True)
class PairedTest:
    """Tests of the difference between two systems in one metric.

    Attributes:
        difference: score of the first system minus that of the second, with its paired bootstrap interval.
        bootstrap_p: two-sided p-value of the paired bootstrap, which corresponds to the interval: twice the smaller
            share of resamples in which the difference is positive or negative.
        randomization_p: two-sided p-value of approximate randomization: share of exchanges with a difference at least
            as large, including the true one.
        corrected_p: `randomization_p` corrected for the number of comparisons; None if it was not corrected.
    """

    difference: Interval
    bootstrap_p: float
    randomization_p: float
    corrected_p: float | None = None


def exchanges_of(studies: int, resamples: int, seed: int) -> Iterator[NDArray[np.bool_]]:
    """The studies whose reports are exchanged in each round of approximate randomization.

    Args:
        studies: N, number of studies.
        resamples: R, number of exchanges.
        seed: seed of the draws; equal seeds and counts give equal draws.

    Yields:
        (r, N) blocks, R rows in total; a study is exchanged in half of the rows.

    Raises:
        UserError: there is no study or no exchange.
    """
    generator = np.random.default_rng(seed)
    for rows in rows_at_once(studies, resamples):
        yield generator.integers(2, size=(rows, studies), dtype=np.uint8).astype(np.bool_)


def exchanged_differences(
    first: Statistics, second: Statistics, *, resamples: int = 1000, seed: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Differences between two systems after the reports of random studies were exchanged.

    Args:
        first: statistics of one system.
        second: statistics of the other on the same studies in the same order.
        resamples: R, number of exchanges.
        seed: seed of the exchanges.

    Returns:
        For each metric, (R,) scores of the first side minus those of the second.

    Raises:
        UserError: the systems were scored on different numbers of studies.
    """
    require_paired(first, second)
    both = joined(first, second)
    blocks = []
    for moved in exchanges_of(len(first), resamples, seed):
        here = both.weighted_scores(np.hstack([~moved, moved]).astype(np.float64))
        there = both.weighted_scores(np.hstack([moved, ~moved]).astype(np.float64))
        blocks.append({name: here[name] - there[name] for name in here})
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def joined(first: _Joinable, second: _Joinable) -> _Joinable:
    """Statistics of the studies of `first` followed by those of `second`.

    Args:
        first: dataclass whose arrays have one row per study; a field may be such a dataclass, a mapping to some, or
            None. Its other fields describe all studies.
        second: statistics of the same class, with equal descriptions.

    Raises:
        ValueError: the two do not describe the same statistics.
    """
    assert is_dataclass(first) and not isinstance(first, type)
    changes: dict[str, Any] = {}
    for field in fields(first):
        ours, theirs = getattr(first, field.name), getattr(second, field.name)
        if isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
            changes[field.name] = np.concatenate([ours, theirs])
        elif is_dataclass(ours) and type(ours) is type(theirs):
            changes[field.name] = joined(ours, theirs)
        elif isinstance(ours, Mapping) and isinstance(theirs, Mapping) and ours.keys() == theirs.keys():
            changes[field.name] = {name: joined(ours[name], theirs[name]) for name in ours}
        elif ours != theirs:
            raise ValueError(f"{type(first).__name__}.{field.name} differs between both systems")
    return replace(first, **changes)


def randomization_p(difference: float, exchanged: NDArray[np.float64]) -> float:
    """Two-sided p-value of a difference among the (R,) differences after exchanges. It is at least 1 / (1 + R)."""
    as_large = np.sum(np.abs(exchanged) >= abs(difference) - ROUNDING)
    return float((1 + as_large) / (1 + len(exchanged)))


def paired_tests(
    systems: Mapping[str, Statistics],
    pairs: Sequence[tuple[str, str]],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[tuple[str, str], dict[str, PairedTest]]:
    """Test several pairs of systems in every metric.

    Args:
        systems: statistics by name, all on the same studies in the same order.
        pairs: names of the first and of the second system of each comparison.
        resamples: number of bootstrap resamples, and of exchanges.
        seed: seed of both.
        level: share of the resamples in an interval.

    Returns:
        The test for each pair and metric, without correction of the p-values: see `corrected`.

    Raises:
        UserError: the systems were scored on different numbers of studies.
    """
    drawn = {name: resampled_scores(system, resamples=resamples, seed=seed) for name, system in systems.items()}
    values = {name: scores_of(system) for name, system in systems.items()}
    tests: dict[tuple[str, str], dict[str, PairedTest]] = {}
    for first, second in pairs:
        exchanged = exchanged_differences(systems[first], systems[second], resamples=resamples, seed=seed)
        tests[first, second] = {}
        for metric, differences in exchanged.items():
            value = values[first][metric] - values[second][metric]
            resampled = drawn[first][metric] - drawn[second][metric]
            tests[first, second][metric] = PairedTest(
                difference=interval(value, resampled, level),
                bootstrap_p=bootstrap_p(resampled),
                randomization_p=randomization_p(value, differences),
            )
    return tests


def corrected(
    tests: Mapping[tuple[str, str], Mapping[str, PairedTest]],
) -> dict[tuple[str, str], dict[str, PairedTest]]:
    """The same tests with `randomization_p` corrected for the number of all pairs and metrics."""
    keys = [(pair, metric) for pair in tests for metric in tests[pair]]
    values = holm([tests[pair][metric].randomization_p for pair, metric in keys])
    result: dict[tuple[str, str], dict[str, PairedTest]] = {pair: {} for pair in tests}
    for (pair, metric), value in zip(keys, values, strict=True):
        result[pair][metric] = replace(tests[pair][metric], corrected_p=value)
    return result


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for multiple comparisons, which bounds the chance of any false difference among them.

    Source: S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979.

    Args:
        p_values: p-values of m comparisons.

    Returns:
        Corrected p-values in the same order: the smallest times m, the next times m - 1, and so on; they never fall and
        are at most 1.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    rising = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    result = np.empty_like(values)
    result[order] = np.minimum(rising, 1.0)
    return [float(value) for value in result]
