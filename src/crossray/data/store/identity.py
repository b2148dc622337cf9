"""What identifies the image files of a dataset, so that a repaired or replaced image is noticed."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from crossray.data.study import Study
from crossray.errors import UserError
from crossray.files.names import printable

By = Literal["size_time", "digest"]


def identify(paths: Iterable[Path], by: By = "size_time") -> dict[str, Any]:
    """One short description of many files: another one whenever a file was changed, added or lost.

    Args:
        paths: the files, in an order that is the same at every run; missing ones count too.
        by: "size_time" looks at size and time of modification, which a copy may change; "digest" reads every file.

    Returns:
        JSON-ready: `by`, number of `files`, and `sha256` over all.

    Raises:
        UserError: a file cannot be read.
    """
    digest, count = hashlib.sha256(), 0
    for count, path in enumerate(paths, 1):  # noqa: B007
        digest.update(f"{printable(path.name)}\0{_state(path, by)}\n".encode())
    return {"by": by, "files": count, "sha256": digest.hexdigest()}


def image_paths(studies: Iterable[Study]) -> Iterable[Path]:
    """The files of the studies' views, in order; drawings have none."""
    for study in studies:
        for image in study.images:
            path = getattr(image, "path", None)
            if isinstance(path, Path):
                yield path


def changed(identity: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether the images of a dataset are not those it was made of; False where nothing was kept of them."""
    return bool(identity and found) and dict(identity) != dict(found)


def _state(path: Path, by: By) -> str:
    try:
        if by == "digest":
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError as error:
        raise UserError(f"{printable(path)}: cannot be read ({error.strerror}); check its permissions") from None
    return f"{status.st_size} {status.st_mtime_ns}"
