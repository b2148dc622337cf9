"""Compares the dataset of a command with that of a model's training."""

import json
import logging
from pathlib import Path

from crossray.data.store import Dataset

_LOGGER = logging.getLogger(__name__)


def warn_of_other_splits(folder: Path, dataset: Dataset, split: str) -> None:
    """Log a warning if a split that the model must not know may contain studies of its training.

    This is the case for another dataset with the same patients, such as one prepared with another seed. Whether two
    datasets share patients is unknown, because models do not store the names of patients.

    Args:
        folder: the model folder; one that does not record its dataset causes no warning.
        dataset: the dataset.
        split: "val" or "test"; any other causes no warning.
    """
    try:
        trained = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["data"]
        sha256, source = str(trained["sha256"]), trained["source"]
    except (OSError, ValueError, LookupError, TypeError):
        return
    # the same source with other images, such as a larger size, has the same splits
    if split not in ("val", "test") or sha256 == dataset.info.sha256 or source == dataset.info.source:
        return
    _LOGGER.warning(
        "%s: the model was trained on another dataset (sha256 %s); if the two share patients, split '%s' may contain "
        "studies of the training",
        dataset.path,
        sha256[:12],
        split,
    )
