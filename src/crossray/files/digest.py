"""What identifies a file that something was made of: another file of the same name is another source."""

import hashlib
from pathlib import Path


def file_digest(path: Path) -> dict[str, str]:
    """Name and SHA-256 of a file; of a folder its name alone."""
    if path.is_dir():
        return {"folder": path.resolve().name}
    with path.open("rb") as file:
        return {"name": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
