"""The page of `crossray inspect`: counts, lengths, labels, and a contact sheet of a prepared dataset."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crossray.data.store import Dataset
from crossray.data.study import SPLITS
from crossray.errors import UserError, counted
from crossray.pages import page
from crossray.text.cleaning import clean
from crossray.text.observations import STATUSES

if TYPE_CHECKING:
    from markupsafe import Markup

#: Longer side of an image on the contact sheet, in pixels.
LONGEST = 160

#: Percentiles of the report length.
_QUANTILES = (0, 25, 50, 75, 95, 100)


def inspect_page(dataset: Dataset, images: int = 60, seed: int = 0) -> str:
    """Build the page as self-contained HTML.

    Args:
        dataset: a prepared dataset.
        images: maximum number of views on the contact sheet; whole studies are drawn at random from all splits.
        seed: seed of the random choice.

    Raises:
        UserError: `images` or `seed` is negative.
    """
    if images < 0 or seed < 0:
        raise UserError(f"images {images}, seed {seed}: must not be negative; give numbers from 0 on")
    info = dataset.info
    return page.document(
        "inspect.html",
        f"Dataset {dataset.path.resolve().name}",
        style="inspect.css",
        kind=info.source.get("kind", "unknown"),
        info=info,
        synthetic=bool(info.source.get("synthetic_images")),
        splits=_splits(dataset),
        left_out=_left_out(dataset),
        papers=_papers(dataset) if "paper_statistics" in info.notes else "",
        lengths=_lengths(dataset),
        positions=_positions(dataset),
        warnings=_warnings(dataset),
        labels=_labels(dataset),
        figures=_sheet(dataset, images, seed),
        views=dataset.images,
    )


def _members(dataset: Dataset) -> dict[str, NDArray[np.int64]]:
    """Rows of each nonempty split, and of all splits."""
    counts = dataset.info.counts["studies"]
    members: dict[str, NDArray[np.int64]] = {split: dataset.rows(split) for split in SPLITS if counts.get(split)}
    members["all"] = np.arange(dataset.studies)
    return members


def _splits(dataset: Dataset) -> "Markup":
    info = dataset.info
    rows = [
        (
            split,
            str(len(rows)),
            str(info.counts["images"][split]),
            str(info.patients[split]),
            f"{info.average_length[split]:.2f}",
            f"{len(set(dataset.reports(rows))) / len(rows):.1%}",
        )
        for split, rows in _members(dataset).items()
    ]
    headings = ("split", "studies", "images", "patients", "words per report", "distinct reports")
    return page.table(headings, rows, caption="Counts of the prepared dataset")


def _left_out(dataset: Dataset) -> "Markup":
    counts = dataset.info.counts
    rows = [("studies read", str(counts["read"]))]
    rows += [(f"rejected: {step}", str(count)) for step, count in counts["rejected"].items()]
    rows += [
        (f"source: {step['step']}", f"{counted(step['reports'], 'report')}, {counted(step['images'], 'image')}")
        for step in dataset.info.notes.get("filter_steps", ())
    ]
    rows += [
        (f"source: {name.replace('_', ' ')}", str(count))
        for name, count in dataset.info.notes.items()
        if isinstance(count, int)
    ]
    return page.table(("step", "count"), rows, caption="Filter steps; rejected.jsonl names every rejected study")


def _papers(dataset: Dataset) -> "Markup":
    """Table 2 of the papers, which count the raw collection, next to the counts of this dataset."""
    info = dataset.info
    rows: list[tuple[str, ...]] = []
    for split, (images, reports, patients, length) in info.notes["paper_statistics"].items():
        ours = (info.counts["images"], info.counts["studies"], info.patients)
        rows.append((f"{split}, papers", str(images), str(reports), str(patients), f"{length:.2f}"))
        counts = (str(kind.get(split, 0)) for kind in ours)
        rows.append((f"{split}, ours", *counts, f"{info.average_length.get(split, 0):.2f}"))
    headings = ("split", "images", "reports", "patients", "average length")
    return page.table(headings, rows, caption="The papers count the raw collection before any filter")


def _lengths(dataset: Dataset) -> "Markup":
    rows = []
    for split, members in _members(dataset).items():
        words = [len(clean(report, dataset.info.cleaner).split()) for report in dataset.reports(members)]
        rows.append((split, *(f"{value:.0f}" for value in np.percentile(words, _QUANTILES))))
    headings = ("split", *(f"{quantile} %" for quantile in _QUANTILES))
    return page.table(headings, rows, caption="Words in the cleaned findings: percentiles over the reports")


def _positions(dataset: Dataset) -> "Markup":
    first = dataset.first_image
    views = np.diff(first)
    rows = [
        (f"studies with {counted(count, 'view')}", str(int((views == count).sum())))
        for count in np.unique(views).tolist()
    ]
    names, counts = np.unique([p for row in range(dataset.studies) for p in dataset.record(row).positions],
                              return_counts=True)  # fmt: skip
    rows += [(f"images: {name}", str(count)) for name, count in zip(names, counts, strict=True)]
    return page.table(("what", "count"), rows, caption="Views")


def _warnings(dataset: Dataset) -> "Markup | str":
    """Each warning with the number of images that have it, and the first such study."""
    counts: dict[str, int] = {}
    first: dict[str, str] = {}
    for row in range(dataset.studies):
        for view in dataset.views(row):
            for text in dataset.warnings(view):
                counts[text] = counts.get(text, 0) + 1
                first.setdefault(text, dataset.ids([row])[0])
    if not counts:
        return ""
    rows = [(text, str(counts[text]), first[text]) for text in sorted(counts, key=lambda text: -counts[text])]
    return page.table(("warning", "images", "first in study"), rows, caption="Warnings about image files")


def _labels(dataset: Dataset) -> "Markup | str":
    labels = dataset.labels
    if labels is None:
        return ""
    rows = [
        (name.replace("_", " "), *(str(int((labels[:, column] == code).sum())) for code in range(len(STATUSES))))
        for column, name in enumerate(dataset.info.observations)
    ]
    origin = str(dataset.info.source.get("labels", "the source"))
    return page.table(("observation", *STATUSES), rows, caption=f"Studies by status; labels of {origin}")


def _sheet(dataset: Dataset, images: int, seed: int) -> list[dict[str, Any]]:
    """Whole studies in random order, until the sheet is full."""
    figures: list[dict[str, Any]] = []
    for row in np.random.default_rng(seed).permutation(dataset.studies):
        views = dataset.views(int(row))
        if len(figures) + len(views) > images:
            break
        record = dataset.record(int(row))
        for view, position in zip(views, record.positions, strict=True):
            caption = f"{record.id}, {record.split}, {position}"
            picture = page.image(dataset.image(view), caption, LONGEST)
            figures.append({"image": picture, "caption": caption})
    return figures
