"""Reads the published reports of IU X-Ray: Open-i's XML files, or the two tables of Kaggle's copy."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from xml.parsers import expat

from crossray.data.sources.archives import members
from crossray.errors import UserError, quoted

#: Maximum size of an XML file in bytes; the largest published ones have about ten thousand.
MAX_XML_BYTES = 2**20

#: Maximum total size of the XML files in bytes; the published ones have about a third of it. With `MAX_TABLE_BYTES`,
#: it limits the memory.
MAX_REPORTS_BYTES = 2**27

#: Maximum size of a CSV table in bytes; the larger published one has 1.7 million.
MAX_TABLE_BYTES = 2**23

REPORT_COLUMNS = ("uid", "MeSH", "indication", "findings", "impression")
PROJECTION_COLUMNS = ("uid", "filename", "projection")

_POSITIONS = {"frontal": "frontal", "lateral": "lateral"}
_UID = re.compile(r"CXR(\d{1,9})")
_IMAGE = re.compile(r"(?:CXR)?(\d+)(?:_\1)?_(IM-[\d-]+)")
_SECTIONS = ("FINDINGS", "IMPRESSION", "INDICATION")


@dataclass(frozen=True)
class IuReport:
    """One report: its number, sections, MeSH tags, and the keys (`image_key`) of its images.

    `images` contains each image once; `repeated` is the number of repeated entries in the source.
    """

    uid: int
    findings: str
    impression: str
    indication: str
    tags: tuple[str, ...]
    images: tuple[str, ...]
    repeated: int = 0


def image_key(name: str) -> str:
    """Return the key of an image, which is the same in both copies of the collection.

    Open-i's `CXR2_IM-0652-1001.png` and Kaggle's `2_IM-0652-1001.dcm.png` (or `.jpg`) are both `CXR2_IM-0652-1001`.
    """
    stem = re.sub(r"\.(png|jpe?g)$", "", name.rsplit("/", 1)[-1], flags=re.IGNORECASE).removesuffix(".dcm")
    match = _IMAGE.fullmatch(stem)
    if match is None:
        return stem
    # Open-i repeats the number only in the names of the first report
    return f"CXR{match[1]}_{'1_' if match[1] == '1' else ''}{match[2]}"


def read_reports(source: Path, projections: Path | None = None) -> list[IuReport]:
    """Read all reports, ordered by number.

    Args:
        source: `NLMCXR_reports.tgz`, the folder that it unpacks to, or `indiana_reports.csv`.
        projections: `indiana_projections.csv`, which lists the images of a CSV source; not needed for XML.

    Raises:
        UserError: a file is missing, damaged or not of this collection, or a report occurs twice.
    """
    if source.suffix.lower() == ".csv":
        if projections is None:
            raise UserError(f"{source}: does not list the images; give indiana_projections.csv with --projections")
        reports = _csv_reports(source, projections)
    else:
        reports = list(_xml_reports(source))
    if not reports:
        raise UserError(
            f"{source}: it contains no XML report; give NLMCXR_reports.tgz, its folder or indiana_reports.csv"
        )
    reports.sort(key=lambda report: report.uid)
    for first, second in pairwise(reports):
        if first.uid == second.uid:
            raise UserError(f"{source}: report CXR{first.uid} occurs twice; remove one of the two")
    return reports


def read_projections(path: Path) -> dict[str, str]:
    """Read the position of every image, "frontal" or "lateral", by its key from `indiana_projections.csv`.

    Raises:
        UserError: the file is missing or damaged, or a projection is neither.
    """
    return {image_key(row["filename"]): _position(row, f"{path}: line {line}") for line, row in _projection_rows(path)}


def parse_report(content: bytes, name: str) -> IuReport:
    """Read one XML file of Open-i.

    A document type that only names itself or its DTD is accepted, and the DTD is never fetched. Declarations, and
    entities other than XML's five predefined ones, are rejected, so nothing can be expanded or loaded from elsewhere.

    Args:
        content: content of the file.
        name: name of the file in messages.

    Raises:
        UserError: the file is not XML, declares or uses entities, or has no report number.
    """
    reader = _Reader(name)
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.SkippedEntityHandler = reader.skipped
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError, ValueError):
        raise UserError(f"{name}: not well-formed XML (line {parser.ErrorLineNumber}); download it again") from None
    return reader.report()


def _xml_reports(source: Path) -> Iterator[IuReport]:
    total = 0
    for name, load in members(source, (".xml",), MAX_XML_BYTES):
        content = load()
        total += len(content)
        if total > MAX_REPORTS_BYTES:
            raise UserError(
                f"{source}: more than {MAX_REPORTS_BYTES // 2**20} MiB of reports; give Open-i's collection"
            )
        yield parse_report(content, f"{source}: {name}")


class _Reader:
    """Collects the parts of a report while its XML is parsed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._uid = ""
        self._target = ""
        self._texts: dict[str, list[str]] = {}
        self._parts: list[str] = []
        self._images: list[str] = []
        self._tags: list[str] = []

    def doctype(self, _name: str, _system: str | None, _public: str | None, declares: bool) -> None:
        if declares:
            raise UserError(f"{self._name}: its document type has declarations, such as entities; do not use this file")

    def skipped(self, _name: str, _is_parameter: bool) -> None:
        # if the file names a DTD, which is not read, expat would silently skip unknown entities
        raise UserError(f"{self._name}: refers to an entity that its DTD declares; give the unchanged file of Open-i")

    def start(self, element: str, attributes: Mapping[str, str]) -> None:
        if element == "uId":
            self._uid = attributes.get("id", "")
        elif element == "parentImage":
            self._images.append(attributes.get("id", ""))
        elif element == "AbstractText":
            self._target, self._parts = attributes.get("Label", "").upper(), []
        elif element in ("major", "automatic"):
            self._target, self._parts = element, []

    def text(self, part: str) -> None:
        if self._target:
            self._parts.append(part)

    def end(self, element: str) -> None:
        content = "".join(self._parts).strip()
        if element == "AbstractText":
            self._texts.setdefault(self._target, []).append(content)
        elif element == "major" and content:
            self._tags.append(content)
        if element in ("AbstractText", "major", "automatic"):
            self._target, self._parts = "", []

    def report(self) -> IuReport:
        match = _UID.fullmatch(self._uid)
        if match is None:
            raise UserError(
                f"{self._name}: uId is not CXR followed by a number; give the XML files of Open-i's collection"
            )
        findings, impression, indication = (
            " ".join(filter(None, self._texts.get(section, []))) for section in _SECTIONS
        )
        images = _unique(map(image_key, filter(None, self._images)))
        repeated = len(list(filter(None, self._images))) - len(images)
        return IuReport(int(match[1]), findings, impression, indication, tuple(self._tags), images, repeated)


