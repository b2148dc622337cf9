"""File names that can be printed and stored."""

import os
from pathlib import Path


def printable(path: Path | str) -> str:
    r"""A path as valid UTF-8 text.

    File names are bytes; those that are not valid UTF-8 (from old shares and archives) become escapes.

    Example:
        >>> printable(os.fsdecode(b"caf\xe9.png"))
        'caf\\xe9.png'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")
