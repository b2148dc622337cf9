"""Reads MIMIC-CXR-JPG and MIMIC-CXR as published on PhysioNet: tables, a tree of images, and reports.

    ROOT/mimic-cxr-2.0.0-{split,metadata,chexpert}.csv.gz                 one row per image, image, study
    ROOT/files/p10/p10000032/s50414267/02aa804e-...-4e381014.jpg          or .dcm, in MIMIC-CXR
    mimic-cxr-reports.zip: files/p10/p10000032/s50414267.txt              in MIMIC-CXR only

Only the tables are kept in memory. Studies are ordered by patient and study and created on demand. A study that cannot
be used has a reason (`Study.refusal`), so that every missing study is counted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from crossray.data.images import ImageFile
from crossray.data.sources.archives import zip_members
from crossray.data.sources.labels import OWN_CONVENTION, label_origin, rule_labels
from crossray.data.sources.mimic_tables import MimicStudy, MimicTables
from crossray.data.sources.sections import Sections, split_sections
from crossray.data.sources.source import Collection, source
from crossray.data.study import Study
from crossray.errors import UserError
from crossray.files.digest import file_digest

#: Images, reports, patients and average length in the papers of R2Gen and RCAN, of the collection before any filter.
PAPER_STATISTICS: dict[str, tuple[int, int, int, float]] = {
    "train": (368960, 222758, 64586, 53.00),
    "val": (2991, 1808, 500, 53.05),
    "test": (5159, 3269, 293, 66.40),
}

#: Maximum size of a report in bytes; published ones have a few thousand.
MAX_REPORT_BYTES = 2**20

#: Approximate number of studies, spread over the tables, that are checked for an image; one is enough, because the
#: tree may be incomplete.
_PROBES = 2000

#: Order of a study's views: models use the first ones.
_RANK = {"pa": 0, "ap": 1, "lateral": 2, "unknown": 3}

Views = Literal["frontal", "all"]
Unit = Literal["study", "image"]
Findings = Literal["headed", "any"]
Labels = Literal["rules", "chexpert"]

#: Origin of labels from the table, for `dataset.json`.
TABLE_LABELS = "CheXpert, table of MIMIC-CXR-JPG"

_Report = Callable[[MimicStudy], bytes | None]


@dataclass(frozen=True)
class MimicStudies:
    """All studies of the tables, created on demand.

    Attributes:
        tables: the tables.
        report: function that returns the bytes of a study's report; None if there is none.
        files: folder `files` with the images.
        suffix: suffix of the images, ".jpg" or ".dcm".
        views: "frontal" keeps PA and AP views, "all" every view.
        unit: "study" creates one record per study, "image" one per view with the report of its study, as in R2Gen's
            file.
        findings: "headed" keeps studies with a findings section; "any" also those with a combined section of findings
            and impression, or a last paragraph, in its place.
        labels: "rules" reads labels from the findings, "chexpert" uses those of the table.
        convention: convention of the rule labeler, which defines the observations.
    """

    tables: MimicTables
    report: _Report
    files: Path
    suffix: str
    views: Views
    unit: Unit
    findings: Findings
    labels: Labels
    convention: str = OWN_CONVENTION

    def __len__(self) -> int:
        return self.tables.studies if self.unit == "study" else self.images()

    def __iter__(self) -> Iterator[Study]:
        for entry in self.tables:
            yield from self._records(entry)

    def images(self) -> int:
        """Return the number of images of the views that are kept, regardless of their reports."""
        return sum(count for position, count in self.tables.positions().items() if self._is_kept(position))

    def image_paths(self) -> Iterator[Path]:
        """Yield the paths of these images in order, including missing ones."""
        for entry in self.tables:
            for image in entry.images:
                if self._is_kept(image.position):
                    yield self._folder(entry) / f"{image.name}{self.suffix}"

    def _folder(self, entry: MimicStudy) -> Path:
        return self.files / f"p{str(entry.patient)[:2]}" / f"p{entry.patient}" / f"s{entry.study}"

    def stored_bytes(self, size: int) -> int:
        """Return the size of these images in bytes with a short side of `size` pixels, from the tables' shapes."""
        return self.tables.stored_bytes(size, self._is_kept)

    def notes(self) -> dict[str, Any]:
        """Return the remarks for `dataset.json`: counts in the tables, and after the filter of views."""
        positions = self.tables.positions()
        steps = [("in the tables", self.tables.studies, sum(positions.values()))]
        if self.views == "frontal":
            steps.append(("with a frontal view", self.tables.studies_with(self._is_kept), self.images()))
        return {
            "filter_steps": [{"step": name, "reports": studies, "images": images} for name, studies, images in steps],
            "positions": dict(sorted(positions.items())),
            "paper_statistics": {split: list(values) for split, values in PAPER_STATISTICS.items()},
        }

    def _is_kept(self, position: str) -> bool:
        return self.views == "all" or position in ("pa", "ap")

    def _records(self, entry: MimicStudy) -> Iterator[Study]:
        shown = [image for image in entry.images if self._is_kept(image.position)]
        shown.sort(key=lambda image: (_RANK[image.position], image.name))
        sections, refusal = self._sections(entry) if shown else (None, ("view", "the study has no frontal view"))
        folder = self._folder(entry)
        files = [ImageFile(folder / f"{image.name}{self.suffix}", image.position, draft=True) for image in shown]
        names = [image.name for image in shown]
        single = self.unit == "image"
        for name, images in zip(names, ([file] for file in files), strict=True) if single else [("", files)]:
            yield Study(
                id=name or f"s{entry.study}",
                patient=f"p{entry.patient}",
                split=entry.split,
                findings=sections.findings if sections else "",
                impression=sections.impression if sections else "",
                indication=sections.indication if sections else "",
                images=tuple(images),
                labels=None if sections is None else self._labels(entry, sections),
                extra=_extra(entry, sections, [name] if name else names),
                refusal=refusal,
            )

    def _sections(self, entry: MimicStudy) -> tuple[Sections | None, tuple[str, str] | None]:
        """Return the sections of the report, and the reason if it cannot be used."""
        content = self.report(entry)
        if content is None:
            return None, ("report", "--reports holds no report of this study")
        try:
            sections = split_sections(content.decode())
        except UnicodeDecodeError:
            return None, ("report", "the report is not UTF-8 text")
        if self.findings == "headed" and sections.origin != "heading":
            found = dict.fromkeys(("last_paragraph", "preamble"), "has no heading") | {
                "combined": "is one with the impression"
            }
            return sections, ("findings", f"the findings section {found.get(sections.origin, 'is missing or empty')}")
        if not sections.findings:
            return sections, ("findings", "the report has nothing that could be its findings")
        return sections, None

    def _labels(self, entry: MimicStudy, sections: Sections) -> dict[str, str] | None:
        if self.labels == "rules":
            return rule_labels(sections.findings, self.convention)
        return self.tables.labels(entry.study)


