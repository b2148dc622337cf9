"""`crossray inspect`: summarizes a prepared dataset."""

from pathlib import Path

from crossray.pages.terminal import console, print_dataset


def inspect(data: Path, out: Path | None = None, images: int = 60, seed: int = 0) -> None:
    """Summarize a prepared dataset: counts, splits, lengths; with --out, also write labels and images to an HTML page.

    Args:
        data: folder that `crossray prepare` wrote.
        out: HTML page to write, a single file that works offline.
        images: maximum number of images on the contact sheet.
        seed: random seed for selecting the images.
    """
    from crossray.data.store import Dataset

    dataset = Dataset.open(data)
    print_dataset(dataset, console())
    if out is None:
        return
    from crossray.files.write import write_whole
    from crossray.pages.inspect_page import inspect_page

    write_whole(out, inspect_page(dataset, images, seed))
    console().print(f"page written to {out}", highlight=False)
