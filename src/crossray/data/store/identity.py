"""The identity of a dataset's image files, which shows whether they have changed."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from crossray.data.study import Study
from crossray.errors import UserError
from crossray.files.names import printable

By = Literal["size_time", "digest"]


def identify(paths: Iterable[Path], by: By = "size_time") -> dict[str, Any]:
    """Describe many files in a short form that changes if a file is changed, added or removed.

    Args:
        paths: paths of the files, in the same order in every run; missing files are included.
        by: "size_time" uses size and modification time, which a copy may change; "digest" reads every file.

    Returns:
        JSON values: `by`, the number of `files`, and `sha256` over all of them.

    Raises:
        UserError: a file cannot be read.
    """
    digest, count = hashlib.sha256(), 0
    for count, path in enumerate(paths, 1):  # noqa: B007
        digest.update(f"{printable(path.name)}\0{_state(path, by)}\n".encode())
    return {"by": by, "files": count, "sha256": digest.hexdigest()}


def image_paths(studies: Iterable[Study]) -> Iterable[Path]:
    """Yield the paths of the views in order; phantom drawings have none."""
    for study in studies:
        for image in study.images:
            path = getattr(image, "path", None)
            if isinstance(path, Path):
                yield path


def changed(identity: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether the images of a dataset have changed; False if their identity was not recorded."""
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
