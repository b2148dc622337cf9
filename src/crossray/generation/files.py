"""Reads studies from image files or from folders of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from crossray.data.batches.batch import Inputs
from crossray.data.images import SUFFIXES, describe_image, read_image, resize_short_side
from crossray.data.images.folders import listed_frontal_first, study_views
from crossray.data.study import VIEW_POSITIONS
from crossray.errors import UserError
from crossray.files.names import printable


@dataclass(frozen=True)
class FileStudy:
    """The views of one study.

    Attributes:
        paths: the files; `pixels`: (H, W) uint8 of each; `positions`: each one of `VIEW_POSITIONS`.
    """

    paths: tuple[Path, ...]
    pixels: tuple[NDArray[np.uint8], ...]
    positions: tuple[str, ...]


def read_study(paths: Sequence[Path], views: int, size: int, stated: Sequence[str] = ()) -> FileStudy:
    """Read the views of a study in the form in which a prepared dataset stores them.

    Args:
        paths: PNG, JPEG or DICOM files, or one folder with the files of the study, in the order of `folder_views`.
            Files with a known position are ordered too: frontal views first.
        views: maximum number of views of the model.
        size: length of their short side in pixels, `Generator.stored`.
        stated: position of each file, which replaces that in its header; empty if only the headers state them.

    Raises:
        UserError: there is no view or too many, a file cannot be read, or the files belong to several studies.
    """
    if not paths:
        raise UserError("images: a study has no view; name at least one file for it.")
    given = paths[0]
    if len(paths) == 1 and paths[0].is_dir():
        paths = folder_views(paths[0], views)
    if len(paths) > views:
        raise UserError(
            f"{printable(paths[views])} is view {views + 1} of its study, but the model takes {views}; leave views out "
            "of the list."
        )
    described = [describe_image(path) for path in paths]
    if len({found.study for found in described if found.study}) > 1:
        raise UserError(
            f"{printable(given)}: StudyInstanceUID differs between the files of its study; give each study its own "
            "files or folder."
        )
    positions = list(stated) or [found.position for found in described]
    order = listed_frontal_first(positions)
    return FileStudy(
        paths=tuple(paths[place] for place in order),
        pixels=tuple(resize_short_side(read_image(paths[place]), size) for place in order),
        positions=tuple(positions[place] for place in order),
    )


def folder_views(folder: Path, views: int) -> list[Path]:
    """The files of a study's folder and its subfolders: frontal views, then lateral ones, then all others.

    Views of one kind are ordered by path. DICOM objects without pixels and files that are not images are skipped
    (`study_views`).

    Args:
        folder: folder of one study.
        views: maximum number of views of the model.

    Raises:
        UserError: the folder contains no view or too many.
    """
    described = study_views(folder)
    if len(described) > views:
        raise UserError(
            f"{printable(folder)}: the folder holds {len(described)} files, but the model takes only {views}; "
            "give the folder of one study, or name its views separated by commas."
        )
    return list(described)


def stack_studies(studies: Sequence[FileStudy], views: int) -> Inputs:
    """A batch of B studies for `transform_inputs`, with views padded on the right and at the bottom.

    Args:
        studies: views of any size.
        views: number V of views per study in the batch.
    """
    sizes = torch.zeros(len(studies), views, 2, dtype=torch.int64)
    positions = torch.zeros(len(studies), views, dtype=torch.int64)
    for place, study in enumerate(studies):
        for view, (pixels, position) in enumerate(zip(study.pixels, study.positions, strict=True)):
            sizes[place, view] = torch.tensor(pixels.shape)
            positions[place, view] = VIEW_POSITIONS.index(position)
    height, width = sizes.amax(dim=(0, 1)).tolist()
    images = torch.zeros(len(studies), views, 1, height, width, dtype=torch.uint8)
    for place, study in enumerate(studies):
        for view, pixels in enumerate(study.pixels):
            images[place, view, 0, : pixels.shape[0], : pixels.shape[1]] = torch.from_numpy(pixels)
    return Inputs(images, sizes, view_mask=sizes[..., 0] > 0, view_position=positions)


def study_ids(studies: Sequence[Sequence[Path]]) -> list[str]:
    """A name for each study: the names of its files without image suffixes, joined by "+", or the name of its folder.

    If two studies would have the same name, as many parent folders are prepended as needed; repeated files are
    numbered.
    """
    deepest = max((len(_without_suffix(path).parts) for paths in studies for path in paths), default=1)
    different = len({tuple(paths) for paths in studies})
    names: list[str] = []
    for depth in range(1, deepest + 1):
        names = ["+".join("/".join(_without_suffix(path).parts[-depth:]) for path in paths) for paths in studies]
        if len(set(names)) == different:
            break
    given: set[str] = set()
    for place, name in enumerate(names):
        number = 1
        while names[place] in given:
            number += 1
            names[place] = f"{name}#{number}"
        given.add(names[place])
    return names


def _without_suffix(path: Path) -> Path:
    """Remove an image suffix only; DICOM files are often named by an identifier with dots."""
    named = Path(printable(path if path.name else path.resolve()))
    return named.with_suffix("") if named.suffix.lower() in SUFFIXES else named
