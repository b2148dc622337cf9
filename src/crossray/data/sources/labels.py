"""Labels for sources that have none: what the rules read out of the report."""

from crossray.errors import UserError
from crossray.text.labeling.registry import OWN
from crossray.text.observations import OBSERVATIONS, label_report, labeler_name

#: The convention of `--convention` when none is given.
OWN_CONVENTION = OWN


def rule_labels(report: str, convention: str = OWN) -> dict[str, str]:
    """Status of every observation in a report (`Study.labels`)."""
    return dict(zip(OBSERVATIONS, label_report(report, convention).statuses, strict=True))


def label_origin(given: str | None, convention: str = OWN) -> str:
    """What `dataset.json` says of labels: scores of two labelers do not compare.

    Args:
        given: where the labels come from when the source has them; None for the rules.
        convention: of the rules.

    Raises:
        UserError: there is no such convention, or one is chosen for labels that the rules do not make.
    """
    if given is not None and convention != OWN:
        raise UserError(
            f"--convention {convention} has no effect, because the labels are taken from the {given}; leave it out"
        )
    return labeler_name(convention) if given is None else given
