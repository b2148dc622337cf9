"""`crossray index`: the training reports that a model retrieves from."""

from pathlib import Path
from typing import Literal

from crossray.errors import UserError, counted
from crossray.files.names import views_of
from crossray.pages.terminal import console


def index_build(model: Path, data: Path, store_reports: bool = False, device: str = "auto") -> None:
    """Rebuild the retrieval index of a trained model from the training studies of a dataset.

    Args:
        model: folder of a revtaf model, or of its training run (the best model is taken).
        data: prepared dataset whose training reports become the index.
        store_reports: store the texts of the reports in the model folder, so that queries can show them.
        device: auto (a GPU if there is one), cpu, cuda or cuda:1.
    """
    from crossray.data.store import Dataset
    from crossray.generation.index import build_index

    count = build_index(model, Dataset.open(data), store_reports=store_reports, device=device)
    console().print(f"{counted(count, 'training report')} in the index of {model}", highlight=False)


def index_query(
    images: list[str],
    model: Path,
    data: Path | None = None,
    split: Literal["train", "val", "test"] = "test",
    k: int = 3,
    reports: bool = False,
    device: str = "auto",
) -> None:
    """Print the training studies that a model retrieves for images or for a split, with their distances.

    Args:
        images: one study per argument: PNG, JPEG or DICOM files, the views of a study separated by commas
            (frontal.png,lateral.png), or a folder with the views of one study.
        model: folder of a revtaf model, or of its training run (the best model is taken).
        data: prepared dataset, instead of images.
        split: split of --data.
        k: number of training studies per query.
        reports: also print their reports, which are patient data; requires an index with reports.
        device: auto (a GPU if there is one), cpu, cuda or cuda:1.
    """
    from rich.table import Table

    from crossray.data.store import Dataset
    from crossray.generation.generator import Generator
    from crossray.generation.index import query_dataset, query_files, retrieving

    if bool(images) == (data is not None):
        raise UserError("give either image files or --data FOLDER.")
    if k < 1:
        raise UserError(f"--k is {k}; it must be at least 1.")
    generator = Generator.from_pretrained(model, device=device)
    found = retrieving(generator, model)
    if reports and not found.database.texts:
        raise UserError(
            f"{model}: the index does not contain the reports; run `crossray index build` with --store-reports first."
        )
    table = Table(*["study", "nearest", "distance", *(["report"] if reports else [])])
    if data is None:
        studies = [views_of(study) for study in images]
        results = query_files(generator, found, studies, k)
    else:
        results = query_dataset(generator, found, Dataset.open(data), split, k)
    for name, neighbours in results:
        for place, near in enumerate(neighbours):
            cells = [name if place == 0 else "", near.study, f"{near.distance:.4f}"]
            table.add_row(*cells, *([near.report] if reports else []))
    console().print(table, crop=False)
