"""`crossray prepare`: a dataset on disk, once, for everything that follows."""

import sys
from pathlib import Path
from typing import Any, Literal

from crossray.commands.show import (
    console,
    print_dataset,
    print_estimate,
    print_source_statistics,
    progress_bar,
)
from crossray.errors import UserError
from crossray.files.digest import file_digest

Identity = Literal["size_time", "digest"]


def prepare_phantom(
    out: Path,
    studies: int = 600,
    size: int = 256,
    seed: int = 0,
    severity: Literal["easy", "realistic"] = "realistic",
    like: Path | None = None,
    tags: Path | None = None,
    workers: int | None = None,
) -> None:
    """Draw synthetic radiographs with known findings, masks and reports; or images for true reports (--like, --tags).

    Args:
        out: folder of the prepared dataset; an unfinished one is continued.
        studies: number of studies to draw (without --like).
        size: short side of the stored images in pixels.
        seed: the same seed draws the same studies, whatever the number of workers.
        severity: how clearly findings show: easy or realistic.
        like: R2Gen's annotation.json: keep its reports and splits, draw the images.
        tags: indiana_reports.csv with the MeSH tags that say what to draw for --like.
        workers: processes that draw; 0 draws in this one; default: one a core.
    """
    from crossray.data.store import write_dataset
    from crossray.phantom.source import like_studies, phantom_studies, tag_notes

    if (like is None) != (tags is None):
        raise UserError("--like and --tags belong together: give R2Gen's annotation.json and indiana_reports.csv.")
    source: dict[str, Any] = {"kind": "phantom", "seed": seed, "severity": severity, "synthetic_images": True}
    notes: dict[str, Any] = {}
    if like is not None and tags is not None:
        records = like_studies(like, tags, seed, severity)
        source |= {"like": file_digest(like), "tags": file_digest(tags)}
        notes = tag_notes(records)
    else:
        if studies < 1:
            raise UserError(f"--studies {studies}: draw at least 1.")
        records = phantom_studies(studies, seed, severity)
        source |= {"studies": studies}
    with progress_bar("drawing studies") as progress:
        dataset = write_dataset(out, records, size=size, source=source, workers=workers, notes=notes, progress=progress)
    print_dataset(dataset)


def prepare_r2gen(
    annotation: Path,
    images: Path,
    out: Path,
    kind: Literal["auto", "r2gen", "promptmrg", "coacl", "rexrank"] = "auto",
    labels: Literal["annotation", "rules"] = "annotation",
    size: int = 256,
    cleaner: Literal["legacy", "legacy_mimic", "fixed", "none"] = "legacy",
    workers: int | None = None,
    identity: Identity = "size_time",
) -> None:
    """Prepare a dataset in R2Gen's layout or a relative's: an annotation and a folder of images.

    Args:
        annotation: R2Gen's annotation.json, PromptMRG's or ReXrank's file, or COACL's folder of three files.
        images: folder that the annotation's image paths are relative to.
        out: folder of the prepared dataset; an unfinished one is continued.
        kind: what the annotation is; auto tells it by its form.
        labels: annotation takes the file's labels where it has them (PromptMRG), rules reads them out of the reports.
        size: short side of the stored images in pixels.
        cleaner: how report texts are cleaned for the statistics, and by default in training.
        workers: processes that read; 0 reads in this one; default: one a core.
        identity: by what a changed image is noticed when the dataset exists already: its size and time, or its digest,
            for which every image is read once more.
    """
    from crossray.data.sources.labels import RULE_LABELS
    from crossray.data.sources.r2gen import open_annotation, read_r2gen
    from crossray.data.store import write_dataset
    from crossray.data.store.identity import identify, image_paths

    opened = open_annotation(annotation, None if kind == "auto" else kind)
    studies = read_r2gen(opened, images, labels)
    source = {
        "kind": opened.kind,
        "annotation": list(map(file_digest, sorted(annotation.glob("*.json")))) or file_digest(annotation),
        "synthetic_images": False,
        "labels": "annotation" if opened.labelled and labels == "annotation" else RULE_LABELS,
    }
    with progress_bar("reading studies") as progress:
        dataset = write_dataset(
            out, studies, size=size, source=source, cleaner=cleaner, workers=workers,
            progress=progress, images=identify(image_paths(studies), identity),
        )  # fmt: skip
    print_dataset(dataset)


