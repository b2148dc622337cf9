"""What commands print with; rich is imported when the first of them prints."""

import hashlib
from pathlib import Path
from typing import Any


def console() -> Any:
    """A console on standard output."""
    from rich.console import Console

    return Console()


def progress_bar(title: str) -> Any:
    """A progress bar on standard error, which is a callback: `bar(done, total)`."""
    from rich.console import Console

    from crossray.terminal import Progress

    return Progress(title, Console(stderr=True))


def file_digest(path: Path) -> dict[str, str]:
    """Name and digest of a source file: another file of the same name is another source."""
    with path.open("rb") as file:
        return {"name": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def print_dataset(dataset: Any) -> None:
    """Splits, patients, report lengths and what was left out."""
    from crossray.terminal import print_dataset

    print_dataset(dataset, console())


def print_source_statistics(dataset: Any) -> None:
    """What every filter of the source left, and the papers' statistics beside ours."""
    from crossray.terminal import print_source_statistics

    print_source_statistics(dataset, console())
