"""Draws random splits by patient."""

from collections.abc import Iterable

import numpy as np

from crossray.data.study import Split

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
