"""Reads IU X-Ray from the files of Open-i or Kaggle, and filters the studies.

R2Gen's 2,955 studies are those with a findings section and at least two images; R2Gen's identifier of a study is the
name of its first image without the last number. `docs/data/iu-xray.md` shows both on the published reports.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from uuid import uuid4

from crossray.data.images import MAX_BYTES, ImageFile
from crossray.data.sources.archives import members
from crossray.data.sources.iu_reports import IuReport, image_key, read_projections, read_reports
from crossray.data.sources.labels import OWN_CONVENTION, label_origin, rule_labels
from crossray.data.sources.r2gen import read_annotation
from crossray.data.sources.source import Collection, source
from crossray.data.sources.splits import split_patients
from crossray.data.study import SPLITS, Split, Study
from crossray.errors import UserError
from crossray.files.digest import file_digest

#: Images, reports, patients and average length in the papers of R2Gen and RCAN, of the collection before any filter.
PAPER_STATISTICS: dict[str, tuple[int, int, int, float]] = {
    "train": (5226, 2770, 2770, 37.56),
    "val": (748, 395, 395, 36.78),
    "test": (1496, 790, 790, 33.62),
}

Views = Literal["pair", "all"]

_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class FilterStep:
    """The numbers of reports and images that remain after a filter."""

    step: str
    reports: int
    images: int


@dataclass(frozen=True)
class IuStudies:
    """The studies that remain after the filters, created on demand; an archive is unpacked only then.

    Attributes:
        reports: reports of the studies in order, each with the images used.
        splits: split of each report by its number.
        positions: position of each image by its key; other images have an unknown position.
        images: folder or archive of the images.
        files: path of each image in `images` by its key.
        unpacked: folder for the unpacked images of an archive.
        steps: numbers of reports and images after each filter.
        oddities: numbers of images in the source that are listed twice, missing, or without a report, and of studies of
            the annotation that are left out.
        convention: convention of the rule labeler, which defines the observations.
    """

    reports: Sequence[IuReport]
    splits: Mapping[int, Split]
    positions: Mapping[str, str]
    images: Path
    files: Mapping[str, str]
    unpacked: Path
    steps: tuple[FilterStep, ...]
    oddities: Mapping[str, int]
    convention: str = OWN_CONVENTION

    def __len__(self) -> int:
        return len(self.reports)

    def __iter__(self) -> Iterator[Study]:
        if not self.images.is_dir():
            needed = {self.files[key] for report in self.reports for key in report.images}
            _unpack(self.images, needed, self.unpacked)
        return map(self._study, self.reports)

    def _study(self, report: IuReport) -> Study:
        return Study(
            id=min(report.images).rsplit("-", 1)[0],
            patient=f"CXR{report.uid}",
            split=self.splits[report.uid],
            findings=report.findings,
            impression=report.impression,
            indication=report.indication,
            images=tuple(ImageFile(self._path(key), self.positions.get(key, "unknown")) for key in report.images),
            labels=rule_labels(report.findings, self.convention),
            extra={"tags": list(report.tags)},
        )

    def image_paths(self) -> Iterator[Path]:
        """Yield the paths of the images in a folder, in order; nothing for an archive, whose digest identifies them."""
        if self.images.is_dir():
            yield from (self._path(key) for report in self.reports for key in report.images)

    def _path(self, key: str) -> Path:
        name = self.files[key]
        return self.images / name if self.images.is_dir() else self.unpacked / _unpacked_name(name)

    def notes(self) -> dict[str, Any]:
        """Return the remarks for `dataset.json`: filter steps, reports with removed words (XXXX), known positions."""
        keys = [key for report in self.reports for key in report.images]
        return {
            "filter_steps": [{"step": s.step, "reports": s.reports, "images": s.images} for s in self.steps],
            **self.oddities,
            "reports_with_xxxx": sum("xxxx" in report.findings.lower() for report in self.reports),
            "images_of_known_projection": sum(key in self.positions for key in keys),
            "paper_statistics": {split: list(values) for split, values in PAPER_STATISTICS.items()},
        }


@source("iu-xray")
def iu_xray(
    reports: Path,
    images: Path,
    scratch: Path,
    projections: Path | None = None,
    split: str = "seeded",
    seed: int = 0,
    views: Views = "pair",
    convention: str = OWN_CONVENTION,
) -> Collection:
    """Prepare IU X-Ray from the files of Open-i or Kaggle, and report what each filter removes.

    Args:
        reports: NLMCXR_reports.tgz, the folder that it unpacks to, or indiana_reports.csv.
        images: NLMCXR_png.tgz, the folder that it unpacks to, or Kaggle's folder of images.
        scratch: folder to unpack images into.
        projections: indiana_projections.csv, which names the positions of the views; by default, the file next to
            indiana_reports.csv. Without it, positions are unknown.
        split: r2gen:annotation.json uses the studies and splits of that file; seeded draws a 70/10/20 split by patient.
        seed: random seed of the drawn split.
        views: pair keeps two views of each study with at least two, as R2Gen does; all keeps every view.
        convention: how the rules define the observations: crossray, or chexpert, as the CheXpert labeler does.
    """
    labels = label_origin(None, convention)
    annotation = _split_file(split)
    beside = reports.with_name("indiana_projections.csv")
    if projections is None and reports.suffix.lower() == ".csv" and beside.exists():
        projections = beside
    studies = read_iu_xray(
        reports, images, scratch, projections=projections, annotation=annotation, views=views, seed=seed
    )
    studies = replace(studies, convention=convention)
    described = {
        "kind": "iu_xray",
        "reports": file_digest(reports),
        "images": file_digest(images),
        "projections": None if projections is None else file_digest(projections),
        "split": {"seed": seed} if annotation is None else file_digest(annotation),
        "views": views,
        "synthetic_images": False,
        "labels": labels,
    }
    files = studies.image_paths() if images.is_dir() else None
    return Collection(studies, described, studies.notes(), files=files)


def _split_file(split: str) -> Path | None:
    """Return the annotation file of `--split r2gen:FILE`; None for a random split."""
    kind, _, name = split.partition(":")
    if split == "seeded":
        return None
    if kind != "r2gen" or not name:
        raise UserError(f"--split {split!a}: is neither 'seeded' nor 'r2gen:annotation.json'; give one of them.")
    return Path(name)


def read_iu_xray(
    reports: Path,
    images: Path,
    unpacked: Path,
    *,
    projections: Path | None = None,
    annotation: Path | None = None,
    views: Views = "pair",
    seed: int = 0,
) -> IuStudies:
    """Read the collection and filter its studies.

    Args:
        reports: `NLMCXR_reports.tgz`, its folder, or `indiana_reports.csv`.
        images: `NLMCXR_png.tgz`, its folder, or Kaggle's folder of images.
        unpacked: folder for the unpacked images of an archive, needed while the dataset is written.
        projections: `indiana_projections.csv`; without it, the positions of all views are unknown.
        annotation: R2Gen's `annotation.json`, whose studies and splits (not texts) are used. If None, the split is
            70/10/20, by report, since the collection does not identify patients.
        views: "pair" keeps studies with at least two views, and two views of each, as R2Gen does: a frontal and a
            lateral one if their projection is known, otherwise the first two by name. "all" keeps every view.
        seed: random seed of the split without `annotation`.

    Raises:
        UserError: a file is missing, damaged or malicious, or no study remains.
    """
    found = read_reports(reports, projections)
    positions = read_projections(projections) if projections is not None else {}
    files: dict[str, str] = {}
    for name, _ in members(images, _SUFFIXES, MAX_BYTES):
        files.setdefault(image_key(name), name)
    if not files:
        raise UserError(f"{images}: it contains no PNG or JPEG image; give NLMCXR_png.tgz, its folder or Kaggle's")

    steps = [_step("in the source", found)]
    listed = {key for report in found for key in report.images}
    oddities = {
        "images_listed_twice": sum(report.repeated for report in found),
        "images_listed_but_missing": len(listed - files.keys()),
        "images_of_no_report": len(files.keys() - listed),
    }
    found = [report for report in found if report.images]
    steps.append(_step("with an image listed", found))
    found = [replace(report, images=tuple(key for key in report.images if key in files)) for report in found]
    found = [report for report in found if report.images]
    steps.append(_step("with an image in --images", found))
    found = [report for report in found if report.findings.strip()]
    steps.append(_step("with findings", found))
    if views == "pair":
        found = [report for report in found if len(report.images) > 1]
        steps.append(_step("with two views or more", found))
    found = [replace(report, images=_ordered(report.images, positions, views)) for report in found]
    if views == "pair":
        steps.append(_step("two views of each", found))
    if annotation is not None:
        splits = _annotated_splits(annotation)
        found = [report for report in found if report.uid in splits]
        steps.append(_step("in the annotation", found))
        there = {report.uid for report in found}
        for split in SPLITS:
            lacking = sum(chosen == split and uid not in there for uid, chosen in splits.items())
            oddities[f"{split}_studies_of_the_annotation_left_out"] = lacking
    else:
        chosen = split_patients((str(report.uid) for report in found), seed)
        splits = {report.uid: chosen[str(report.uid)] for report in found}
    if not found:
        last = next(step for step in steps if not step.reports)
        raise UserError(f"{reports}: no report is left after the filter '{last.step}'; give files that belong together")
    return IuStudies(found, splits, positions, images, files, unpacked, tuple(steps), oddities)


def _step(name: str, reports: Sequence[IuReport]) -> FilterStep:
    return FilterStep(name, len(reports), sum(len(report.images) for report in reports))


def _ordered(keys: Sequence[str], positions: Mapping[str, str], views: Views) -> tuple[str, ...]:
    """Sort views by name, but a frontal and a lateral one first if they exist, because models use the first views."""
    rest = sorted(keys)
    first = [next((key for key in rest if positions.get(key) == position), None) for position in ("frontal", "lateral")]
    front = [key for key in first if key is not None]
    ordered = front + [key for key in rest if key not in front]
    return tuple(ordered[:2] if views == "pair" else ordered)


def _annotated_splits(annotation: Path) -> dict[int, Split]:
    splits: dict[int, Split] = {}
    for split, entries in read_annotation(annotation).items():
        for i, entry in enumerate(entries):
            number = entry["id"].split("_")[0].removeprefix("CXR")
            if not re.fullmatch("[0-9]{1,9}", number):
                raise UserError(f"{annotation}: {split}[{i}].id: is not CXR<number>_...; give the one of IU X-Ray")
            splits[int(number)] = split
    return splits


def _unpacked_name(name: str) -> str:
    """Return the file name of an unpacked image: its key with the original suffix."""
    return f"{image_key(name)}{PurePosixPath(name).suffix.lower()}"


def _unpack(archive: Path, needed: set[str], folder: Path) -> None:
    """Unpack the missing images of an archive, each atomically and under its key."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, load in members(archive, _SUFFIXES, MAX_BYTES):
        target = folder / _unpacked_name(name)
        if name in needed and not target.exists():
            # a name of its own, because several parts (--shard) may unpack at the same time
            partial = folder / f".{uuid4().hex}"
            try:
                partial.write_bytes(load())
                partial.replace(target)
            except OSError as error:
                raise UserError(
                    f"{folder}: cannot be written ({error.strerror}); free space and run the same command again"
                ) from None
            finally:
                partial.unlink(missing_ok=True)
