"""`crossray calibrate`: calibrates a model's confidence and fits its input check."""

from pathlib import Path
from typing import Literal

from crossray.pages.terminal import console, progress_bar


def calibrate(
    model: str,
    data: Path,
    out: Path | None = None,
    split: Literal["val", "test"] = "val",
    false_alarms: float = 0.01,
    batch_size: int = 16,
    seed: int = 0,
    device: str = "auto",
) -> None:
    """Calibrate a model's confidence and create its input check; both are stored in its folder.

    Args:
        model: model folder, or the folder of a training run (its best model is taken).
        data: prepared dataset that the model was trained on.
        out: also write the measurements as a page (.html) or as Markdown tables (.md).
        split: split to calibrate on, which the training must not have used.
        false_alarms: share of the images of --split that each flag of the input check may mark by mistake.
        batch_size: studies per batch.
        seed: random seed for images and poses.
        device: auto (a GPU if there is one), cpu, cuda or cuda:1.
    """
    from crossray.confidence.fitting import fit_check, held_images
    from crossray.confidence.folder import save_check
    from crossray.confidence.measuring import calibrate as learn
    from crossray.data.store import Dataset
    from crossray.files.folders import model_folder
    from crossray.generation.generator import Generator
    from crossray.generation.lineage import warn_of_other_splits
    from crossray.pages.confidence_page import write_confidence
    from crossray.pages.confidence_tables import CHECK_NOTE, CONFIDENCE_NOTE, check_grids, confidence_grids

    dataset, folder = Dataset.open(data), model_folder(model)
    generator = Generator.from_pretrained(folder, device=device, use_confidence=False)
    warn_of_other_splits(folder, dataset, split)
    held_images(generator.model, dataset, split, false_alarms)  # refuses an impossible share before the slow part
    with progress_bar("writing reports") as progress:
        calibration = learn(
            generator.model, generator.decoding, dataset, split=split, section=generator.section,
            weights=generator.fingerprint, batch_size=batch_size, progress=progress,
        )  # fmt: skip
    calibration.save(folder)
    with progress_bar("looking at images") as progress:
        checker = fit_check(
            generator.model, dataset, split=split, false_alarms=false_alarms, weights=generator.fingerprint, seed=seed,
            progress=progress,
        )  # fmt: skip
    save_check(checker, folder)
    # models of earlier versions do not record the size to which images are resized first
    if generator.model.stored is None:
        generator.model.stored = dataset.info.size
        generator.model.save_transform(folder)
    for grids, note in ((confidence_grids(calibration), CONFIDENCE_NOTE), (check_grids(checker), CHECK_NOTE)):
        for grid in grids:
            console().print(grid.render(), crop=False)
            console().print()
        console().print(note, highlight=False)
        console().print()
    if out is not None:
        write_confidence(Path(model).name, calibration, checker, out)
        console().print(f"{out}", highlight=False)
    console().print(f"calibration and input check in {folder}", highlight=False)
