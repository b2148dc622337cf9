"""Who reads the clinical observations out of a text. Every clinical score names its labeler.

Labels of the generated and of the true report come from the same labeler, as in all published tables: a labeler's own
mistakes are therefore part of a clinical score, and scores of two labelers do not compare.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crossray.registry import Registry
from crossray.text.observations import LABELER, LABELER_VERSION, OBSERVATIONS, label_reports

#: The choice of `open_labeler` that needs no weights.
RULES = "rules"


class Labeler(Protocol):
    """Reads observations out of reports."""

    @property
    def name(self) -> str:
        """What made the labels, with its version: part of the protocol of every clinical score."""

    @property
    def observations(self) -> tuple[str, ...]:
        """Names of the columns of the labels, the 14 of CheXpert among them."""

    def label(self, reports: Sequence[str]) -> NDArray[np.int8]:
        """Label reports.

        Args:
            reports: N reports.

        Returns:
            (N, K) codes of `crossray.text.observations.STATUSES`.
        """


#: What opens a labeler, by the name of its kind; it is given what stands behind "NAME:", "" for nothing. A labeler is
#: one file in this folder, or in another package that names its module in an entry point of `crossray.labelers`.
LABELERS: Registry[Callable[[str], Labeler]] = Registry(
    "labeler",
    "crossray.labelers",
    ["crossray.evaluation.labelers"],
    "choose rules, a folder with converted CheXbert weights, or a labeler that a package adds",
)


class RuleLabeler:
    """The embedded labeler of `crossray.text.observations`: rules, no weights."""

    @property
    def name(self) -> str:
        """Name and version of the rules."""
        return f"{LABELER} {LABELER_VERSION}"

    @property
    def observations(self) -> tuple[str, ...]:
        """All 18 observations."""
        return OBSERVATIONS

    def label(self, reports: Sequence[str]) -> NDArray[np.int8]:
        """(N, 18) codes of statuses."""
        return np.asarray(label_reports(reports), dtype=np.int8)


@LABELERS.register(RULES)
def open_rules(argument: str) -> Labeler:
    """The rules; there is nothing to choose about them."""
    return RuleLabeler()


def open_labeler(choice: str = RULES) -> Labeler:
    """The labeler of this name.

    Args:
        choice: "rules", another name in `LABELERS`, such a name with what it needs ("chexbert:FOLDER"), or just a
            folder with converted CheXbert weights.

    Raises:
        UserError: there is no such labeler, or the folder is missing or holds no such weights.
    """
    name, _, argument = choice.partition(":")
    if Path(choice).exists() or "/" in name or not name:
        name, argument = "chexbert", choice
    # Only who asks for CheXbert pays for importing torch and transformers.
    return LABELERS.get(name)(argument)
