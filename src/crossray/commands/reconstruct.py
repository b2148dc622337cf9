"""`crossray reconstruct`: measures how well an image tokenizer reconstructs images."""

from pathlib import Path
from typing import Literal

from crossray.errors import UserError, counted
from crossray.pages.terminal import console, progress_bar


def reconstruct(
    model: Path,
    data: Path,
    out: Path | None = None,
    split: Literal["train", "val", "test"] = "test",
    studies: int = 6,
) -> None:
    """Compare an image tokenizer's reconstructions with the originals, and with copies at an eighth of the resolution.

    Args:
        model: folder of a `crossray pretrain tokenizer` run, or its model folder.
        data: prepared dataset.
        out: PNG file to write: originals above reconstructions above coarse copies.
        split: split of --data.
        studies: number of images in the figure, from the best to the worst reconstruction.
    """
    import json

    from crossray.analysis.reconstructions import ROWS
    from crossray.analysis.reconstructions import reconstruct as run
    from crossray.data.batches.transform import ImageTransform
    from crossray.data.store import Dataset
    from crossray.files.folders import model_folder
    from crossray.models.base import config_from_dict
    from crossray.models.pretraining.dvae import DVAE

    if studies < 1:
        raise UserError(f"--studies {studies}: give 1 or more.")
    folder = model_folder(model)
    tokenizer = DVAE.from_pretrained(folder)
    recipe = json.loads((folder / "provenance.json").read_text(encoding="utf-8")).get("recipe", {})
    source = f"{folder / 'provenance.json'}: recipe.data.image"
    transform = config_from_dict(ImageTransform, recipe.get("data", {}).get("image"), source)
    with progress_bar("reconstructing") as progress:
        found = run(tokenizer, Dataset.open(data), split, transform, progress=progress)
    ours, coarse = found.psnr, found.coarse_psnr
    lines = (
        f"{counted(len(ours), 'image')} of split {split}",
        f"PSNR of the reconstructions   {ours.mean():.2f} dB (from {ours.min():.2f} to {ours.max():.2f})",
        f"PSNR 8 times down and up      {coarse.mean():.2f} dB (from {coarse.min():.2f} to {coarse.max():.2f})",
        f"reconstruction is better for  {counted(int((ours > coarse).sum()), 'image')}",
        f"perplexity of the codes       {found.perplexity:.0f} of {tokenizer.config.codes}",
    )
    for line in lines:
        console().print(line, highlight=False)
    if out is not None:
        order = ours.argsort(descending=True).tolist()
        shown = min(studies, len(order))
        places = [order[place * (len(order) - 1) // max(shown - 1, 1)] for place in range(shown)]
        found.save_figure(places, out)
        console().print(f"{', '.join(ROWS)}: {out}", highlight=False)
