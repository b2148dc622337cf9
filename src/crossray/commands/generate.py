"""`crossray generate`: reports of images, or of a split of a dataset."""

from pathlib import Path
from typing import Literal

from crossray.commands.show import console, progress_bar
from crossray.errors import UserError


def generate(
    images: list[str],
    model: Path,
    out: Path,
    data: Path | None = None,
    split: Literal["train", "val", "test", "all"] = "test",
    batch_size: int = 16,
    shuffle_images: int | None = None,
    device: str = "cpu",
) -> None:
    """Write the reports of some images, or of one split of a prepared dataset.

    Args:
        images: one study an argument: PNG, JPEG or DICOM files, the views of a study separated by commas
            (frontal.png,lateral.png), or a folder that holds the views of one study.
        model: model folder, or the folder of a training run (its best model is taken).
        out: predictions as JSON lines.
        data: prepared dataset, instead of images.
        split: which studies of --data; all: for a model that was trained on another dataset.
        batch_size: studies at once; halved by itself when memory runs out.
        shuffle_images: a seed: give every study of --data the images of another, to see what the scores owe to them.
        device: cpu or cuda.
    """
    from crossray.generation.generator import Generator

    if bool(images) == (data is not None):
        raise UserError("give either image files or --data FOLDER.")
    if data is None and shuffle_images is not None:
        raise UserError("--shuffle-images belongs to --data: single images have no studies to be shuffled between.")
    generator = Generator.from_pretrained(model, device=device)
    with progress_bar("writing reports") as progress:
        if data is not None:
            count = generator.generate_dataset(
                data, split, out, batch_size=batch_size, shuffle_images=shuffle_images, progress=progress
            )
        else:
            studies = [[Path(name) for name in study.split(",")] for study in images]
            count = generator.generate_files(studies, out, batch_size=batch_size, progress=progress)
    console().print(f"{count} reports in {out}")
