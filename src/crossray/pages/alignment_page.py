"""The output of `crossray analyze alignment`: tables, figures, and a page with retrieved studies."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossray.analysis.agreement import Agreement, marks_of_generated
from crossray.analysis.alignment import RECALL_AT, Alignment, best_ranks
from crossray.analysis.gram import Gram
from crossray.analysis.results import as_json
from crossray.data.store import Dataset
from crossray.errors import counted
from crossray.files.write import write_whole
from crossray.pages import page
from crossray.pages.alignment_figures import Picture, available, figures
from crossray.pages.marks import marked_text
from crossray.pages.study_images import StudyImages
from crossray.pages.tables import Grid
from crossray.text.observations import label_report

if TYPE_CHECKING:
    from rich.console import Console

PAGE, SCORES = "index.html", "alignment.json"

#: Spread of the cosines (float32) below which they count as equal up to rounding.
ALL_ALIKE = 1e-5

#: Number of reports or images shown per query.
RETRIEVED = 3

NO_FIGURES = "No figures, because matplotlib is not installed; run pip install 'crossray[figures]'."

_MARKS = "Marks in retrieved reports: ✓ the study's own report states it too; ✗, ○ it denies or does not state it."

_QUERIES = {"report": "image to report", "image": "report to image"}


def print_alignments(found: Sequence[Alignment], console: "Console") -> None:
    """Print the tables."""
    for grid in grids(found):
        console.print()
        console.print(grid.render(), crop=False)
    for sentence in warnings(found):
        console.print(sentence, highlight=False)
    if not available():
        console.print(NO_FIGURES, highlight=False)


def warnings(found: Sequence[Alignment]) -> list[str]:
    """A sentence for each model whose cosines are all equal."""
    return [
        f"{one.name}: all cosines are equal up to {one.scores.spread:.1g}, so score and ranks only reflect rounding."
        for one in found
        if one.scores.spread < ALL_ALIKE
    ]


def grids(found: Sequence[Alignment]) -> list[Grid]:
    """Scores, retrieval, and the Gram matrices of the memories, if there are any."""
    studies = f"{counted(len(found[0].ids), 'study')} of the {found[0].split} split"
    scores = [
        [
            one.name,
            *(f"{share:.1%}" for share in (one.scores.aligned, one.scores.aligned_common, one.scores.aligned_any)),
            f"{one.scores.own:.3f}",
            f"{one.scores.other:.3f}",
            f"{one.scores.spread:.2g}",
        ]
        for one in found
    ]
    header = ["", "alignment score", "common scale", "all pairs", "cosine own report", "cosine other", "spread"]
    tables = [Grid(f"alignment: {studies}", header, scores), _retrieval_grid(found, studies)]
    memories = [[f"{one.name}, {title}", *_gram_cells(gram)] for one in found for title, gram in one.grams.items()]
    if memories:
        header = ["", "rows", "width", "mean length", "mean |cosine|", "random rows", "rms", "least rms", "rank"]
        tables.append(Grid("orthogonality of memories (rank: effective, by entropy)", header, memories))
    return tables


def write_alignments(found: Sequence[Alignment], dataset: Dataset, folder: Path, *, examples: int = 3) -> str:
    """Write the scores, the figures and the page to a folder.

    Args:
        found: models on the same split.
        dataset: dataset with the studies.
        folder: folder to create; existing files of the same names are replaced.
        examples: number of studies to show with their retrieved reports and images.

    Returns:
        Name of the page.

    Raises:
        UserError: the folder cannot be written.
    """
    pictures = figures(found) if available() else []
    for picture in pictures:
        write_whole(folder / picture.name, picture.png)
    first = found[0]
    write_whole(folder / SCORES, as_json(_models(found), dataset, first.split, studies=len(first.ids)))
    write_whole(folder / PAGE, _page(found, dataset, pictures, examples))
    return PAGE


def _retrieval_grid(found: Sequence[Alignment], studies: str) -> Grid:
    lines = []
    for direction, query in _QUERIES.items():
        for one in found:
            result = one.retrieval[direction]
            recalls = [
                f"{value.value:.1%} [{100 * value.low:.1f}, {100 * value.high:.1f}]" for value in result.recall.values()
            ]
            lines.append([f"{query}: {one.name}", *recalls, f"{result.median_rank:g}"])
        expected = found[0].retrieval[direction].chance
        recalls = [f"{expected[f'recall@{k}']:.1%}" for k in RECALL_AT]
        lines.append([f"{query}: chance", *recalls, f"{expected['median_rank']:g}"])
    header = ["", *(f"recall@{k}" for k in RECALL_AT), "median rank"]
    return Grid(f"retrieval: {studies}; equal reports count as hits", header, lines)


def _gram_cells(gram: Gram) -> list[str]:
    values = (gram.lengths, gram.cosine, gram.random, gram.rms, gram.least)
    return [str(gram.rows), str(gram.width), *(f"{value:.3f}" for value in values), f"{gram.effective_rank:.0f}"]


def _models(found: Sequence[Alignment]) -> dict[str, Any]:
    return {
        one.name: {
            "system": one.system,
            "scores": asdict(one.scores),
            "retrieval": {direction: asdict(result) for direction, result in one.retrieval.items()},
            "memories": {
                title: {name: value for name, value in vars(gram).items() if not isinstance(value, np.ndarray)}
                for title, gram in one.grams.items()
            },
        }
        for one in found
    }


def _page(found: Sequence[Alignment], dataset: Dataset, pictures: Sequence[Picture], examples: int) -> str:
    images = StudyImages(dataset)
    chosen = np.unique(np.linspace(0, len(found[0].ids) - 1, examples).round().astype(int)).tolist() if examples else []
    return page.document(
        "alignment.html",
        f"Alignment of images and reports: {', '.join(one.name for one in found)}",
        style="alignment.css",
        notice=f"{page.SYNTHETIC} {page.RESEARCH}" if images.synthetic else page.RESEARCH,
        tables=[page.table(grid.header, grid.lines, caption=grid.title) for grid in grids(found)],
        warnings=warnings(found),
        pictures=[(page.png(picture.png, picture.caption), picture.caption) for picture in pictures],
        no_figures=NO_FIGURES,
        marks=_MARKS,
        examples=[_example(found, place, images) for place in chosen],
    )


def _example(found: Sequence[Alignment], place: int, images: StudyImages) -> dict[str, Any]:
    """A study as a query: its image for reports and its report for images (UAR, Fig. 3)."""
    study = found[0].ids[place]
    models = [{"name": one.name, **_reports(one, place), "images": _images(one, place, images)} for one in found]
    return {
        "id": study,
        "views": images.views(study),
        "report": marked_text(found[0].reports[place], []),
        "models": models,
    }


def _reports(one: Alignment, place: int) -> dict[str, Any]:
    """The reports most similar to an image, and the rank of its own report."""
    same = np.array([report == one.reports[place] for report in one.reports])
    row = one.similarity[place]
    true = label_report(one.reports[place])
    # equal reports are listed once
    most_similar = {one.reports[index]: int(index) for index in np.argsort(row, kind="stable")}
    best = sorted(most_similar.values(), key=lambda index: -row[index])[:RETRIEVED]
    ranked = []
    for index in best:
        labels = label_report(one.reports[index])
        text = marked_text(one.reports[index], marks_of_generated(labels, Agreement.between(true, labels)))
        ranked.append({"hit": bool(same[index]), "cosine": f"{row[index]:.4f}", "text": text})
    rank = int(best_ranks(row[None], same[None])[0])
    own = f"Its own report: rank {rank} of {len(row)}, cosine {row[same].max():.4f}."
    return {"reports": ranked, "own": own}


def _images(one: Alignment, place: int, images: StudyImages) -> list[dict[str, Any]]:
    """The images most similar to a report."""
    column = one.similarity[:, place]
    ranked = []
    for index in np.argsort(-column, kind="stable")[:RETRIEVED].tolist():
        hit = " (equal report)" if one.reports[index] == one.reports[place] else ""
        ranked.append({"view": images.views(one.ids[index])[:1], "caption": f"{column[index]:.4f}{hit}"})
    return ranked
