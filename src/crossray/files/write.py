"""Files of results: a file that is there is whole."""

import os
from pathlib import Path


def write_whole(path: Path | str, text: str) -> None:
    """Write a UTF-8 text file, and its folder; the file appears whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
