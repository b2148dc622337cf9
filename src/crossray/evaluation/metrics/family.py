"""Metrics: each is one file that declares its names and headings, and how it is computed.

A file in this folder registers itself with `register` (several metrics from one pass over the reports) or `metric` (one
number per study, whose mean is the score). Another package does the same, and declares its module as an entry point of
the group `crossray.metrics`.

A family computes statistics of single studies. Their sums give the scores of the corpus, of subsets and of thousands of
resamples, so a new metric has bootstrap intervals and significance tests without further code.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossray.evaluation.labelers import Labeler
from crossray.registry import Registry

#: Whether METEOR is computed: if Java and the jar are available, always (else an error), or never.
MeteorChoice = Literal["auto", "yes", "no"]

#: N generated reports and the N true ones, in the same order.
Reports = tuple[Sequence[str], Sequence[str]]


@dataclass(frozen=True)
class Metric:
    """One metric of a family.

    Attributes:
        name: name of the score in results and options, such as "bleu4".
        heading: heading of its column; "" for a number without a column in the main tables.
        place: position of its column; the columns of the papers have 1 to 11.
    """

    name: str
    heading: str = ""
    place: float = 100


@dataclass(frozen=True)
class Setting:
    """Options of the metrics.

    Attributes:
        labeler: labels all reports; None skips the clinical scores.
        meteor: "auto", "yes" or "no".
    """

    labeler: Labeler | None = None
    meteor: MeteorChoice = "auto"


class NotComputedError(Exception):
    """A family cannot be computed or was skipped; the message contains the reason."""


class FamilyStatistics(Protocol):
    """A dataclass of arrays with a row for each study."""

    def __len__(self) -> int:
        """Number of studies."""

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """(R,) scores for each metric, of the resamples with multiplicities (R, N) `weights`."""

    def part(self, studies: NDArray[np.bool_]) -> "FamilyStatistics":
        """Statistics of the studies in an (N,) mask."""


#: Returns the statistics with hypothesis `order[i]`, (N,) int64, compared with reference i.
Repaired = Callable[[NDArray[np.int64]], FamilyStatistics]


class Family:
    """Metrics that are computed in one pass over the reports, or from other metrics (`derived`)."""

    name: ClassVar[str]
    metrics: tuple[Metric, ...]

    #: Names of the metrics that `validate` returns.
    validated: tuple[str, ...] = ()

    def measure(self, reports: Sequence[Reports], setting: Setting) -> Sequence[FamilyStatistics] | None:
        """Statistics of several systems and protocols at once, so that a slow program starts only once.

        Returns:
            Statistics for each of `reports`; None for a family with derived metrics only.

        Raises:
            NotComputedError: it cannot be computed here, or was skipped.
        """
        return None

    def repaired(self, reports: Reports, statistics: FamilyStatistics) -> Repaired | None:
        """Pairs the same reports with other references, for the check with shuffled images.

        If it returns None, the default, the check does not include the family.
        """
        return None

    def derived(self, scores: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """Further metrics, computed from the (R,) scores of all families."""
        return {}

    def validate(self, reports: Reports, labeler: Labeler) -> dict[str, float]:
        """Scores that training computes at every validation and can select models by; none by default."""
        return {}

    def implementation(self) -> str:
        """Name and version of the package that computes the scores, for their file; "" for CrossRay itself."""
        return FAMILIES.implementation(self.name)


#: All families of metrics by name.
FAMILIES: Registry[Family] = Registry(
    "metric", "crossray.metrics", ["crossray.evaluation.metrics"], "evaluate without it, or install its package"
)

_F = TypeVar("_F", bound=type[Family])


def register(name: str) -> Callable[[_F], _F]:
    """Class decorator: the class is the family `name`."""

    def decorate(cls: _F) -> _F:
        cls.name = name
        FAMILIES.add(name, cls())
        return cls

    return decorate


def metric(name: str, heading: str, place: float = 100) -> Callable[["Scorer"], "Scorer"]:
    """Decorator of a function that scores each study separately; the metric is the mean of its results.

    The function takes N generated and N true reports and returns an (N,) array. The metric is computed in `evaluate`,
    in `compare`, at every validation, and with images shuffled between studies.

    Args:
        name: name of the score.
        heading: heading of its column.
        place: position of its column; see `Metric`.
    """

    def decorate(function: Scorer) -> Scorer:
        FAMILIES.add(name, _MeanFamily(Metric(name, heading, place), function))
        return function

    return decorate


def families() -> list[Family]:
    """All families, in the order of their first columns."""
    return sorted(FAMILIES.all().values(), key=lambda family: min(one.place for one in family.metrics))


def headings() -> dict[str, str]:
    """Headings by metric name, in the order of the columns of every table."""
    shown = [one for family in families() for one in family.metrics if one.heading]
    return {one.name: one.heading for one in sorted(shown, key=lambda one: one.place)}


def weighted_sums(
    columns: Mapping[str, NDArray[np.integer] | NDArray[np.float64]], weights: NDArray[np.floating]
) -> dict[str, NDArray[np.float64]]:
    """Sums over the studies of R resamples, computed as one matrix product.

    Args:
        columns: (N,) or (N, K) numbers of single studies, by name.
        weights: (R, N) how often each study occurs in each resample.

    Returns:
        (R,) or (R, K) sums by the same names.
    """
    sums = np.asarray(weights, dtype=np.float64) @ np.column_stack(list(columns.values()))
    named, start = {}, 0
    for name, column in columns.items():
        end = start + (1 if column.ndim == 1 else column.shape[1])
        named[name] = sums[:, start] if column.ndim == 1 else sums[:, start:end]
        start = end
    return named


class Scorer(Protocol):
    """A function of N generated and N true reports that returns the (N,) scores of the studies."""

    def __call__(self, hypotheses: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]: ...  # noqa: D102


@dataclass(frozen=True)
class MeanStatistics:
    """Scores of single studies whose mean is the metric.

    Attributes:
        name: name of the metric.
        values: (N,) scores.
    """

    name: str
    values: NDArray[np.float64]

    def __len__(self) -> int:
        """Number of studies."""
        return len(self.values)

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """The weighted mean, (R,)."""
        weights = np.asarray(weights, dtype=np.float64)
        return {self.name: weights @ self.values / weights.sum(axis=1)}

    def part(self, studies: NDArray[np.integer] | NDArray[np.bool_]) -> "MeanStatistics":
        """Statistics of some of the studies, by index or mask."""
        return MeanStatistics(self.name, self.values[studies])


class _MeanFamily(Family):
    """The family of a function decorated with `metric`."""

    def __init__(self, metric: Metric, function: Scorer) -> None:
        self.name = metric.name  # type: ignore[misc]
        self.metrics = (metric,)
        self.validated = (metric.name,)
        self.definition = function

    def measure(self, reports: Sequence[Reports], setting: Setting) -> list[FamilyStatistics]:
        return [self._statistics(*both) for both in reports]

    def repaired(self, reports: Reports, statistics: FamilyStatistics) -> Repaired:
        hypotheses, references = reports
        return lambda order: self._statistics([hypotheses[place] for place in order], references)

    def validate(self, reports: Reports, labeler: Labeler) -> dict[str, float]:
        return {self.name: float(self._statistics(*reports).values.mean())}

    def _statistics(self, hypotheses: Sequence[str], references: Sequence[str]) -> MeanStatistics:
        values = np.asarray(self.definition(hypotheses, references), dtype=np.float64)
        if values.shape != (len(references),):
            raise ValueError(f"metric '{self.name}' returned {values.shape}, not one number for each study")
        return MeanStatistics(self.name, values)
