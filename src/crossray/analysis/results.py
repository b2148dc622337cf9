"""The file of an analysis that compares models on one split, and how its tables write a difference."""

import json
from collections.abc import Mapping
from typing import Any

import crossray
from crossray.data.store import Dataset
from crossray.evaluation.statistics.significance import Interval

FORMAT = 1


def as_json(models: Mapping[str, Any], dataset: Dataset, split: str, **about: Any) -> str:
    """Results by model, with what they were computed on and by.

    Args:
        models: name of a model to its results, JSON-ready.
        dataset: where the studies are.
        split: which of them.
        about: what else belongs to all results.
    """
    content = {
        "format": FORMAT,
        "crossray": crossray.__version__,
        "data": dataset.path.name,
        "data_sha256": dataset.info.sha256,
        "split": split,
        **about,
        "models": models,
    }
    return json.dumps(content, indent=2) + "\n"


def signed(difference: Interval | None) -> str:
    """A difference with its interval; nothing for None."""
    return "" if difference is None else f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
