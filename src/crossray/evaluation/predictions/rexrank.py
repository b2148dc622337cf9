"""The ReXrank schema: a JSON object that maps a study to its images, sections and, in a submission, the prediction.

The benchmark provides a file of studies; a submission is the same file with the field `model_prediction` in every
study.
Fields: image_path, key_image_path, frontal_lateral, context, section_findings, section_impression, report, split.

Source: `data/` and `example_files/` of github.com/rajpurkarlab/ReXrank.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from crossray.data.sources.sections import split_sections
from crossray.errors import UserError, choose
from crossray.evaluation.metrics.degeneracy import UNKNOWN
from crossray.text.cleaning import clean
from crossray.text.lines import one_line

#: Sections that can serve as a reference; "report" is the benchmark's own reference, findings and impression.
SECTIONS = ("findings", "impression", "report")

PREDICTION = "model_prediction"

#: Stands for `UNKNOWN` while a text is cleaned; no cleaner changes it.
_UNKNOWN = "\ue000"


def section_of(report: str, section: str) -> str:
    """One section of a report as ordinary text.

    Args:
        report: text, with headings ("Findings: ... Impression: ...") or without.
        section: one of `SECTIONS`.

    Returns:
        The text under the heading of this section (`sections.split_sections`), or the whole text if neither findings
        nor impression has a heading. Text before the first heading counts as findings if there are no other findings.
        The result is one line, with a full stop where only a line break ended a statement.
    """
    if section != "report":
        parts = split_sections(report)
        if parts.impression or parts.origin in ("heading", "combined", "preamble"):
            return parts.findings if section == "findings" else parts.impression
    return one_line(report)


def comparable(prediction: str, section: str, cleaner: str) -> str:
    """A prediction as ordinary text, prepared for comparison with a cleaned reference.

    Text that is already cleaned does not change, except for double spaces, which would count as words.
    """
    return cleaned(section_of(prediction, section), cleaner)


def cleaned(text: str, cleaner: str) -> str:
    """A text after a cleaner, with single spaces; `<unk>`, whose brackets the cleaners remove, is kept."""
    return " ".join(clean(text.replace(UNKNOWN, _UNKNOWN), cleaner).split()).replace(_UNKNOWN, UNKNOWN)


def rows(content: Mapping[str, Any], place: str, section: str, cleaner: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The studies of a submission as rows of a predictions file.

    Args:
        content: the parsed file.
        place: name of the file, for messages.
        section: one of `SECTIONS`, which is predicted and compared.
        cleaner: cleaner of both prediction and reference.

    Yields:
        The place, for messages, and the fields of a row; without a reference if the study has no such section.

    Raises:
        UserError: the section does not exist, or a study is not an object or has no prediction.
    """
    if section not in SECTIONS:
        raise UserError(f"section: {section!r} does not exist; {choose(section, SECTIONS)}")
    for study, values in content.items():
        here = f"{place}: study {study!r}"
        if not isinstance(values, dict) or not isinstance(values.get(PREDICTION), str):
            raise UserError(f"{here}: {PREDICTION}: missing or not text; give the generated report of every study")
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
        predictions: generated report of each study.
        studies: fields of each study in the benchmark's file.

    Raises:
        UserError: a study has a prediction but no fields. Studies without a prediction are left out.
    """
    for study in predictions:
        if study not in studies:
            raise UserError(
                f"study {study!r} has a prediction but is missing from the benchmark's file; give the file of the "
                f"same benchmark"
            )
    return {study: {**studies[study], PREDICTION: text} for study, text in predictions.items()}


def study_fields(findings: str, impression: str, indication: str, positions: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a study that are known from a prepared dataset, which does not keep the paths of images.

    Args:
        findings: text of the section, uncleaned; "" if it is absent.
        impression: the same for the impression.
        indication: the same for the indication.
        positions: position of every view, one of `crossray.data.study.VIEW_POSITIONS`.
    """
    return {
        "section_findings": findings,
        "section_impression": impression,
        "report": f"Findings: {findings} Impression: {impression}",
        "context": f"Indication: {indication}" if indication else "",
        "frontal_lateral": ["Lateral" if position == "lateral" else "Frontal" for position in positions],
    }


def _reference(values: Mapping[str, Any], section: str) -> str:
    """True text of a section; "" if the study has none. Older files of the benchmark name it without the prefix."""
    if section == "report":
        findings, impression = (_reference(values, name) for name in ("findings", "impression"))
        return f"Findings: {findings} Impression: {impression}" if findings or impression else ""
    text = values.get(f"section_{section}", values.get(section))
    return text if isinstance(text, str) and text.strip() else ""
