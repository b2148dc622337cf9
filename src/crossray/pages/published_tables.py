"""Published tables with our results below them, and sentences on the differences between the protocols."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.evaluation.metrics.meteor import METRIC as METEOR
from crossray.evaluation.published import DATA, PublishedProtocol, PublishedTable, for_data
from crossray.evaluation.results import Evaluation, Result
from crossray.pages.tables import Grid

if TYPE_CHECKING:
    from rich.console import Console

#: Column headings by metric of a published table.
HEADINGS = {
    "seconds": "s",
    "bleu1": "BLEU-1",
    "bleu2": "BLEU-2",
    "bleu3": "BLEU-3",
    "bleu4": "BLEU-4",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    "ce_precision": "P",
    "ce_recall": "R",
    "ce_f1": "F1",
    "avg": "Avg",
}

#: Our names of published metrics, where they differ.
_OUR_NAMES = {"meteor": METEOR}


@dataclass(frozen=True)
class Comparison:
    """A published table with our results below it.

    Attributes:
        grid: the table; implausible published values have a question mark.
        sentences: remarks for the reader.
    """

    grid: Grid
    sentences: tuple[str, ...]


def compare_with_published(
    evaluation: Evaluation, data: str, *, dataset: Dataset | Path | str | None = None
) -> Iterator[Comparison]:
    """Compare our scores with each published table of a dataset.

    The published tables have the protocol `r2gen` or a similar one; our scores under `full` are in a separate line.

    Args:
        evaluation: evaluation of one system.
        data: "iu-xray" or "mimic-cxr".
        dataset: prepared dataset of the predictions; by default, the one named in them.

    Raises:
        UserError: the dataset does not exist.
    """
    ours = [part.result for part in evaluation.protocols.values()]
    drawn = has_drawn_images(dataset or evaluation.provenance.data)
    for theirs in for_data(data):
        yield Comparison(
            published_grid(theirs, ours, evaluation.seconds),
            (*remarks(theirs), *differences(ours[0], theirs, drawn=drawn)),
        )


def print_published(
    evaluation: Evaluation, data: str, console: "Console", *, dataset: Dataset | Path | str | None = None
) -> None:
    """Print `compare_with_published`."""
    for comparison in compare_with_published(evaluation, data, dataset=dataset):
        console.print(comparison.grid.render(), crop=False)
        for sentence in comparison.sentences:
            console.print(f"- {sentence}", highlight=False)
        console.print()


def published_page(evaluation: Evaluation, data: str, *, dataset: Dataset | Path | str | None = None) -> str:
    """The output of `print_published` as Markdown."""
    blocks = []
    for comparison in compare_with_published(evaluation, data, dataset=dataset):
        sentences = "".join(f"- {sentence}\n" for sentence in comparison.sentences)
        blocks.append(f"{comparison.grid.markdown()}\n{sentences}")
    return "\n".join(blocks)


def published_grid(theirs: PublishedTable, ours: Sequence[Result] = (), seconds: float | None = None) -> Grid:
    """A published table with results of one system below, each named by its protocol.

    Args:
        theirs: the table.
        ours: results of one system.
        seconds: time per report of this system; None if unknown.
    """
    shown = theirs.metrics()
    lines = []
    for row in theirs.rows:
        cells = [_number(name, row.values.get(name)) + ("?" if name in row.flags else "") for name in shown]
        lines.append([f"{row.name} (own)" if row.own else row.name, *cells])
    for result in ours:
        values = {name: score.value for name, score in result.scores.items()}
        if seconds is not None:
            values["seconds"] = seconds
        cells = [_number(name, values.get(_OUR_NAMES.get(name, name))) for name in shown]
        lines.append([f"ours, {result.protocol.name}", *cells])
    title = f"{theirs.title} ({theirs.identifier}: {theirs.section})"
    return Grid(title, ["", *(HEADINGS[name] for name in shown)], lines)


def remarks(theirs: PublishedTable) -> list[str]:
    """Remarks on a published table, its lines and its doubtful values."""
    lines = [theirs.note] if theirs.note else []
    for row in theirs.rows:
        if row.note:
            lines.append(f"{row.name}: {row.note}.")
        for reason in dict.fromkeys(row.flags.values()):
            metrics = ", ".join(HEADINGS[metric] for metric in HEADINGS if row.flags.get(metric) == reason)
            lines.append(f"{row.name}, {metrics}: {reason}.")
    return lines


def differences(ours: Result, theirs: PublishedTable, *, drawn: bool | None) -> list[str]:
    """Sentences on the differences between our result and a published table.

    Args:
        ours: the result of our system, under protocol `r2gen` if available.
        theirs: the table.
        drawn: whether our images are synthetic; None if unknown.
    """
    protocol, published = ours.protocol, theirs.protocol
    data = DATA.get(theirs.data, theirs.data)
    lines = []
    if drawn:
        lines.append("Images: ours are drawn, theirs are radiographs; our scores say nothing about real images.")
    elif drawn is None:
        lines.append("Images: whether ours are radiographs is unknown, because their dataset is; theirs are.")
    if published.trained_on is not None and published.trained_on != theirs.data:
        trained = DATA[published.trained_on]
        lines.append(f"Training: theirs was trained on {trained} and applied to {data} without training on it.")
    lines.append(_studies(ours, published))
    lines.append(_references(ours, published))
    if published.section is not None and published.section != protocol.section:
        lines.append(f"Section: ours is {protocol.section}, theirs {published.section}.")
    if published.cleaner is not None and published.cleaner != protocol.cleaner:
        lines.append(f"Cleaner: ours is {protocol.cleaner}, theirs {published.cleaner}.")
    if published.views is not None and published.views != protocol.views:
        lines.append(f"Views of a study: ours {protocol.views or 'unknown'}, theirs {published.views}.")
    if "meteor" in theirs.metrics() and METEOR in ours.scores and published.meteor is not None:
        lines.append(f"METEOR: ours is the METEOR 1.5 jar, theirs: {published.meteor}.")
    labeler = published.labeler
    if labeler is not None and protocol.labeler and labeler.casefold() not in protocol.labeler.casefold():
        lines.append(
            f"Labeler behind P, R and F1: ours is {protocol.labeler}, theirs {labeler}; "
            "another labeler gives other numbers for the same reports."
        )
    unsaid = [
        words
        for words, value in (
            ("the section", published.section),
            ("the cleaner", published.cleaner),
            ("the views", published.views),
            ("the selection of the checkpoint", published.selection),
        )
        if value is None
    ]
    if unsaid:
        lines.append(f"Not said by the source: {', '.join(unsaid)}.")
    return [*lines, *(f"{note[0].upper()}{note[1:]}." for note in published.notes)]


def has_drawn_images(dataset: Dataset | Path | str | None) -> bool | None:
    """Whether a prepared dataset's images are synthetic; None if the dataset does not exist."""
    if dataset is None:
        return None
    try:
        return bool(Dataset.open(dataset).info.source.get("synthetic_images", False))
    except UserError:
        return None


def _studies(ours: Result, published: PublishedProtocol) -> str:
    chosen = " chosen" if ours.protocol.subset else ""
    split = f"{chosen} of split {ours.protocol.split}" if ours.protocol.split else chosen
    theirs = "an unknown number" if published.studies is None else f"{published.studies:,}"
    where = "" if published.split is None else f" ({published.split})"
    return f"Studies: ours {ours.studies:,}{split}, theirs {theirs}{where}."


def _references(ours: Result, published: PublishedProtocol) -> str:
    length = ours.protocol.max_length
    if ours.protocol.name == "full":
        mine = "ours are whole"
    else:
        cut = "" if length is None else f" and truncated to {length - 1}"
        mine = f"ours are decoded from the model's tokens{cut}"
    if published.max_length is not None:
        theirs = f"theirs are decoded from the model's tokens and truncated to {published.max_length - 1}"
    elif published.max_words is not None:
        theirs = f"theirs are truncated to {published.max_words} words, without <unk>"
    else:
        theirs = "the source does not say whether theirs are truncated"
    return f"References: {mine}; {theirs}."


def _number(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if metric == "seconds" else f"{value:.3f}"
