"""`crossray analyze`: image-text alignment, attention, retrieval, module effects, and rare observations."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crossray.errors import UserError
from crossray.pages.terminal import console, progress_bar

if TYPE_CHECKING:
    from crossray.analysis.liveness import Measured


def analyze_alignment(
    model: list[str],
    data: Path,
    out: Path,
    split: Literal["train", "val", "test"] = "test",
    batch_size: int = 16,
    examples: int = 3,
    device: str = "auto",
) -> None:
    """Measure how well models align images with reports: alignment score, similarities, retrieval, memories.

    Args:
        model: model folder, or the folder of a training run (its best model is taken); repeat it to compare several.
        data: prepared dataset.
        out: folder to write: alignment.json, index.html, and figures where matplotlib is installed.
        split: split of --data.
        batch_size: studies per batch.
        examples: number of studies to show with their retrieved reports.
        device: auto (a GPU if there is one), cpu, cuda or cuda:1.
    """
    from crossray.analysis.alignment import align
    from crossray.data.store import Dataset
    from crossray.pages.alignment_page import print_alignments, write_alignments

    dataset = Dataset.open(data)
    found = []
    for name, generator, progress in _each(model, device, "embedding studies"):
        found.append(
            align(
                generator.model, dataset, split, name=name, section=generator.section, batch_size=batch_size,
                progress=progress,
            )
        )  # fmt: skip
    written = write_alignments(found, dataset, out, examples=examples)
    print_alignments(found, console())
    console().print(f"{out / written}", highlight=False)


def analyze_grounding(
    model: list[str],
    data: Path,
    out: Path,
    split: Literal["train", "val", "test"] = "test",
    batch_size: int = 16,
    resamples: int = 1000,
    device: str = "auto",
) -> None:
    """Score attention against the drawn findings of a phantom dataset by pointing game and attention mass.

    Args:
        model: model folder, or the folder of a training run (its best model is taken); repeat it to compare several.
        data: dataset from `crossray prepare phantom`.
        out: JSON file to write.
        split: split of --data.
        batch_size: studies per batch.
        resamples: number of bootstrap resamples over studies, for the intervals.
        device: auto (a GPU if there is one), cpu, cuda or cuda:1.
    """
    from crossray.analysis.grounding_targets import ground
    from crossray.data.store import Dataset
    from crossray.pages.grounding_table import print_grounding, save_grounding

    dataset = Dataset.open(data)
    results = {}
    for name, generator, progress in _each(model, device, "writing reports"):
        results[name] = ground(
            generator.model, generator.decoding, dataset, split, batch_size=batch_size, resamples=resamples,
            progress=progress,
        )  # fmt: skip
    save_grounding(results, dataset, split, out)
    for name, result in results.items():
        print_grounding(name, result, console())
    console().print(f"{out}", highlight=False)


def analyze_retrieval(
    model: list[str],
    data: Path,
    out: Path,
    split: Literal["val", "test"] = "test",
    batch_size: int = 16,
    resamples: int = 1000,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Score the training reports that models retrieve, by labels and words, against other retrieval methods.

    Args:
        model: folder of a revtaf model, or of its training run (the best model is taken); repeat it for several.
        data: prepared dataset that the model's index was built from.
        out: JSON file to write.
        split: split of --data.
        batch_size: studies per batch.
        resamples: number of bootstrap resamples over studies, for the intervals.
        seed: random seed.
        device: auto (a GPU if there is one), cpu, cuda or cuda:1.
    """
    from crossray.analysis.retrieval import retrieval_quality
    from crossray.data.store import Dataset
    from crossray.generation.index import retrieving
    from crossray.pages.retrieval_table import print_retrieval, save_retrieval

    dataset = Dataset.open(data)
    results = {}
    for name, generator, progress in _each(model, device, "retrieving"):
        results[name] = retrieval_quality(
            retrieving(generator, name), dataset, split, section=generator.section, batch_size=batch_size,
            resamples=resamples, seed=seed, progress=progress,
        )  # fmt: skip
    save_retrieval(results, dataset, split, out)
    for name, ways in results.items():
        print_retrieval(name, ways, console())
    console().print(f"{out}", highlight=False)