def prepare_iu_xray(
    reports: Path,
    images: Path,
    out: Path,
    projections: Path | None = None,
    split: str = "seeded",
    seed: int = 0,
    views: Literal["pair", "all"] = "pair",
    size: int = 256,
    cleaner: Literal["legacy", "legacy_mimic", "fixed", "none"] = "legacy",
    workers: int | None = None,
    identity: Identity = "size_time",
) -> None:
    """Prepare IU X-Ray from the files of Open-i or Kaggle; say what every filter leaves, beside the papers' numbers.

    Args:
        reports: NLMCXR_reports.tgz, the folder that it unpacks to, or indiana_reports.csv.
        images: NLMCXR_png.tgz, the folder that it unpacks to, or Kaggle's folder of images.
        out: folder of the prepared dataset; an unfinished one is continued.
        projections: indiana_projections.csv; without it nobody knows which view is frontal. Taken from beside
            indiana_reports.csv when left out.
        split: r2gen:annotation.json takes the studies and splits of that file; seeded draws 70/10/20 by patient.
        seed: seed of the drawn split.
        views: pair keeps studies with two views or more and two of each, as R2Gen does; all keeps every view.
        size: short side of the stored images in pixels.
        cleaner: how report texts are cleaned for the statistics, and by default in training.
        workers: processes that read; 0 reads in this one; default: one a core.
        identity: by what a changed image is noticed when the dataset exists already: its size and time, or its digest,
            for which every image is read once more.
    """
    from crossray.data.sources.iu_xray import read_iu_xray
    from crossray.data.sources.labels import RULE_LABELS
    from crossray.data.store import write_dataset
    from crossray.data.store.identity import identify
    from crossray.data.store.layout import UNFINISHED

    annotation = _split_file(split)
    beside = reports.with_name("indiana_projections.csv")
    if projections is None and reports.suffix.lower() == ".csv" and beside.exists():
        projections = beside
    studies = read_iu_xray(
        reports, images, out / UNFINISHED / "images",
        projections=projections, annotation=annotation, views=views, seed=seed,
    )  # fmt: skip
    source = {
        "kind": "iu_xray",
        "reports": _source_file(reports),
        "images": _source_file(images),
        "projections": None if projections is None else file_digest(projections),
        "split": {"seed": seed} if annotation is None else file_digest(annotation),
        "views": views,
        "synthetic_images": False,
        "labels": RULE_LABELS,
    }
    with progress_bar("reading studies") as progress:
        dataset = write_dataset(
            out, studies, size=size, source=source, cleaner=cleaner, workers=workers, notes=studies.notes(),
            progress=progress, images=identify(studies.image_paths(), identity) if images.is_dir() else None,
        )  # fmt: skip
    print_dataset(dataset)
    print_source_statistics(dataset)


def _split_file(split: str) -> Path | None:
    """The annotation behind --split r2gen:FILE; None for a drawn split."""
    kind, _, name = split.partition(":")
    if split == "seeded":
        return None
    if kind != "r2gen" or not name:
        raise UserError(f"--split {split!a}: is neither 'seeded' nor 'r2gen:annotation.json'; give one of them.")
    return Path(name)


def _source_file(path: Path) -> dict[str, str]:
    """What identifies a source: an archive's or table's digest, of a folder its name."""
    return {"folder": path.resolve().name} if path.is_dir() else file_digest(path)


