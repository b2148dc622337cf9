"""Labelers, which extract the clinical observations from a text. Every clinical score names its labeler.

Generated and true reports are labeled by the same labeler, as in all published tables. The labeler's mistakes are
therefore part of a clinical score, and scores of two labelers cannot be compared.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crossray.errors import UserError
from crossray.registry import Registry
from crossray.text.labeling.registry import OWN, check_convention
from crossray.text.observations import LABELER, OBSERVATIONS, label_reports, labeler_name

#: The labeler that needs no weights, for `open_labeler`.
RULES = "rules"


class Labeler(Protocol):
    """Determines the observations of reports."""

    @property
    def name(self) -> str:
        """Name and version of the labeler, which are part of the protocol of every clinical score."""

    @property
    def observations(self) -> tuple[str, ...]:
        """Names of the label columns, including the 14 of CheXpert."""

    def label(self, reports: Sequence[str]) -> NDArray[np.int8]:
        """Label reports.

        Args:
            reports: N reports.

        Returns:
            (N, K) codes of `crossray.text.observations.STATUSES`.
        """


#: Functions that open a labeler, by its name. Their argument is the text after "NAME:", or "". A labeler is one file in
#: this folder, or in another package that declares its module as an entry point of the group `crossray.labelers`.
LABELERS: Registry[Callable[[str], Labeler]] = Registry(
    "labeler",
    "crossray.labelers",
    ["crossray.evaluation.labelers"],
    "choose rules, a folder with converted CheXbert weights, or a labeler that a package adds",
)


class RuleLabeler:
    """The rule-based labeler of `crossray.text.observations`.

    Args:
        convention: which statements count for which observation (`crossray.text.labeling.registry.conventions`).

    Raises:
        UserError: there is no such convention.
    """

    def __init__(self, convention: str = OWN) -> None:
        check_convention(convention)
        self.convention = convention

    @property
    def name(self) -> str:
        """Name and version of the rules, and their convention."""
        return labeler_name(self.convention)

    @property
    def observations(self) -> tuple[str, ...]:
        """All 18 observations."""
        return OBSERVATIONS

    def label(self, reports: Sequence[str]) -> NDArray[np.int8]:
        """(N, 18) codes of statuses."""
        return np.asarray(label_reports(reports, self.convention), dtype=np.int8)


@LABELERS.register(RULES)
@LABELERS.register(LABELER)
def open_rules(argument: str) -> Labeler:
    """The rules, with the name of a convention as argument."""
    return RuleLabeler(argument or OWN)


def is_rules(choice: str) -> bool:
    """Whether this name of a labeler (`open_labeler`) means the rules."""
    return choice.partition(":")[0] in (RULES, LABELER)


def open_labeler(choice: str = RULES, convention: str = OWN) -> Labeler:
    """Open a labeler by name.

    Args:
        choice: "rules", another name in `LABELERS`, a name with its argument ("chexbert:FOLDER"), or just a folder with
            converted CheXbert weights.
        convention: convention of the rules; other labelers have their own.

    Raises:
        UserError: there is no such labeler or convention, or the folder is missing or has no such weights.
    """
    check_convention(convention)
    if convention != OWN:
        if not is_rules(choice) or ":" in choice:
            raise UserError(f"--convention {convention}: only the rules have conventions; leave out --labeler {choice}")
        choice = f"{RULES}:{convention}"
    name, _, argument = choice.partition(":")
    # a file or folder called "rules" does not hide the rules
    if not is_rules(choice) and (Path(choice).exists() or "/" in name or not name):
        name, argument = "chexbert", choice
    # torch and transformers are imported only for CheXbert.
    return LABELERS.get(name)(argument)
