"""The folder of one study, as a picture archive exports it: which files are its views, and in which order."""

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from crossray.data.images.positions import FileDescription
from crossray.data.images.read import describe_image
from crossray.errors import UserError
from crossray.files.names import printable

_LOGGER = logging.getLogger(__name__)

#: Most files that are looked at in the folder of one study.
MAX_FILES = 1000

#: Files that stand beside the views of a study, in small letters.
_NO_VIEWS = ("dicomdir", "thumbs.db", "desktop.ini")

#: Rank of a position; any frontal one comes before.
_AFTER_FRONTAL = {"lateral": 1, "unknown": 2}


def study_views(folder: Path) -> dict[Path, FileDescription]:
    """The views in a study's folder and its subfolders, frontal ones first, with what their files say.

    DICOM objects without pixels (reports, presentation states) and files that are no image are passed over, with one
    warning that counts them; hidden files and a DICOMDIR without any. A damaged image stays in the list: to leave it
    out would make another study.

    Raises:
        UserError: there is no view, or a file cannot be read.
    """
    files = [path for path in islice(folder.rglob("*"), MAX_FILES) if path.is_file() and _may_be_view(path, folder)]
    described = {path: describe_image(path) for path in sorted(files)}
    views = {path: found for path, found in described.items() if found.is_image}
    if not views:
        raise UserError(f"{printable(folder)}: the folder contains no image; give the folder of one study.")
    if others := len(described) - len(views):
        _LOGGER.warning("%s: %d files are no images and are passed over", printable(folder), others)
    return {path: views[path] for path in frontal_first({path: found.position for path, found in views.items()})}


def frontal_first(positions: Mapping[Path, str]) -> list[Path]:
    """Files in the order in which models take views: frontal ones, then lateral ones, then all others; then by path.

    Args:
        positions: each one of `crossray.data.study.VIEW_POSITIONS`, by file.
    """
    return sorted(positions, key=lambda path: (_AFTER_FRONTAL.get(positions[path], 0), path))


def listed_frontal_first(positions: Sequence[str]) -> list[int]:
    """Places of listed views in the order in which models take them; the list's own order where none is frontal.

    Example:
        >>> listed_frontal_first(["lateral", "unknown", "pa"])
        [2, 0, 1]
    """
    places = range(len(positions))
    if all(position in _AFTER_FRONTAL for position in positions):
        return list(places)
    return sorted(places, key=lambda place: _AFTER_FRONTAL.get(positions[place], 0))


def _may_be_view(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.name.lower() not in _NO_VIEWS
