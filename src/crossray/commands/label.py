"""`crossray label`: clinical observations of reports."""

from pathlib import Path

from crossray.errors import UserError, counted
from crossray.pages.terminal import console


def label(
    reports: Path, out: Path, labeler: str = "rules", convention: str = "crossray", evidence: Path | None = None
) -> None:
    """Label reports with clinical observations: positive, negative, uncertain or blank.

    Args:
        reports: CSV file with the columns study_id (or study, as in a manifest) and report.
        out: CSV file to write, with study_id and one column per observation.
        labeler: rules (18 observations), a folder with converted CheXbert weights (14 observations), or the
            name of a labeler from another package.
        convention: how the rules define the observations: crossray, or chexpert, as the CheXpert labeler does.
        evidence: also write the passages behind each label to this JSON lines file.
    """
    from crossray.evaluation.labelers import is_rules, open_labeler
    from crossray.text.label_table import label_table
    from crossray.text.observations import label_report

    if evidence is not None and not is_rules(labeler):
        raise UserError(
            f"--evidence needs the rules, the only labeler that records passages; leave out --labeler {labeler}."
        )
    opened = open_labeler(labeler, convention)
    count, notes = label_table(reports, out, opened, lambda report: label_report(report, convention).evidence, evidence)
    console().print(f"{counted(count, 'report')} labeled by {opened.name} in {out}", highlight=False)
    for note in notes:
        console().print(f"note: {note}", highlight=False)
    if evidence is not None:
        console().print(f"evidence in {evidence}", highlight=False)