def prepare_mimic_cxr(
    root: Path,
    reports: Path,
    out: Path,
    tables: Path | None = None,
    views: Literal["frontal", "all"] = "frontal",
    unit: Literal["study", "image"] = "study",
    findings: Literal["headed", "any"] = "headed",
    labels: Literal["rules", "chexpert"] = "rules",
    shard: str | None = None,
    engine: Literal["processes", "ray"] = "processes",
    size: int = 256,
    cleaner: Literal["legacy", "legacy_mimic", "fixed", "none"] = "legacy_mimic",
    workers: int | None = None,
    identity: Identity = "size_time",
) -> None:
    """Prepare MIMIC-CXR from PhysioNet's files; say beforehand how long it will take and how large it will be.

    Args:
        root: folder of a version of MIMIC-CXR-JPG (or MIMIC-CXR, with DICOM files), which holds the folder files.
        reports: mimic-cxr-reports.zip, or the folder that it unpacks to.
        out: folder of the prepared dataset; an unfinished one is continued.
        tables: folder with the tables mimic-cxr-2.0.0-*.csv.gz of MIMIC-CXR-JPG; root when left out.
        views: frontal keeps PA and AP, all keeps every view.
        unit: study makes one record a study; image one a view with its study's report, as R2Gen's annotation has them.
        findings: headed keeps reports with a findings section; any takes a common section or last paragraph instead.
        labels: rules reads them out of the findings; chexpert takes the table mimic-cxr-2.0.0-chexpert.csv.gz.
        shard: write one machine's part, such as 1/4; then the same command without --shard merges all parts.
        engine: processes of this machine, or ray for a cluster whose machines share the disk (pip install ray).
        size: short side of the stored images in pixels.
        cleaner: how report texts are cleaned for the statistics, and by default in training.
        workers: processes that read; 0 reads in this one; default: one a core.
        identity: by what a changed image is noticed when the dataset exists already: its size and time, or its digest,
            for which every image is read once more.
    """
    from crossray.data.sources.labels import RULE_LABELS
    from crossray.data.sources.mimic_cxr import read_mimic_cxr
    from crossray.data.store import write_dataset
    from crossray.data.store.identity import identify
    from crossray.data.store.writer import Part, write_part

    part = Part.parse(shard) if shard is not None else None
    if part is not None and engine == "ray":
        raise UserError("--shard and --engine ray are two ways of using several machines; give one of them.")
    studies = read_mimic_cxr(root, reports, tables=tables, views=views, unit=unit, findings=findings, labels=labels)
    source = {
        "kind": "mimic_cxr",
        "images": {"folder": root.resolve().name, "suffix": studies.suffix},
        "tables": studies.tables.digests,
        "reports": _source_file(reports),
        "views": views,
        "unit": unit,
        "findings": findings,
        "synthetic_images": False,
        "labels": RULE_LABELS if labels == "rules" else "CheXpert, table of MIMIC-CXR-JPG",
    }
    files = identify(studies.image_paths(), identity)
    print_estimate(studies, size, workers, parts=part.of if part is not None else 1)
    with progress_bar("reading studies") as progress:
        if part is not None:
            count = write_part(
                out, studies, part, size=size, source=source, cleaner=cleaner, workers=workers, progress=progress
            )
        else:
            dataset = write_dataset(
                out, studies, size=size, source=source, cleaner=cleaner, workers=workers, notes=studies.notes(),
                progress=progress, engine=engine, images=files,
            )  # fmt: skip
    if part is not None:
        console().print(f"part {shard}: {count} shards are written; when all parts are, the same command without "
                        "--shard merges them", highlight=False)  # fmt: skip
        return
    print_dataset(dataset)
    print_source_statistics(dataset)


def prepare_manifest(
    manifest: Path | None = None,
    out: Path | None = None,
    template: Path | None = None,
    skip_bad: bool = False,
    seed: int = 0,
    size: int = 256,
    cleaner: Literal["legacy", "legacy_mimic", "fixed", "none"] = "fixed",
    workers: int | None = None,
    identity: Identity = "size_time",
) -> None:
    """Prepare your own studies from a CSV or JSONL table of image paths and reports; every bad row is named.

    Args:
        manifest: the table; image paths are relative to its folder.
        out: folder of the prepared dataset; an unfinished one is continued.
        template: write a table to be filled in to this .csv file, or print it when no file is named, and do nothing
            else.
        skip_bad: leave bad rows out and list them in rejected.jsonl, instead of refusing the table.
        seed: seed of the 70/10/20 split by patient that is drawn when the table has no column split.
        size: short side of the stored images in pixels.
        cleaner: how report texts are cleaned for the statistics, and by default in training.
        workers: processes that read; 0 reads in this one; default: one a core.
        identity: by what a changed image is noticed when the dataset exists already: its size and time, or its digest,
            for which every image is read once more.
    """
    from crossray.data.sources.labels import RULE_LABELS
    from crossray.data.sources.manifest import read_manifest, write_template
    from crossray.data.sources.manifest import template as manifest_template
    from crossray.data.store import write_dataset
    from crossray.data.store.identity import identify, image_paths

    if template == Path("-"):
        sys.stdout.write(manifest_template())
        return
    if template is not None:
        write_template(template)
        console().print(f"{template} written: fill it in, then `crossray prepare manifest {template} --out FOLDER`")
        return
    if manifest is None or out is None:
        raise UserError("the manifest and --out are needed (or --template FILE.csv, which writes a table to fill in).")
    read = read_manifest(manifest, seed=seed, skip_bad=skip_bad)
    source = {
        "kind": "manifest",
        "manifest": file_digest(manifest),
        "seed": seed,
        "skip_bad": skip_bad,
        "synthetic_images": False,
        "labels": "manifest" if read.labelled else RULE_LABELS,
    }
    skipped = [{"study": f"line-{f.line}", "step": "manifest", "reason": str(f)} for f in read.faults]
    with progress_bar("reading studies") as progress:
        dataset = write_dataset(
            out, read.studies, size=size, source=source, cleaner=cleaner, workers=workers, rejected=skipped,
            progress=progress, images=identify(image_paths(read.studies), identity),
        )  # fmt: skip
    print_dataset(dataset)
