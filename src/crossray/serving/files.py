"""Studies that are given as image files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from crossray.data.batch import Inputs
from crossray.data.images import read_image, resize_short_side
from crossray.data.transform import ImageTransform
from crossray.errors import UserError


@dataclass(frozen=True)
class FileStudy:
    """The views of one study.

    Attributes:
        paths: the files; `pixels`: (H, W) uint8 of each.
    """

    paths: tuple[Path, ...]
    pixels: tuple[NDArray[np.uint8], ...]


def read_study(paths: Sequence[Path], views: int, transform: ImageTransform) -> FileStudy:
    """Read the views of a study, their short side as long as a prepared dataset's would be.

    Args:
        paths: PNG or JPEG files.
        views: most views that the model takes.
        transform: the model's.

    Raises:
        UserError: there is no view, or one too many, or a file cannot be read.
    """
    if not paths:
        raise UserError("images: a study has no view; name at least one file for it.")
    if len(paths) > views:
        raise UserError(
            f"{paths[views]}: view {views + 1} of its study, but the model takes {views}; leave views out of the list."
        )
    size = transform.resize or transform.size
    return FileStudy(tuple(paths), tuple(resize_short_side(read_image(path), size) for path in paths))


def stack_studies(studies: Sequence[FileStudy], views: int) -> Inputs:
    """A batch of B studies, their views padded at right and bottom, ready for `transform_inputs`.

    Args:
        studies: views of any size.
        views: V, room for the views of each study.
    """
    sizes = torch.zeros(len(studies), views, 2, dtype=torch.int64)
    for place, study in enumerate(studies):
        for view, pixels in enumerate(study.pixels):
            sizes[place, view] = torch.tensor(pixels.shape)
    height, width = sizes.amax(dim=(0, 1)).tolist()
    images = torch.zeros(len(studies), views, 1, height, width, dtype=torch.uint8)
    for place, study in enumerate(studies):
        for view, pixels in enumerate(study.pixels):
            images[place, view, 0, : pixels.shape[0], : pixels.shape[1]] = torch.from_numpy(pixels)
    mask = sizes[..., 0] > 0
    return Inputs(images, sizes, mask, view_position=torch.zeros_like(mask, dtype=torch.int64))


def study_ids(studies: Sequence[Sequence[Path]]) -> list[str]:
    """A name for each study: its files' names without suffix, joined by "+".

    Where two studies would share a name, as many folders are put before as tell them apart; the same files given twice
    are numbered.
    """
    deepest = max((len(path.parts) for paths in studies for path in paths), default=1)
    names: list[str] = []
    for depth in range(1, deepest + 1):
        names = ["+".join("/".join(path.with_suffix("").parts[-depth:]) for path in paths) for paths in studies]
        if len(set(names)) == len(names):
            return names
    seen: dict[str, int] = {}
    for place, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[place] = f"{name}#{seen[name]}"
    return names
