"""Finds and orders the views in the folder of one study, as exported by a picture archive."""

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from crossray.data.images.positions import FileDescription
from crossray.data.images.read import describe_image
from crossray.errors import UserError
from crossray.files.names import printable

_LOGGER = logging.getLogger(__name__)

#: Maximum number of files in the folder of one study, with its subfolders.
MAX_FILES = 1000

#: Lower-case names of files that are not views.
_NO_VIEWS = ("dicomdir", "thumbs.db", "desktop.ini")

#: Rank of the positions that come after frontal ones.
_AFTER_FRONTAL = {"lateral": 1, "unknown": 2}


def study_views(folder: Path) -> dict[Path, FileDescription]:
    """Return the views in a study's folder and its subfolders, frontal views first, with descriptions of their files.

    DICOM objects without pixels (reports, presentation states) and files that are not images are skipped, with one
    warning that counts them; hidden files and a DICOMDIR are skipped silently. A damaged image is kept, because leaving
    it out would change the study.

    Raises:
        UserError: there is no view, or there are more than `MAX_FILES` files, or a file cannot be read.
    """
    found = list(islice(folder.rglob("*"), MAX_FILES + 1))
    if len(found) > MAX_FILES:
        raise UserError(f"{printable(folder)}: the folder holds more than {MAX_FILES} files; give that of one study.")
    files = [path for path in found if path.is_file() and _may_be_view(path, folder)]
    described = {path: describe_image(path) for path in sorted(files)}
    views = {path: found for path, found in described.items() if found.is_image}
    if not views:
        raise UserError(f"{printable(folder)}: the folder contains no image; give the folder of one study.")
    if others := len(described) - len(views):
        _LOGGER.warning("%s: %d files are no images and are passed over", printable(folder), others)
    return {path: views[path] for path in frontal_first({path: found.position for path, found in views.items()})}


def frontal_first(positions: Mapping[Path, str]) -> list[Path]:
    """Sort files in the order in which models use views: frontal, lateral, then all others, each by path.

    Args:
        positions: position of each file, one of `crossray.data.study.VIEW_POSITIONS`.
    """
    return sorted(positions, key=lambda path: (_AFTER_FRONTAL.get(positions[path], 0), path))


def listed_frontal_first(positions: Sequence[str]) -> list[int]:
    """Return the indices of listed views in the order in which models use them, or in list order if none is frontal.

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
