"""Labels from the rule labeler, for sources without labels of their own."""

from crossray.errors import UserError
from crossray.text.labeling.registry import OWN
from crossray.text.observations import OBSERVATIONS, label_report, labeler_name

#: Default of `--convention`.
OWN_CONVENTION = OWN


def rule_labels(report: str, convention: str = OWN) -> dict[str, str]:
    """Return the status of every observation in a report (`Study.labels`)."""
    return dict(zip(OBSERVATIONS, label_report(report, convention).statuses, strict=True))


def label_origin(given: str | None, convention: str = OWN) -> str:
    """Return the origin of the labels for `dataset.json`, because scores of two labelers cannot be compared.

    Args:
        given: origin of the source's own labels; None for those of the rule labeler.
        convention: convention of the rule labeler.

    Raises:
        UserError: the convention does not exist, or is given although the source has its own labels.
    """
    if given is not None and convention != OWN:
        raise UserError(
            f"--convention {convention} has no effect, because the labels are taken from the {given}; leave it out"
        )
    return labeler_name(convention) if given is None else given
