"""Who reads the clinical observations out of a text. Every clinical score names its labeler.

Labels of the generated and of the true report come from the same labeler, as in all published tables: a labeler's own
mistakes are therefore part of a clinical score, and scores of two labelers do not compare.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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


def open_labeler(choice: str = RULES) -> Labeler:
    """The labeler of this name.

    Args:
        choice: "rules", or a folder with converted CheXbert weights.

    Raises:
        UserError: the folder is missing or holds no such weights.
    """
    if choice == RULES:
        return RuleLabeler()
    # Only who asks for CheXbert pays for importing torch and transformers.
    from crossray.evaluation.labelers.chexbert import CheXbertLabeler

    return CheXbertLabeler.from_pretrained(choice)
