"""The output file of an analysis that compares models on one split, and the format of differences."""

import json
from collections.abc import Mapping
from typing import Any

import crossray
from crossray.data.store import Dataset
from crossray.evaluation.statistics.significance import Interval

FORMAT = 1


def as_json(models: Mapping[str, Any], dataset: Dataset, split: str, **about: Any) -> str:
    """Serialize results by model, with provenance; a number without a value is null, because JSON has no NaN.

    Args:
        models: JSON-serializable results by name of the model.
        dataset: dataset with the studies.
        split: split of the dataset.
        about: additional fields that apply to all results.
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
    finite = json.loads(json.dumps(content), parse_constant=lambda _: None)
    return json.dumps(finite, indent=2) + "\n"


def signed(difference: Interval | None) -> str:
    """Format a difference with its interval; "" for None."""
    return "" if difference is None else f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
