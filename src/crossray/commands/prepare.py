"""`crossray prepare`: a dataset on disk, once, for everything that follows."""

from pathlib import Path
from typing import Any, Literal

from crossray.commands.show import file_digest, print_dataset, progress_bar
from crossray.errors import UserError


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
    from crossray.data.dataset import write_dataset
    from crossray.data.phantom.source import like_studies, phantom_studies, tag_notes

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
    size: int = 256,
    cleaner: Literal["legacy", "legacy_mimic", "fixed", "none"] = "legacy",
    workers: int | None = None,
) -> None:
    """Prepare a dataset in R2Gen's layout: annotation.json and a folder of images.

    Args:
        annotation: R2Gen's annotation.json with the keys train, val and test.
        images: folder that the annotation's image paths are relative to.
        out: folder of the prepared dataset; an unfinished one is continued.
        size: short side of the stored images in pixels.
        cleaner: how report texts are cleaned for the statistics, and by default in training.
        workers: processes that read; 0 reads in this one; default: one a core.
    """
    from crossray.data.dataset import write_dataset
    from crossray.data.sources.r2gen import read_r2gen
    from crossray.text.observations import LABELER, LABELER_VERSION

    studies = read_r2gen(annotation, images)
    source = {
        "kind": "r2gen",
        "annotation": file_digest(annotation),
        "synthetic_images": False,
        "labels": f"{LABELER} {LABELER_VERSION}",
    }
    with progress_bar("reading studies") as progress:
        dataset = write_dataset(
            out, studies, size=size, source=source, cleaner=cleaner, workers=workers,
            progress=progress,
        )  # fmt: skip
    print_dataset(dataset)
