"""What a metric is: one file that declares its names and headings, and how it is computed.

A file in this folder registers itself with `register` (several numbers from one pass over the reports) or `metric` (one
number a study, and their mean as the score). Another package does the same, and names its module in an entry point of
the group `crossray.metrics`.

Everything is kept as statistics of single studies, from which the scores of the corpus, of a part of it and of
thousands of resamples follow by sums: a new metric has bootstrap intervals and significance tests at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from crossray.evaluation.labelers import Labeler
from crossray.registry import Registry

#: Whether METEOR is computed: when Java and the jar are there, always (their absence is an error), or never.
MeteorChoice = Literal["auto", "yes", "no"]

#: N generated reports and the N true ones, in the same order.
Reports = tuple[Sequence[str], Sequence[str]]


@dataclass(frozen=True)
class Metric:
    """One number of a family.

    Attributes:
        name: of the score in results and options, such as "bleu4".
        heading: of its column; "" for a number that stands in files and in tables of its own only.
        place: of its column among all: those of the papers have 1 to 11.
    """

    name: str
    heading: str = ""
    place: float = 100


@dataclass(frozen=True)
class Setting:
    """What a user chooses about metrics.

    Attributes:
        labeler: labels all reports; None leaves the clinical scores out.
        meteor: "auto", "yes" or "no".
    """

    labeler: Labeler | None = None
    meteor: MeteorChoice = "auto"


class NotComputedError(Exception):
    """A family cannot be computed, or shall not be; the message says which and why."""


class FamilyStatistics(Protocol):
    """A dataclass of arrays with a row for each study."""

    def __len__(self) -> int:
        """Number of studies."""

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """Metric name to (R,) scores of the resamples whose multiplicities are (R, N) `weights`."""

    def part(self, studies: NDArray[np.bool_]) -> "FamilyStatistics":
        """Statistics of the studies in an (N,) mask."""


#: Gives the statistics with hypothesis `order[i]`, of (N,) int64, put against reference i.
Repaired = Callable[[NDArray[np.int64]], FamilyStatistics]


class Family:
    """Metrics that one pass over the reports gives, or that follow from other metrics (`derived`)."""

    name: ClassVar[str]
    metrics: tuple[Metric, ...]

    #: Names of what `validate` returns.
    validated: tuple[str, ...] = ()

    def measure(self, reports: Sequence[Reports], setting: Setting) -> Sequence[FamilyStatistics] | None:
        """Statistics of several systems and protocols at once, so that what starts slowly starts once.

        Returns:
            One for each of `reports`; None for a family that has only derived metrics.

        Raises:
            NotComputedError: it cannot be computed here, or was left out.
        """
        return None

    def repaired(self, reports: Reports, statistics: FamilyStatistics) -> Repaired | None:
        """How the same reports are put against other references, for the check with shuffled images.

        None, the default, leaves the family out of that check.
        """
        return None

    def derived(self, scores: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """Further metrics that follow from the (R,) scores of all families."""
        return {}

    def validate(self, reports: Reports, labeler: Labeler) -> dict[str, float]:
        """Scores that training computes at every validation and may select by; none by default."""
        return {}

    def implementation(self) -> str:
        """What computes the scores, with its version: stands beside them in their file. "" for CrossRay itself."""
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
    """Decorator of a function that scores every study by itself: the metric is the mean of what it returns.

    The function takes N generated and N true reports and returns an (N,) array. The metric is computed in `evaluate`,
    in `compare`, at every validation, and with images shuffled between studies.

    Args:
        name: of the score.
        heading: of its column.
        place: of its column among all; see `Metric`.
    """

    def decorate(function: Scorer) -> Scorer:
        FAMILIES.add(name, _MeanFamily(Metric(name, heading, place), function))
        return function

    return decorate


def families() -> list[Family]:
    """All families, in the order of their first columns."""
    return sorted(FAMILIES.all().values(), key=lambda family: min(one.place for one in family.metrics))


def headings() -> dict[str, str]:
    """Metric name to heading, in the order of the columns of every table."""
    shown = [one for family in families() for one in family.metrics if one.heading]
    return {one.name: one.heading for one in sorted(shown, key=lambda one: one.place)}


def weighted_sums(
    columns: Mapping[str, NDArray[np.integer] | NDArray[np.float64]], weights: NDArray[np.floating]
) -> dict[str, NDArray[np.float64]]:
    """Sums over the studies of R resamples, in one matrix product.

    Args:
        columns: name to (N,) or (N, K) numbers of single studies.
        weights: (R, N) how often each study stands in each resample.

    Returns:
        The same names to (R,) or (R, K) sums.
    """
    sums = np.asarray(weights, dtype=np.float64) @ np.column_stack(list(columns.values()))
    named, start = {}, 0
    for name, column in columns.items():
        end = start + (1 if column.ndim == 1 else column.shape[1])
        named[name] = sums[:, start] if column.ndim == 1 else sums[:, start:end]
        start = end
    return named


class Scorer(Protocol):
    """A function of N generated and N true reports that returns an (N,) score of each study."""

    def __call__(self, hypotheses: Sequence[str], references: Sequence[str]) -> NDArray[np.float64]: ...  # noqa: D102


@dataclass(frozen=True)
class MeanStatistics:
    """Scores of single studies whose mean is the metric.

    Attributes:
        name: of the metric.
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
    """The family of one function that `metric` decorates."""

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
