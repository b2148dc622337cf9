"""Tags of a study, which the tag oracle and the split into normal and abnormal studies are based on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crossray.data.store import Dataset
from crossray.text.observations import STATUSES

_NO_FINDING = "no_finding"
_POSITIVE = STATUSES.index("positive")
_BLANK = STATUSES.index("blank")


def study_tags(dataset: Dataset, rows: Sequence[int] | NDArray[np.int64]) -> list[frozenset[str]] | None:
    """Tags of studies, from the most detailed source that the dataset has.

    The sources, in this order, are the MeSH tags of the true report (`extra["tags"]`, one text with ";" between tags,
    or a list), the findings drawn in the views, and the labeled observations with their status. A tag such as
    `Opacity/lung/left` counts as itself and as each of its parts (`Opacity`, `Opacity/lung`, `Opacity/left`), so two
    tags that differ in one detail are close to each other.

    Args:
        dataset: a prepared dataset.
        rows: study rows.

    Returns:
        One set per study, empty if nothing abnormal is known; None if the dataset has no such source.
    """
    given = [dataset.record(int(row)).extra.get("tags") for row in rows]
    if any(tags is not None for tags in given):
        return [_expanded(tags.split(";") if isinstance(tags, str) else tags or ()) for tags in given]
    drawn = _drawn_tags(dataset)
    if drawn is not None:
        return [_expanded(drawn.get(int(row), ())) for row in rows]
    labels = dataset.labels
    if labels is None:
        return None
    names = dataset.info.observations
    return [
        frozenset(f"{names[index]}={STATUSES[codes[index]]}" for index in np.flatnonzero(codes > _BLANK))
        for codes in labels[np.asarray(rows, dtype=np.int64)]
    ]


def normal_studies(dataset: Dataset, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """Whether each study is labeled as having no findings: (N,) bool, or None if a study has no label."""
    labels = dataset.labels
    if labels is None or _NO_FINDING not in dataset.info.observations:
        return None
    codes = labels[np.asarray(rows, dtype=np.int64), dataset.info.observations.index(_NO_FINDING)]
    return None if (codes < 0).any() else np.asarray(codes == _POSITIVE)


def _drawn_tags(dataset: Dataset) -> dict[int, set[str]] | None:
    """Findings drawn in each study row, as finding/side/place/degree."""
    table = dataset.findings()
    if table is None:
        return None
    result: dict[int, set[str]] = {}
    for row in table.select(["study", "finding", "side", "place", "degree"]).to_pylist():
        study = row.pop("study")
        result.setdefault(study, set()).add("/".join(part for part in row.values() if part))
    return result


def _expanded(tags: Sequence[str] | set[str]) -> frozenset[str]:
    result: set[str] = set()
    for tag in tags:
        kind, *details = [part.strip().lower() for part in tag.split("/")]
        if kind:
            result.update((kind, "/".join([kind, *details]), *(f"{kind}/{detail}" for detail in details)))
    return frozenset(result)
