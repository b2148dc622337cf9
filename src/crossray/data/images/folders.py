"""The folder of one study, as a picture archive exports it: which files are its views, and in which order."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from crossray.errors import UserError

#: Most files that are looked at in the folder of one study.
MAX_FILES = 1000

#: Files that stand beside the views of a study.
_NO_VIEWS = ("DICOMDIR", "Thumbs.db")

#: Rank of a position; any frontal one comes before.
_AFTER_FRONTAL = {"lateral": 1, "unknown": 2}


def view_files(folder: Path) -> list[Path]:
    """The files of a study's folder and its subfolders, by path, without hidden ones and a DICOMDIR.

    Raises:
        UserError: there is none.
    """
    files = [path for path in islice(folder.rglob("*"), MAX_FILES) if path.is_file() and _may_be_view(path, folder)]
    if not files:
        raise UserError(f"{folder}: the folder holds no image; give the folder of one study.")
    return sorted(files)


def frontal_first(positions: Mapping[Path, str]) -> list[Path]:
    """Files in the order in which models take views: frontal ones, then lateral ones, then all others; then by path.

    Args:
        positions: each one of `crossray.data.study.VIEW_POSITIONS`, by file.
    """
    return sorted(positions, key=lambda path: (_AFTER_FRONTAL.get(positions[path], 0), path))


def _may_be_view(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return not hidden and path.name not in _NO_VIEWS
