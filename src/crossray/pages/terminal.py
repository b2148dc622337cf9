"""Terminal output of the commands: progress bars and small tables.

rich and other heavy modules are imported on first use, so commands can import this file and `crossray --help` stays
fast.
"""

from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from crossray.errors import counted

if TYPE_CHECKING:
    from rich.console import Console

    from crossray.data.store import Dataset

#: Maximum number of unknown headings listed by `prepare`.
MOST_HEADINGS = 8


def console(*, stderr: bool = False) -> "Console":
    """A console on standard output, or error, on which names and reports with brackets or colons are plain text."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False)


def progress_bar(title: str) -> "Progress":
    """A progress bar on standard error, to be used as a callback: `bar(done, total)`."""
    return Progress(title, console(stderr=True))


class Progress:
    """A progress bar to be used as a callback: `progress(done, total)`.

    Example:
        >>> from rich.console import Console
        >>> with Progress("drawing studies", Console(quiet=True)) as progress:
        ...     progress(1, 10)
    """

    def __init__(self, title: str, console: "Console") -> None:
        """Create a bar on `console`, preceded by `title`."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        from crossray.training.heartbeat import Heartbeat

        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("·"),
            TimeRemainingColumn(), console=console,
        )  # fmt: skip
        self._task = self._bar.add_task(title, total=None)
        self._beat = Heartbeat(title, console)

    def __enter__(self) -> Self:
        return self  # the bar appears on the first call, so an earlier error is printed without one

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._beat.end()

    def __call__(self, done: int, total: int) -> None:
        """Update the bar: `done` of `total` are finished."""
        self._bar.start()
        self._bar.update(self._task, completed=done, total=total)
        self._beat(done, total)