@source("mimic-cxr", cleaner="legacy_mimic")
def mimic_cxr(
    root: Path,
    reports: Path,
    tables: Path | None = None,
    views: Views = "frontal",
    unit: Unit = "study",
    findings: Findings = "headed",
    labels: Labels = "rules",
    convention: str = OWN_CONVENTION,
) -> Collection:
    """Prepare MIMIC-CXR from PhysioNet's files; prints an estimate of time and size first.

    Args:
        root: folder of a version of MIMIC-CXR-JPG (or of MIMIC-CXR, with DICOM files) that contains the folder files.
        reports: mimic-cxr-reports.zip, or the folder that it unpacks to.
        tables: folder with the tables mimic-cxr-2.0.0-*.csv.gz of MIMIC-CXR-JPG; by default, root.
        views: frontal keeps PA and AP views, all keeps every view.
        unit: study makes one record per study; image makes one per view, with the report of its study, as in R2Gen's
            annotation.
        findings: headed keeps only reports with a findings section; any also uses a combined section or the last
            paragraph.
        labels: rules reads labels from the findings; chexpert uses the table mimic-cxr-2.0.0-chexpert.csv.gz.
        convention: how the rules define the observations: crossray, or chexpert, as the CheXpert labeler does.
    """
    origin = label_origin(None if labels == "rules" else TABLE_LABELS, convention)
    studies = read_mimic_cxr(root, reports, tables=tables, views=views, unit=unit, findings=findings, labels=labels)
    studies = replace(studies, convention=convention)
    described = {
        "kind": "mimic_cxr",
        "images": {"folder": root.resolve().name, "suffix": studies.suffix},
        "tables": studies.tables.digests,
        "reports": file_digest(reports),
        "views": views,
        "unit": unit,
        "findings": findings,
        "synthetic_images": False,
        "labels": origin,
    }
    return Collection(studies, described, studies.notes(), files=studies.image_paths())


