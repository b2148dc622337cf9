"""Measures whether a model looks at what it names: scores attention against the drawn findings of a phantom dataset.

A *target* is an observation that a generated report states and that is drawn in the study, in one view that shows it.
Its map is the mean attention of the words that state it, normalized over the view. All measures refer to the square
image that the model sees, on which a map is constant within a cell.

- *Pointing game* (Zhang et al. 2018): the share of targets whose finding lies within `TOLERANCE` of the center of the
  cell with the largest attention; for ties, the mean is used.
- *Mass*: the share of the attention on the finding.

Shapes: N studies that have targets, G cells along a side of a map, R pixels along a side of a mask.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from crossray.evaluation.statistics.significance import Interval, bootstrap, paired_difference, scores_of

#: Distance along rows and columns at which pointing still counts as a hit, in sides of the square: half a cell of a
#: 7 x 7 grid, 16 pixels of 224.
TOLERANCE = 1 / 14

#: Maximum number of other studies whose attention is compared with a target.
DONORS = 8

Map = NDArray[np.floating]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Target:
    """A stated observation in one view that shows it.

    Attributes:
        study: index of the study among the evaluated ones.
        observation: the stated observation.
        view: "frontal" or "lateral".
        mask: (R, R), the drawn finding in the model's square image.
        attention: (G, G), sums to 1.
    """

    study: int
    observation: str
    view: str
    mask: Mask
    attention: Map


@dataclass(frozen=True)
class GroundingStatistics:
    """Sums over the targets of each study; every score is a ratio of them.

    Attributes:
        count: (N,) number of targets; `pointing`: (N,) sum of their hits; `mass`: (N,) sum of their masses.
    """

    count: NDArray[np.float64]
    pointing: NDArray[np.float64]
    mass: NDArray[np.float64]

    def __len__(self) -> int:
        """Number of studies."""
        return len(self.count)

    def weighted_scores(self, weights: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
        """Score by metric, (R,), for R resamples with multiplicities (R, N)."""
        count = weights @ self.count
        return {"pointing": weights @ self.pointing / count, "mass": weights @ self.mass / count}


@dataclass(frozen=True)
class Source:
    """The scores of a source of maps on a model's targets.

    Attributes:
        name: "model", or the name of a comparison.
        scores: "pointing" and "mass" with intervals over studies.
        differences: the model's scores minus these, on the same resamples; empty for the model itself.
    """

    name: str
    scores: Mapping[str, Interval]
    differences: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """The model's scores on some of its targets.

    Attributes:
        name: an observation or a view.
        targets: number of targets.
        scores: "pointing" and "mass".
    """

    name: str
    targets: int
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Grounding:
    """The grounding scores of one model.

    Attributes:
        studies: number of evaluated studies; `targets`: number of stated observations in views that show them.
        sources: the model, followed by the comparisons; empty without targets.
        parts: scores of the model by view and by observation.
    """

    studies: int
    targets: int
    sources: tuple[Source, ...]
    parts: tuple[Part, ...]


#: A prior's map for a target: (G, G), nonnegative and not all 0.
Prior = Callable[[Target], Map]


def score(
    targets: Sequence[Target],
    studies: int,
    priors: Mapping[str, Prior],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Grounding:
    """Score a model's attention, its attention on other studies, and priors that do not use the image.

    Intervals are over the studies that have targets.

    Args:
        targets: targets of one model.
        studies: number of evaluated studies.
        priors: priors by name.
        resamples: number of bootstrap resamples.
        seed: seed of the resamples and of the choice of other studies.

    Returns:
        The scores; without targets, sources and parts are empty.
    """
    if not targets:
        return Grounding(studies, 0, (), ())
    model = statistics(targets)
    others = {"shuffled attention": _shuffled(targets, seed)}
    for name, prior in priors.items():
        others[name] = statistics([replace(target, attention=prior(target)) for target in targets])
    sources = [Source("model", bootstrap(model, resamples=resamples, seed=seed))]
    for name, other in others.items():
        sources.append(
            Source(
                name,
                bootstrap(other, resamples=resamples, seed=seed),
                paired_difference(model, other, resamples=resamples, seed=seed),
            )
        )
    return Grounding(studies, len(targets), tuple(sources), tuple(_parts(targets)))


def statistics(targets: Sequence[Target]) -> GroundingStatistics:
    """Sums over the targets of each study with targets, in the order of the studies."""
    return _sums(targets, [measures(target.attention, target.mask) for target in targets])


def measures(attention: Map, mask: Mask) -> tuple[float, float]:
    """`pointing` and `mass`."""
    return pointing(attention, mask), mass(attention, mask)


def pointing(attention: Map, mask: Mask) -> float:
    """Share of the largest cells of a map (G, G) whose center is within `TOLERANCE` of the mask (R, R)."""
    pixels = len(mask)
    hits = []
    for place in np.argwhere(attention == attention.max()):
        centre = (place + 0.5) / len(attention)
        # Include every pixel within the tolerance, regardless of rounding.
        low = np.maximum(np.floor((centre - TOLERANCE) * pixels + 1e-9), 0).astype(int)
        high = np.ceil((centre + TOLERANCE) * pixels - 1e-9).astype(int)
        hits.append(mask[low[0] : high[0], low[1] : high[1]].any())
    return float(np.mean(hits))


def mass(attention: Map, mask: Mask) -> float:
    """Share of a map (G, G) that lies inside a mask (R, R)."""
    return float((cell_means(mask, len(attention)) * attention).sum() / attention.sum())


def cell_means(values: NDArray[np.generic], cells: int) -> NDArray[np.float64]:
    """Average (R, R) pixels over each cell of a grid: (cells, cells)."""
    cell = (np.arange(len(values)) * cells) // len(values)
    member = (cell == np.arange(cells)[:, None]).astype(np.float64)
    member /= member.sum(axis=1, keepdims=True)
    means: NDArray[np.float64] = member @ values.astype(np.float64) @ member.T
    return means


def _shuffled(targets: Sequence[Target], seed: int) -> GroundingStatistics:
    """Each target with the attention of other studies to the same observation and view; their scores are averaged.

    If no other study states it, targets of other observations are used; if there is no other study at all, the target
    keeps its own attention.
    """
    draw = np.random.default_rng(seed)
    scores = []
    for target in targets:
        elsewhere = [other for other in targets if other.study != target.study and other.view == target.view]
        same = [other for other in elsewhere if other.observation == target.observation]
        donors = same or elsewhere or [target]
        chosen = draw.choice(len(donors), size=min(DONORS, len(donors)), replace=False)
        scores.append(np.mean([measures(donors[index].attention, target.mask) for index in chosen], axis=0))
    return _sums(targets, scores)


def _sums(
    targets: Sequence[Target], scores: Sequence[tuple[float, float] | NDArray[np.float64]]
) -> GroundingStatistics:
    rows = np.unique([target.study for target in targets], return_inverse=True)[1]
    hits, masses = np.array(scores).T
    count, pointing_sum, mass_sum = (
        np.bincount(rows, weights=values).astype(np.float64) for values in (np.ones(len(rows)), hits, masses)
    )
    return GroundingStatistics(count, pointing_sum, mass_sum)


def _parts(targets: Sequence[Target]) -> list[Part]:
    names = [*dict.fromkeys(target.view for target in targets)]
    names += sorted({target.observation for target in targets})
    parts = []
    for name in names:
        chosen = [target for target in targets if name in (target.view, target.observation)]
        parts.append(Part(name, len(chosen), scores_of(statistics(chosen))))
    return parts