def _csv_reports(path: Path, projections: Path) -> list[IuReport]:
    images: dict[str, list[str]] = {}
    for _, row in _projection_rows(projections):
        images.setdefault(row["uid"], []).append(image_key(row["filename"]))
    return [_csv_report(row, f"{path}: line {line}", images) for line, row in _rows(path, REPORT_COLUMNS)]


def _csv_report(row: Mapping[str, str], place: str, images: Mapping[str, list[str]]) -> IuReport:
    if not re.fullmatch("[0-9]{1,9}", row["uid"]):
        raise UserError(f"{place}: uid is not a number; use the unchanged indiana_reports.csv")
    tags = tuple(tag.strip() for tag in row["MeSH"].split(";") if tag.strip())
    listed = images.get(row["uid"], [])
    keys = _unique(listed)
    repeated = len(listed) - len(keys)
    return IuReport(int(row["uid"]), row["findings"], row["impression"], row["indication"], tags, keys, repeated)


def _projection_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    return _rows(path, PROJECTION_COLUMNS)


def _position(row: Mapping[str, str], place: str) -> str:
    position = _POSITIONS.get(row["projection"].strip().lower())
    if position is None:
        said = quoted(row["projection"])
        raise UserError(f"{place}: projection: {said} is neither Frontal nor Lateral; use the unchanged "
                        "indiana_projections.csv")  # fmt: skip
    return position


def _unique(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(keys))


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the fields of every row."""
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise UserError(
                f"{path}: larger than {MAX_TABLE_BYTES // 2**20} MiB; use the unchanged table of Kaggle's copy"
            )
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if twice := [name for name, count in Counter(reader.fieldnames or ()).items() if count > 1]:
                raise UserError(
                    f"{path}: column {quoted(twice[0])} appears twice; use the unchanged table of Kaggle's copy"
                )
            if missing := [column for column in columns if column not in (reader.fieldnames or ())]:
                raise UserError(f"{path}: column {missing[0]} is missing; use the unchanged table of Kaggle's copy")
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(
                        f"{path}: line {reader.line_num}: it has another number of fields than the header; copy it "
                        f"again"
                    )
                yield reader.line_num, row
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; use the unchanged table of Kaggle's copy") from None
    except csv.Error as error:
        raise UserError(f"{path}: is not a CSV file ({error}); use the unchanged table of Kaggle's copy") from None
