"""Makes file names printable."""

import os
from pathlib import Path


def printable(path: Path | str) -> str:
    r"""Convert a path to valid UTF-8 text.

    File names are bytes; bytes that are not valid UTF-8, as from old file shares and archives, are escaped.

    Example:
        >>> printable(os.fsdecode(b"caf\xe9.png"))
        'caf\\xe9.png'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")
