"""Converts a draft report to a DICOM structured report (PS3.3 A.35.3, PS3.16 TID 2000 Basic Diagnostic Imaging Report).

Patient and study are copied from the images, and each image is referenced. The report is marked as machine-generated:
its observer is a device, and its flags are PARTIAL, PRELIMINARY and UNVERIFIED. Text is UTF-8.
"""

import warnings
from collections.abc import Sequence
from copy import deepcopy
from io import BytesIO
from typing import TYPE_CHECKING, Any

from crossray.errors import UserError
from crossray.interop.codes import DIAGNOSTIC_IMAGING_REPORT, NOT_WRITTEN, OWN, Code, code_of, own_list, status_codes
from crossray.interop.draft import NOTICE, DraftReport
from crossray.interop.source import Source
from crossray.text.observations import LANGUAGES, report_language

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: Series number of reports. PACS sort series by number, so it is high to put reports after images.
SERIES_NUMBER = 9900

#: Implementation class UID of CrossRay (PS3.7 D.3.3.2).
IMPLEMENTATION = "2.25.196918967476815949694237013434181493589"

_FINDINGS = Code("LN", "59776-5", "Findings")
_FINDING = Code("DCM", "121071", "Finding")
_COMMENT = Code("DCM", "121106", "Comment")
_SOURCE_IMAGE = Code("DCM", "121324", "Source image")

#: Required fields of a report that may be empty (type 2).
_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)


def equipment(draft: DraftReport) -> dict[str, Any]:
    """Describe the model as the equipment of an object (PS3.3 C.7.5.2), as arguments for highdicom's constructors."""
    return {
        "manufacturer": "CrossRay",
        "manufacturer_model_name": draft.model.system,
        "software_versions": draft.model.version,
        "device_serial_number": draft.model.weights or "unknown",
    }


def structured_report(draft: DraftReport, sources: Sequence[Source]) -> "Dataset":
    """Build a Comprehensive SR of a report; its identifiers depend only on the draft.

    Args:
        draft: the report.
        sources: images of the report.

    Raises:
        UserError: highdicom is not installed, or patient and study cannot be copied from the images.
    """
    try:
        from highdicom.sr import ComprehensiveSR
        from pydicom.valuerep import DA, TM
    except ModuleNotFoundError:
        raise UserError("structured reports need highdicom; run `pip install 'crossray[hospital]'`.") from None
    evidence = [evidence_of(source) for source in sources]
    if not evidence:
        raise UserError(
            f"{draft.id}: a structured report needs DICOM images, but the study has none; export it as fhir."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of pydicom and highdicom quote the patient's name
        report = ComprehensiveSR(
            evidence=evidence,
            content=_content(draft, sources),
            series_instance_uid=draft.uid("series"),
            series_number=SERIES_NUMBER,
            sop_instance_uid=draft.uid("sr"),
            instance_number=1,
            **equipment(draft),
            series_description="CrossRay draft report, research use only",
            specific_character_set="ISO_IR 192",
            is_complete=False,
            is_final=False,
            is_verified=False,
        )
    # DICOM times without an offset, like StudyTime, are in local time
    written = draft.written.astimezone().replace(microsecond=0)
    report.InstanceCreationDate = report.ContentDate = DA(written.date())
    report.InstanceCreationTime = report.ContentTime = TM(written.time())
    report.SeriesDate, report.SeriesTime = report.ContentDate, report.ContentTime
    report.CompletionFlagDescription = "Machine-written draft; research use only; not a medical device"
    _name_own_codes(report)
    return report


def dicom_bytes(report: "Dataset") -> bytes:
    """Encode a dataset as a DICOM file with file meta information."""
    from pydicom.uid import UID

    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report.file_meta.ImplementationClassUID = UID(IMPLEMENTATION)
        report.file_meta.ImplementationVersionName = "CROSSRAY"
        report.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def evidence_of(source: Source) -> "Dataset":
    """Return a dataset for highdicom to copy from, with required fields empty if they are unknown."""
    dataset = deepcopy(source.dataset)
    for field in _EMPTY:
        if field not in dataset:
            setattr(dataset, field, "")
    return dataset


def _content(draft: DraftReport, sources: Sequence[Source]) -> "Dataset":
    from highdicom.sr import (
        CodeContentItem,
        ContainerContentItem,
        ContentSequence,
        DeviceObserverIdentifyingAttributes,
        ImageContentItem,
        LanguageOfContentItemAndDescendants,
        ObservationContext,
        ObserverContext,
        TextContentItem,
    )
    from pydicom.sr.codedict import codes

    def text(name: Code, value: str, relation: str) -> Any:
        return TextContentItem(_concept(name), value, relation)

    model = draft.model
    observer = ObserverContext(
        codes.DCM.Device,
        DeviceObserverIdentifyingAttributes(
            uid=f"2.25.{model.uuid.int}",
            name=f"CrossRay {model.name}"[:64],
            manufacturer_name="CrossRay",
            model_name=model.system,
            serial_number=model.weights or None,
        ),
    )
    spoken = report_language(draft.text)
    language = Code("RFC5646", spoken, LANGUAGES[spoken]) if spoken in LANGUAGES else None
    root = ContainerContentItem(_concept(DIAGNOSTIC_IMAGING_REPORT), template_id="2000")
    root.ContentSequence = ContentSequence(
        [
            *(LanguageOfContentItemAndDescendants(_concept(language)) if language else ()),
            *ObservationContext(observer_device_context=observer),
        ]
    )
    findings = ContainerContentItem(_concept(_FINDINGS), relationship_type="CONTAINS")
    whole = text(_FINDING, draft.text or "(no text)", "CONTAINS")
    whole.ContentSequence = ContentSequence(
        [
            ImageContentItem(
                _concept(_SOURCE_IMAGE),
                source.text("SOPClassUID"),
                source.text("SOPInstanceUID"),
                relationship_type="INFERRED FROM",
            )
            for source in sources
        ]
    )
    items = [text(_COMMENT, NOTICE, "CONTAINS"), whole]
    for name, status in draft.observations.items():
        if name in NOT_WRITTEN:
            continue
        item = CodeContentItem(_concept(code_of(name).best), _concept(status_codes()[status]), "CONTAINS")
        words = draft.words.get(name, ())
        if words:
            item.ContentSequence = ContentSequence([text(_FINDING, value, "INFERRED FROM") for value in words])
        items.append(item)
    findings.ContentSequence = ContentSequence(items)
    root.ContentSequence.append(findings)
    return root


def _concept(code: Code) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning[:64])


def _name_own_codes(report: "Dataset") -> None:
    """Describe the coding scheme of CrossRay's own codes (PS3.3 C.12.1.1)."""
    from pydicom.dataset import Dataset

    scheme = Dataset()
    scheme.CodingSchemeDesignator = OWN
    scheme.CodingSchemeUID = own_list()
    scheme.CodingSchemeName = "Observations of CrossRay"
    scheme.CodingSchemeResponsibleOrganization = "CrossRay"
    report.CodingSchemeIdentificationSequence = [scheme]
