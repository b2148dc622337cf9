"""Labels for sources that have none: what the rules read out of the report."""

from crossray.text.observations import LABELER, LABELER_VERSION, OBSERVATIONS, label_report

#: What `dataset.json` says of labels from here: scores of two labelers do not compare.
RULE_LABELS = f"{LABELER} {LABELER_VERSION}"


def rule_labels(report: str) -> dict[str, str]:
    """Status of every observation in a report (`Study.labels`)."""
    return dict(zip(OBSERVATIONS, label_report(report).statuses, strict=True))
