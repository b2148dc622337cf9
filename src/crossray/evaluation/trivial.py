"""Baselines without a model, which a system has to beat, and an oracle that knows the true findings."""

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.evaluation.labelers.tags import study_tags
from crossray.text.cleaning import clean

MOST_FREQUENT = "most frequent report"
NEAREST_IMAGE = "nearest 32x32 image"
TAG_ORACLE = "tag oracle"

#: Baselines that do not know the truth; the tag oracle knows it and is an upper bound instead.
TRIVIAL = (MOST_FREQUENT, NEAREST_IMAGE)

#: Side of the thumbnails that are compared.
THUMBNAIL = 32

_FRONTAL = ("frontal", "pa", "ap")
_ROWS_AT_ONCE = 4096


def trivial_reports(
    dataset: Dataset, rows: Sequence[int] | NDArray[np.int64], *, section: str = "findings", cleaner: str = "legacy"
) -> dict[str, list[str]]:
    """Reports of all baselines for some studies. Each is a cleaned report of a training study.

    They are the same under both protocols: neither cut nor mapped to a vocabulary, as if copied by a person.

    Args:
        dataset: a prepared dataset with a training split.
        rows: rows of the studies to report on.
        section: section of the reports.
        cleaner: cleaner of the references.

    Returns:
        One report per study for each baseline name. The tag oracle is left out if the dataset has no tags.

    Raises:
        UserError: no training study has this section.
    """
    rows = np.asarray(rows, dtype=np.int64)
    training = dataset.rows("train")
    texts = dataset.reports(training, section)
    kept = [position for position, text in enumerate(texts) if text.strip()]
    if not kept:
        raise UserError(f"{dataset.path}: no training study has a section {section!r}; prepare a dataset that has it")
    # with composed letters, as in predictions
    reports = [clean(unicodedata.normalize("NFC", texts[position]), cleaner) for position in kept]
    training = training[kept]

    nearest = nearest_images(dataset, rows, training)
    result = {
        MOST_FREQUENT: [most_frequent(reports)] * len(rows),
        NEAREST_IMAGE: [reports[position] for position in nearest],
    }
    tags = study_tags(dataset, np.concatenate([rows, training]))
    if tags is not None:
        result[TAG_ORACLE] = tag_oracle(tags[: len(rows)], tags[len(rows) :], reports)
    return result


def most_frequent(reports: Sequence[str]) -> str:
    """The most frequent report; the first one in a tie."""
    return Counter(reports).most_common(1)[0][0]


def nearest_images(dataset: Dataset, rows: NDArray[np.int64], training: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the training study with the most similar frontal image.

    Args:
        dataset: a prepared dataset.
        rows: (N,) studies to find a neighbor for.
        training: (M,) studies to choose from; a study is never its own neighbor.

    Returns:
        (N,) positions in `training` with the smallest Euclidean distance between the 32 x 32 mean-pooled images; the
        first one in a tie.
    """
    wanted = _thumbnails(dataset, rows)
    best = np.full(len(rows), np.inf)
    result = np.zeros(len(rows), dtype=np.int64)
    for start in range(0, len(training), _ROWS_AT_ONCE):
        chosen = training[start : start + _ROWS_AT_ONCE]
        offered = _thumbnails(dataset, chosen)
        # The squared norm of the query image is omitted, because it is the same for all candidates.
        distance = (offered**2).sum(axis=1) - 2 * wanted @ offered.T
        distance[rows[:, None] == chosen] = np.inf
        position = distance.argmin(axis=1)
        value = distance[np.arange(len(rows)), position]
        better = value < best
        best[better], result[better] = value[better], position[better] + start
    return result


def tag_oracle(
    wanted: Sequence[frozenset[str]], training: Sequence[frozenset[str]], reports: Sequence[str]
) -> list[str]:
    """Choose reports based on the true tags.

    Args:
        wanted: N true tag sets.
        training: M tag sets of the training studies.
        reports: M training reports.

    Returns:
        For each tag set, the report of the training studies with the most similar tags (intersection over union); of
        several studies, the most frequent report among them.
    """
    groups: dict[frozenset[str], list[str]] = {}
    for tags, report in zip(training, reports, strict=True):
        groups.setdefault(tags, []).append(report)
    columns = {tag: column for column, tag in enumerate(sorted(frozenset().union(*groups, *wanted)))}
    offered = np.zeros((len(groups), len(columns)), dtype=np.float32)
    for line, tags in zip(offered, groups, strict=True):
        line[[columns[tag] for tag in tags]] = 1
    sizes, group_reports = offered.sum(axis=1), list(groups.values())

    answers: dict[frozenset[str], str] = {}
    for tags in wanted:
        if tags not in answers:
            common = offered[:, [columns[tag] for tag in tags]].sum(axis=1)
            union = sizes + len(tags) - common
            similarity = np.divide(common, union, out=np.ones_like(common), where=union > 0)
            tied = np.flatnonzero(similarity == similarity.max())
            answers[tags] = most_frequent([report for group in tied for report in group_reports[group]])
    return [answers[tags] for tags in wanted]


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean-pool a gray-scale image.

    Args:
        pixels: (H, W), any size.

    Returns:
        (32, 32) mean gray values over a grid of equal cells with borders at whole pixels.
    """
    edges = [np.arange(THUMBNAIL) * length // THUMBNAIL for length in pixels.shape]
    sums = np.add.reduceat(np.add.reduceat(pixels, edges[0], axis=0, dtype=np.int64), edges[1], axis=1)
    # An image smaller than the grid repeats pixels: for an empty cell, `reduceat` takes the pixel itself.
    counts = [np.maximum(1, np.diff(edge, append=length)) for edge, length in zip(edges, pixels.shape, strict=True)]
    return np.asarray(sums / np.outer(*counts), dtype=np.float64)


def _thumbnails(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N, 1024) thumbnails of the first frontal view of each study, or of its first view."""
    result = np.empty((len(rows), THUMBNAIL * THUMBNAIL))
    for line, row in zip(result, rows, strict=True):
        positions = dataset.record(int(row)).positions
        view = next((index for index, position in enumerate(positions) if position in _FRONTAL), 0)
        line[:] = thumbnail(dataset.image(dataset.views(int(row))[view])).ravel()
    return result