def read_mimic_cxr(
    root: Path,
    reports: Path,
    *,
    tables: Path | None = None,
    views: Views = "frontal",
    unit: Unit = "study",
    findings: Findings = "headed",
    labels: Labels = "rules",
) -> MimicStudies:
    """Read the tables, detect the format of the images, and find the reports.

    Args:
        root: folder of a version of MIMIC-CXR-JPG or MIMIC-CXR, which contains the folder `files`.
        reports: `mimic-cxr-reports.zip`, or the folder that it unpacks to.
        tables: folder with the tables of MIMIC-CXR-JPG; by default, `root`. MIMIC-CXR itself has none.
        views: "frontal" or "all", as in `MimicStudies`.
        unit: "study" or "image", as in `MimicStudies`.
        findings: "headed" or "any", as in `MimicStudies`.
        labels: "rules" or "chexpert", as in `MimicStudies`.

    Returns:
        All studies of the tables, created on demand.

    Raises:
        UserError: a table, the images or the reports are missing or damaged.
    """
    read = MimicTables.read(tables or root, chexpert=labels == "chexpert")
    files = root / "files"
    if not files.is_dir():
        raise UserError(
            f"{root}: contains no folder 'files'; give the folder of a version, such as mimic-cxr-jpg/2.1.0"
        )
    return MimicStudies(read, _reports(reports), files, _suffix(files, read), views, unit, findings, labels)


def _suffix(files: Path, tables: MimicTables) -> str:
    """Detect the suffix of the images, from the first probed image that exists."""
    every = max(1, tables.studies // _PROBES)
    for number, entry in enumerate(tables):
        if number % every == 0:
            folder = files / f"p{str(entry.patient)[:2]}" / f"p{entry.patient}" / f"s{entry.study}"
            for suffix in (".jpg", ".dcm"):
                if any((folder / f"{image.name}{suffix}").is_file() for image in entry.images):
                    return suffix
    raise UserError(f"{files}: none of the images in the tables exists as .jpg or .dcm; check --root and the download")


def _reports(source: Path) -> _Report:
    if source.is_dir():
        return _folder_reports(source)
    loads = {PurePosixPath(name).name: load for name, load in zip_members(source, (".txt",), MAX_REPORT_BYTES).items()}
    if not loads:
        raise UserError(f"{source}: it contains no report; give mimic-cxr-reports.zip")

    def report(entry: MimicStudy) -> bytes | None:
        load = loads.get(f"s{entry.study}.txt")
        return None if load is None else load()

    return report


def _folder_reports(source: Path) -> _Report:
    bases = (source, source / "files", source / "mimic-cxr-reports" / "files")
    base = next((base for base in bases if any(base.glob("p1[0-9]"))), None)
    if base is None:
        raise UserError(
            f"{source}: contains no folders p10 to p19; give the folder that mimic-cxr-reports.zip unpacks to"
        )

    def report(entry: MimicStudy) -> bytes | None:
        path = base / f"p{str(entry.patient)[:2]}" / f"p{entry.patient}" / f"s{entry.study}.txt"
        try:
            if path.stat().st_size > MAX_REPORT_BYTES:
                raise UserError(
                    f"{path}: larger than {MAX_REPORT_BYTES // 2**20} MiB; replace it with the published report"
                )
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None

    return report


def _extra(entry: MimicStudy, sections: Sections | None, names: list[str]) -> dict[str, Any]:
    extra: dict[str, Any] = {"study_id": str(entry.study), "dicom_ids": names}
    if sections is not None:
        extra["findings_from"] = sections.origin
        extra |= sections.extra()
    return extra
