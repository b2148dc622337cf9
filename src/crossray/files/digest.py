"""Digests of files."""

import hashlib
from pathlib import Path


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: Path) -> dict[str, str]:
    """Return name and digest of a source file; for a folder, only its name."""
    if path.is_dir():
        return {"folder": path.resolve().name}
    return {"name": path.name, "sha256": sha256(path)}
