"""What commands print with; rich is imported when the first of them prints."""

from typing import Any


def console() -> Any:
    """A console on standard output."""
    from rich.console import Console

    return Console()


def progress_bar(title: str) -> Any:
    """A progress bar on standard error, which is a callback: `bar(done, total)`."""
    from rich.console import Console

    from crossray.pages.terminal import Progress

    return Progress(title, Console(stderr=True))


def print_dataset(dataset: Any) -> None:
    """Splits, patients, report lengths and what was left out."""
    from crossray.pages.terminal import print_dataset

    print_dataset(dataset, console())


def print_estimate(studies: Any, size: int, workers: int | None, parts: int = 1) -> None:
    """How large a source's images will be and how long they will take, measured on its first ones."""
    from crossray.data.store.estimate import estimate
    from crossray.data.store.writer import count_workers

    measured = estimate(studies, size)
    images, count = studies.images() // parts, count_workers(workers)
    line = (
        f"{len(studies)} studies, up to {images} images: {studies.stored_bytes(size) / parts / 1e9:.2f} GB at {size} px"
    )
    if measured.images:
        minutes = max(1, round(measured.seconds(len(studies) // parts, images, count) / 60))
        duration = f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
        rate = 1 / measured.seconds_an_image
        line += f", about {duration} with {max(count, 1)} processes ({rate:.0f} images/s in one, measured on the "
        line += f"first {measured.images})"
    console().print(line, highlight=False)


def print_source_statistics(dataset: Any) -> None:
    """What every filter of the source left, and the papers' statistics beside ours."""
    from crossray.pages.terminal import print_source_statistics

    print_source_statistics(dataset, console())
