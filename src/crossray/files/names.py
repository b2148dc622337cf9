"""Makes file names printable, recognizes texts that are not, and splits lists of files."""

import os
from pathlib import Path
from typing import Any, TypeGuard


def printable(path: Path | str) -> str:
    r"""Convert a path to valid UTF-8 text.

    File names are bytes; bytes that are not valid UTF-8, as from old file shares and archives, are escaped.

    Example:
        >>> printable(os.fsdecode(b"caf\xe9.png"))
        'caf\\xe9.png'
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_text(value: Any) -> TypeGuard[str]:
    r"""Whether a value is text that UTF-8 can encode, since JSON may contain incomplete characters.

    Example:
        >>> is_text("M\u00fcller"), is_text("M\ud800"), is_text(5)
        (True, False, False)
    """
    try:
        return isinstance(value, str) and (value.isascii() or bool(value.encode()))
    except UnicodeEncodeError:
        return False


def views_of(text: str, folder: Path = Path()) -> list[Path]:
    """The files of one study: an existing file, or several separated by ";" or, without one, by commas.

    Args:
        text: the names, as typed or listed.
        folder: folder of relative names.

    Example:
        >>> [str(path) for path in views_of("a, frontal.png; a, lateral.png")]
        ['a, frontal.png', 'a, lateral.png']
    """
    text = text.strip()
    # `Path.exists` raises an error for a name that is too long
    if text and os.path.exists(folder / text):  # noqa: PTH110
        return [folder / text]
    return [folder / view.strip() for view in text.split(";" if ";" in text else ",") if view.strip()]
