"""Draws random splits by patient, and warns of images that several patients share."""

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from crossray.data.study import Split, Study

_LOGGER = logging.getLogger(__name__)

#: Shares of the patients in the splits, 7:1:2 as in the papers.
SHARES: dict[Split, float] = {"train": 0.7, "val": 0.1, "test": 0.2}


def split_patients(patients: Iterable[str], seed: int) -> dict[str, Split]:
    """Assign every patient to a split at random: 70% train, 10% val, 20% test.

    Args:
        patients: identifiers of the patients; their order and repetitions have no effect.
        seed: random seed, 0 or more; the same seed and patients give the same splits.

    Returns:
        Split of each patient.
    """
    names = sorted(set(patients))
    order = np.random.default_rng(seed).permutation(len(names))
    train = round(SHARES["train"] * len(names))
    val = train + round(SHARES["val"] * len(names))
    places: tuple[tuple[Split, slice], ...] = (
        ("train", slice(train)), ("val", slice(train, val)), ("test", slice(val, None)),
    )  # fmt: skip
    return {names[i]: split for split, place in places for i in order[place]}


def warn_of_shared_images(path: Path, studies: Iterable[Study], fields: str) -> None:
    """Warn of images that belong to several patients, because a test image may then also be in the training split.

    Args:
        path: file that lists the studies.
        studies: the studies.
        fields: what to check in the file, for the message.
    """
    patients: dict[object, set[str]] = {}
    for study in studies:
        for image in study.images:
            patients.setdefault(getattr(image, "path", image), set()).add(study.patient)
    if shared := sum(len(found) > 1 for found in patients.values()):
        _LOGGER.warning(
            "%s: %d images belong to more than one patient, so that training may see images of the test; check the %s",
            path,
            shared,
            fields,
        )
