"""Normalizes identifiers of patients and studies, and finds files whose names have several spellings."""

import os
import re
import unicodedata
from pathlib import Path, PurePosixPath

_WHOLE = re.compile(r"(\d+)\.0+")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


def identifier(text: str) -> str:
    r"""Normalize an identifier for comparison and storage: composed letters (NFC), no outer spaces, no ".0".

    Spreadsheets may write 12.0 for 12, and file systems and editors encode ü in different ways.

    Example:
        >>> identifier(" 12.0 "), identifier("Mu\u0308ller") == identifier("M\u00fcller")
        ('12', True)
    """
    composed = unicodedata.normalize("NFC", text.strip())
    whole = _WHOLE.fullmatch(composed)
    return whole[1] if whole else composed


class PathError(Exception):
    """A path in a table cannot be used; the message is a clause without the path, such as "is outside the folder"."""


class PathFinder:
    """Finds files in one folder by the paths that a table contains.

    A path is tried unchanged, with "/" for backslashes, and in other Unicode normalization forms.

    Attributes:
        folder: folder to which paths are relative.
    """

    def __init__(self, folder: Path) -> None:
        """Find files in `folder` and below it."""
        self.folder = folder
        self._root = os.path.realpath(folder).rstrip(os.sep) + os.sep
        self._listings: dict[Path, dict[str, list[str]]] = {}

    def is_inside(self, path: Path) -> bool:
        """Whether a path is the folder or inside it, after resolving links."""
        return (os.path.realpath(path) + os.sep).startswith(self._root)

    def inside(self, name: str) -> Path:
        """Return the path for a name; the file need not exist.

        Raises:
            PathError: the path is outside the folder, or the folder itself.
        """
        if "\0" in name:
            raise PathError("does not exist; no path holds a zero character")
        spellings = dict.fromkeys((name, name.replace("\\", "/")))
        paths = [self._joined(spelling) for spelling in spellings]
        found = next((path for path in paths if _exists(path)), None) or self._composed(paths[-1])
        if not self.is_inside(found) or os.path.realpath(found) + os.sep == self._root:
            raise PathError("is outside the folder; give a path inside it")
        return found

    def existing(self, name: str) -> Path:
        """Return the path of an existing file or folder.

        Raises:
            PathError: the path does not exist or is outside the folder.
        """
        path = self.inside(name)
        if _exists(path):
            return path
        folder = path.parent
        if any(path.name.casefold() == other.casefold() for names in self._listing(folder).values() for other in names):
            raise PathError("does not exist, but a file whose name differs in capital letters does; write it as on "
                            "the disk")  # fmt: skip
        raise PathError("does not exist; paths are relative to the folder")

    def _joined(self, name: str) -> Path:
        if _DRIVE.match(name):
            raise PathError("is an absolute path of another system; give it relative to the folder")
        relative = PurePosixPath(name)
        if relative.is_absolute() and not self.is_inside(Path(name)):
            raise PathError("is absolute and outside the folder; give a path relative to it, inside it")
        return Path(name) if relative.is_absolute() else self.folder / relative

    def _composed(self, path: Path) -> Path:
        """Return the path as spelled on disk; parts without a unique match remain unchanged."""
        try:
            parts = path.relative_to(self.folder).parts
        except ValueError:
            return path
        found = self.folder
        for part in parts:
            if not _exists(found / part):
                others = self._listing(found).get(unicodedata.normalize("NFC", part), [])
                part = others[0] if len(others) == 1 else part
            found /= part
        return found

    def _listing(self, folder: Path) -> dict[str, list[str]]:
        """Return the names in a folder by their composed form (NFC)."""
        if folder not in self._listings:
            names: dict[str, list[str]] = {}
            self._listings[folder] = names
            for name in _names(folder):
                names.setdefault(unicodedata.normalize("NFC", name), []).append(name)
        return self._listings[folder]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that the file system does not allow
        return False


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except (OSError, ValueError):
        return []
