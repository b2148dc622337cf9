"""Labels from the rules, for sources without labels."""

from crossray.errors import UserError
from crossray.text.labeling.registry import OWN
from crossray.text.observations import OBSERVATIONS, label_report, labeler_name

#: The default of `--convention`.
OWN_CONVENTION = OWN


def rule_labels(report: str, convention: str = OWN) -> dict[str, str]:
    """Status of every observation in a report (`Study.labels`)."""
    return dict(zip(OBSERVATIONS, label_report(report, convention).statuses, strict=True))


def label_origin(given: str | None, convention: str = OWN) -> str:
    """The description of the labels in `dataset.json`, because scores of two labelers cannot be compared.

    Args:
        given: origin of labels in the source; None for the rules.
        convention: convention of the rules.

    Raises:
        UserError: there is no such convention, or it is given for labels that do not come from the rules.
    """
    if given is not None and convention != OWN:
        raise UserError(
            f"--convention {convention} has no effect, because the labels are taken from the {given}; leave it out"
        )
    return labeler_name(convention) if given is None else given