def print_dataset(dataset: "Dataset", console: "Console") -> None:
    """Print studies, patients and report length of each split, and what was omitted."""
    from rich.table import Table

    info = dataset.info
    table = Table(title=f"{dataset.path}: {info.source['kind']}, short side {info.size} px")
    for heading in ("split", "studies", "patients", "words per report"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for split in ("train", "val", "test"):
        if studies := info.counts["studies"].get(split, 0):
            length = info.average_length.get(split, 0.0)
            table.add_row(split, str(studies), str(info.patients.get(split, 0)), f"{length:.1f}")
    console.print(table)
    counts = info.counts
    console.print(
        f"{counted(counts['read'], 'study')} read, {counts['studies']['all']} kept with "
        f"{counted(counts['images']['all'], 'image')}"
    )
    if counts["studies"].get("train") and not counts["studies"].get("val"):
        console.print("no studies in split val: training needs some to choose the best model", style="yellow")
    for reason, number in counts["rejected"].items():
        console.print(f"{number} rejected: {reason} (see rejected.jsonl)", style="yellow")
    for field, number in counts.get("warnings", {}).items():
        images = counted(number, "image")
        console.print(f"{images} with a warning: {field} (`crossray inspect` lists them)", style="yellow")
    if number := counts.get("patients_in_several_splits"):
        patients = counted(number, "patient is", "patients are")
        console.print(
            f"{patients} in two splits or more: their scores do not test generalization",
            style="yellow",
            soft_wrap=True,
        )
    for line in text_notes(dataset):
        console.print(line, style="yellow", highlight=False)
    if info.source.get("synthetic_images"):
        console.print("The images are synthetic: drawn, not radiographs.", style="yellow")


def text_notes(dataset: "Dataset") -> list[str]:
    """Notes on text that is not used: words outside the sections, unknown headings, addenda, other languages."""
    from crossray.text.observations import language_notes, report_language

    extras = list(dataset.extras())
    unread = [extra["unread"] for extra in extras if "unread" in extra]
    notes = []
    if unread:
        words = sum(entry["words"] for entry in unread)
        notes.append(f"{counted(words, 'word')} of {counted(len(unread), 'report')} are outside the stored sections")
        names = Counter(name for entry in unread for name in entry["headings"])
        if names:
            shown = ", ".join(f"{name} ({count})" for name, count in names.most_common(MOST_HEADINGS))
            notes.append(f"unknown headings, most frequent first: {shown}")
    addenda = [extra["addendum"] for extra in extras if "addendum" in extra]
    if addenda:
        words = counted(sum(len(text.split()) for text in addenda), "word")
        notes.append(f"{words} of {counted(len(addenda), 'addendum', 'addenda')} are stored beside the sections")
    if not dataset.info.source.get("synthetic_images"):
        rows = range(dataset.studies)
        notes += language_notes(Counter(map(report_language, dataset.reports(rows))))
    return notes


def print_estimate(studies: Any, size: int, workers: int | None, console: "Console", *, parts: int = 1) -> None:
    """Print the estimated size and processing time of a source's images, measured on the first ones."""
    from crossray.data.store.estimate import estimate
    from crossray.data.store.writer import count_workers

    measured = estimate(studies, size)
    images, count = studies.images() // parts, count_workers(workers)
    gigabytes = studies.stored_bytes(size) / parts / 1e9
    line = f"{counted(len(studies), 'study')}, up to {counted(images, 'image')}: {gigabytes:.2f} GB at {size} px"
    if measured.images:
        minutes = max(1, round(measured.seconds(len(studies) // parts, images, count) / 60))
        duration = f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
        rate = 1 / measured.seconds_an_image
        line += (
            f", about {duration} with {counted(max(count, 1), 'process')} ({rate:.0f} images/s in one, measured on the "
        )
        line += f"first {measured.images})"
    console.print(line, highlight=False)


def print_source_statistics(dataset: "Dataset", console: "Console") -> None:
    """Print what remains after each filter of the source, and the papers' statistics next to those of this dataset."""
    from rich.table import Table

    info = dataset.info
    steps = Table(title="filter steps")
    for heading in ("after", "reports", "images"):
        steps.add_column(heading, justify="left" if heading == "after" else "right")
    for step in info.notes["filter_steps"]:
        steps.add_row(step["step"], str(step["reports"]), str(step["images"]))
    console.print(steps)
    for name, count in info.notes.items():
        if isinstance(count, int):
            console.print(f"{name.replace('_', ' ')}: {count}", highlight=False)
    if "paper_statistics" not in info.notes:
        return
    table = Table(title="the papers count the raw collection; ours is the filtered one")
    for heading in ("split", "images", "reports", "patients", "average length"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for split, (images, reports, patients, length) in info.notes["paper_statistics"].items():
        ours = (info.counts[kind].get(split, 0) for kind in ("images", "studies"))
        table.add_row(f"{split}, papers", str(images), str(reports), str(patients), f"{length:.2f}")
        table.add_row(
            f"{split}, ours", *map(str, ours), str(info.patients.get(split, 0)),
            f"{info.average_length.get(split, 0.0):.2f}",
        )  # fmt: skip
    console.print(table)


def print_models(console: "Console") -> None:
    """Print the systems: parameters at the default size, recipes, and prerequisites."""
    from rich.table import Table

    from crossray.models.sizes import sizes
    from crossray.training.recipe_files import own_recipes

    found, recipes = sizes(), own_recipes()
    systems = {recipe.split("/")[0] for recipe in recipes}
    if not systems.issuperset(found):  # of other packages
        from crossray.training.recipe import list_recipes

        recipes = list_recipes()
    table = Table(title="systems")
    for heading in ("system", "parameters", "frozen", "recipes", "description"):
        table.add_column(heading, justify="right" if heading in {"parameters", "frozen"} else "left")
    for name, size in found.items():
        own = [recipe.split("/")[1] for recipe in recipes if recipe.startswith(f"{name}/")]
        table.add_row(
            name, f"{size.parameters / 1e6:.1f} M", f"{size.frozen / 1e6:.1f} M", ", ".join(own), size.summary
        )
    console.print(table)
    console.print(
        "Every system starts from a prepared dataset; an image encoder comes from `crossray pretrain vision`,"
    )
    console.print("from a folder or hub name (--model.backbone.name), or is trained with the system.")
