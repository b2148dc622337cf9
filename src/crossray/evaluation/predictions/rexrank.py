"""The ReXrank schema: one JSON object that maps a study to its images, sections and, in a submission, the prediction.

The benchmark gives a file of studies; a submission is the same file with the field `model_prediction` in every study.
Fields: image_path, key_image_path, frontal_lateral, context, section_findings, section_impression, report, split.

Source: `data/` and `example_files/` of github.com/rajpurkarlab/ReXrank.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from crossray.data.sources.sections import split_sections
from crossray.errors import UserError, choose
from crossray.text.cleaning import clean
from crossray.text.lines import one_line

#: Sections that a reference can be made of; "report" is the benchmark's own reference, findings and impression.
SECTIONS = ("findings", "impression", "report")

PREDICTION = "model_prediction"


def section_of(report: str, section: str) -> str:
    """One section of a written report.

    Args:
        report: text, with headings ("Findings: ... Impression: ...") or without.
        section: one of `SECTIONS`.

    Returns:
        What stands under the heading of this section (`sections.split_sections`); the whole text when neither findings
        nor impression have one. Text before the first heading counts as findings where there are no others. It is one
        line, with a full stop where a line break alone ended a statement.
    """
    if section != "report":
        parts = split_sections(report)
        if parts.impression or parts.origin in ("heading", "combined", "preamble"):
            return parts.findings if section == "findings" else parts.impression
    return one_line(report)


def comparable(prediction: str, section: str, cleaner: str) -> str:
    """A prediction in ordinary writing as a cleaned reference compares with it.

    Text that has been cleaned before stays as it is, but for double blanks, which would be words of their own.
    """
    return " ".join(clean(section_of(prediction, section), cleaner).split())


def rows(content: Mapping[str, Any], place: str, section: str, cleaner: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The studies of a submission as rows of a predictions file.

    Args:
        content: the parsed file.
        place: name of the file, for messages.
        section: one of `SECTIONS`; what is predicted and compared.
        cleaner: for prediction and reference alike.

    Yields:
        Place for messages, and the fields of a row; without reference where the study has no such section.

    Raises:
        UserError: the section is unknown, or a study is no object or has no prediction.
    """
    if section not in SECTIONS:
        raise UserError(f"section: {section!r} does not exist; {choose(section, SECTIONS)}")
    for study, values in content.items():
        here = f"{place}: study {study!r}"
        if not isinstance(values, dict) or not isinstance(values.get(PREDICTION), str):
            raise UserError(f"{here}: {PREDICTION}: missing or no text; give the generated report of every study")
        row: dict[str, Any] = {
            "id": study,
            "prediction": comparable(values[PREDICTION], section, cleaner),
            "images": values.get("image_path", []),
            "seconds": values.get("seconds"),
        }
        reference = _reference(values, section)
        if reference:
            row["reference"] = clean(reference, cleaner)
        yield here, row


def submission(predictions: Mapping[str, str], studies: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The content of a submission.

    Args:
        predictions: study to generated report.
        studies: study to the fields that the benchmark gives it.

    Raises:
        UserError: a study has a prediction and no fields. Studies without prediction are left out.
    """
    for study in predictions:
        if study not in studies:
            raise UserError(f"study {study!r} has a prediction, and the benchmark's file lacks it; give its own file")
    return {study: {**studies[study], PREDICTION: text} for study, text in predictions.items()}


def study_fields(findings: str, impression: str, indication: str, positions: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a study that a prepared dataset knows; it does not keep the paths of images.

    Args:
        findings: text of the section, uncleaned; "" where it is absent.
        impression: the same of that section.
        indication: the same of that section.
        positions: position of every view, of `crossray.data.study.VIEW_POSITIONS`.
    """
    return {
        "section_findings": findings,
        "section_impression": impression,
        "report": f"Findings: {findings} Impression: {impression}",
        "context": f"Indication: {indication}" if indication else "",
        "frontal_lateral": ["Lateral" if position == "lateral" else "Frontal" for position in positions],
    }


def _reference(values: Mapping[str, Any], section: str) -> str:
    """True text of a section, "" where the study has none. Older files of the benchmark name it without prefix."""
    if section == "report":
        findings, impression = (_reference(values, name) for name in ("findings", "impression"))
        return f"Findings: {findings} Impression: {impression}" if findings or impression else ""
    text = values.get(f"section_{section}", values.get(section))
    return text if isinstance(text, str) and text.strip() else ""