def analyze_long_tail(
    predictions: list[str],
    labeler: str = "rules",
    out: Path | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> None:
    """Report the F1 of every observation from frequent to rare, with means over head, middle and tail.

    Args:
        predictions: JSON lines files of one or more systems on the same studies; the other systems are compared with
            the first. Separate the files of one system's seeds by commas (seed-0.jsonl,seed-1.jsonl).
        labeler: labeler of the observations: rules, or a folder that `crossray convert` wrote.
        out: also write a page with chart and tables to this HTML file.
        resamples: number of bootstrap resamples over studies, for the intervals.
        seed: random seed.
    """
    from crossray.analysis.long_tail import long_tail
    from crossray.evaluation.predictions import PredictionFile
    from crossray.pages.long_tail_page import grids, write_page

    if not all(runs.strip(", ") for runs in predictions):
        raise UserError("predictions: an argument is empty; give a predictions file for every system.")
    systems = [[PredictionFile.load(Path(path)) for path in runs.split(",") if path] for runs in predictions]
    found = long_tail(systems, labeler=labeler, resamples=resamples, seed=seed)
    for grid in grids(found):
        console().print(grid.render(), crop=False)
        console().print()
    if out is not None:
        write_page(found, out)
        console().print(f"{out}", highlight=False)


def analyze_liveness(
    recipe: list[str] | None = None,
    model: list[str] | None = None,
    data: Path | None = None,
    split: str = "val",
    out: Path | None = None,
) -> None:
    """Measure how much each module of a paper changes the results.

    Without `--model`, systems are measured at initialization and after 50 steps on 64 phantom studies, with the recipes
    `SYSTEM/phantom` and `SYSTEM/iu_xray-laptop`. With `--model`, trained models are measured on the studies of --data.

    Args:
        recipe: recipe to measure; repeat it for several. By default, the two recipes of every system.
        model: trained model to measure instead, or folder of its run; repeat for several.
        data: prepared dataset, for --model.
        split: split of --data; its first 64 studies are used.
        out: also write the table as Markdown to this file.
    """
    from crossray.files.write import write_whole
    from crossray.pages.liveness_table import grid

    if model and (recipe or data is None):
        raise UserError(
            "--model: leave out --recipe, which measures untrained systems; --model measures a trained one."
            if recipe
            else "--data: is missing; --model needs the studies of a prepared dataset."
        )
    if not model and (data is not None or split != "val"):
        raise UserError("--data and --split: need --model; recipes are measured on phantom studies.")
    found: dict[str, list[Measured]] = {}
    for name, measured, title in _trained(model, data, split) if model and data else _newborn(recipe):
        found[name] = measured
        table = grid(found, title)
        if out is not None:  # after each system, because all of them take long
            write_whole(out, table.markdown())
    console().print(table.render(), crop=False)
    if out is not None:
        console().print(f"{out}", highlight=False)


def _newborn(recipes: Sequence[str] | None) -> "Iterator[tuple[str, list[Measured], str]]":
    """Measure systems at initialization and after a few training steps."""
    import tempfile

    from crossray.ablation.liveness import RECIPES, STEPS, draw_studies, newborn

    with tempfile.TemporaryDirectory() as folder:
        studies = draw_studies(Path(folder) / "data")
        for name in recipes or RECIPES:
            subject = newborn(name, studies)
            fresh = subject.measure()
            subject.train()
            yield name, [fresh, subject.measure()], f"Modules at first / after {STEPS} steps"


def _trained(models: Sequence[str], data: Path, split: str) -> "Iterator[tuple[str, list[Measured], str]]":
    """Measure trained models."""
    from crossray.ablation.liveness import measure_trained
    from crossray.data.store import Dataset

    dataset = Dataset.open(data)
    for name, generator, _ in _each(models, "cpu", "measuring"):
        yield name, [measure_trained(generator.model, dataset, split, generator.section)], "Modules after training"


def _each(folders: Sequence[str], device: str, doing: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, generator and progress bar of each model."""
    from crossray.files.folders import short_names
    from crossray.generation.generator import Generator

    for name, folder in zip(short_names(folders), folders, strict=True):
        generator = Generator.from_pretrained(folder, device=device)
        with progress_bar(f"{doing}: {name}") as progress:
            yield name, generator, progress
