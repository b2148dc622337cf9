"""Names of files as they can be printed and stored."""

import os
from pathlib import Path


def printable(path: Path | str) -> str:
    r"""A path as text that every file and terminal in UTF-8 takes.

    A file system holds bytes; those that are no UTF-8 (names from old shares and archives) become escapes.

    Example:
        >>> printable(os.fsdecode(b"caf\xe9.png"))
        'caf\\xe9.png'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")
