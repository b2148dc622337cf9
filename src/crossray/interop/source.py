"""Reads patient, study and image identifiers of a report from its DICOM files.

Unlike `crossray.data.images`, which never reads a patient's name, this module must copy it to exports. The name never
appears in messages.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossray.errors import UserError
from crossray.files.names import printable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: Fields of patient and study that are copied to exports (PS3.3 C.7.1.1, C.7.2.1, C.7.2.2).
_CARRIED = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge"),
    *("StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName"),
)

#: Fields that identify an image.
_IMAGE = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")

_FIELDS = (
    *_CARRIED,
    *_IMAGE,
    "SpecificCharacterSet",
    "Modality",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "NumberOfFrames",
)

#: Fields by which a receiver assigns a report: an error is raised if one is malformed; other fields are then left out.
_FILED_BY = ("PatientName", "PatientID", "AccessionNumber", *_IMAGE)


@dataclass(frozen=True)
class Source:
    """A DICOM image.

    Attributes:
        name: name of the file, for messages.
        dataset: the valid fields among `_FIELDS`, decoded.
    """

    name: str
    dataset: "Dataset" = field(repr=False)

    def text(self, keyword: str) -> str:
        """Return a field as text; "" if it is empty or missing."""
        return str(self.dataset.get(keyword, "") or "")


def read_source(content: bytes | Path, name: str | None = None) -> Source:
    """Read patient, study and image identifiers of a DICOM file.

    Args:
        content: path or content of the file; the content may end before the pixels.
        name: name of the file, for messages; by default, the path.

    Raises:
        UserError: the file is not DICOM, an identifier is missing, or a field that a receiver needs to assign the
            report is malformed.
    """
    try:
        from pydicom import config
        from pydicom.dataelem import DataElement
        from pydicom.dataset import Dataset
        from pydicom.filereader import read_partial
        from pydicom.tag import Tag
        from pydicom.valuerep import DA, TM

        from crossray.data.images.dicom_header import MAX_HEADER, PIXEL_DATA, one_sentence
    except ModuleNotFoundError:
        raise UserError("reading patient and study needs pydicom; run `pip install 'crossray[hospital]'`.") from None
    if isinstance(content, Path):
        name = name or printable(content)
        try:
            with content.open("rb") as file:
                content = file.read(MAX_HEADER + 1)
        except OSError as error:
            raise UserError(f"{name}: cannot be read ({error.strerror}); give the DICOM file of the image") from None
    name = name or "image"
    sound = Dataset()
    with one_sentence(name):
        tags: list[Any] = [Tag(keyword) for keyword in _FIELDS]
        found = read_partial(
            BytesIO(content[:MAX_HEADER]), lambda tag, *_: tag >= PIXEL_DATA, force=True, specific_tags=tags
        )
        found.decode()
        for keyword in _FIELDS:
            tag = Tag(keyword)
            if tag not in found or keyword == "SpecificCharacterSet":
                continue
            element = found[tag]
            try:
                if element.value and element.VR in ("DA", "TM"):  # such as 20260231, which only parsing finds
                    (DA if element.VR == "DA" else TM)(element.value)
                sound[tag] = DataElement(tag, element.VR, element.value, validation_mode=config.RAISE)
            except (ValueError, TypeError):
                if keyword in _FILED_BY:
                    raise UserError(f"{name}: {keyword} is malformed; correct it in the archive first") from None
    for keyword in _IMAGE:
        if not sound.get(keyword):
            raise UserError(f"{name}: {keyword} is missing; give the original DICOM file from the archive")
    return Source(name, sound)


def read_sources(contents: Iterable[tuple[str, bytes] | Path]) -> tuple[Source, ...]:
    """Read the images of one study; see `read_source`.

    If their AccessionNumber differs, it is left empty, because the report may belong to either order.

    Args:
        contents: paths, or pairs of name and content.

    Raises:
        UserError: there are no images, or they belong to several studies or patients.
    """
    sources = tuple(
        read_source(content) if isinstance(content, Path) else read_source(content[1], content[0])
        for content in contents
    )
    if not sources:
        raise UserError("images: there are none; give the DICOM files of the study.")
    for keyword in ("StudyInstanceUID", "PatientID"):
        if len({source.text(keyword) for source in sources}) > 1:
            raise UserError(
                f"{sources[1].name}: {keyword} differs from that of {sources[0].name}; give images of one study"
            )
    if len({source.text("AccessionNumber") for source in sources}) > 1:
        for source in sources:
            source.dataset.AccessionNumber = ""
    return sources


def study_date(sources: Sequence[Source]) -> str:
    """Return the date of the study in FHIR's format; "" if it is unknown."""
    digits = sources[0].text("StudyDate") if sources else ""
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}" if len(digits) == 8 and digits.isdigit() else ""
