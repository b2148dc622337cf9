"""The error of a user's mistake, and helpers for its message."""

from collections.abc import Iterable
from difflib import get_close_matches

#: Maximum number of characters of a value that a message quotes.
LONGEST_QUOTE = 40


class UserError(Exception):
    """A user's mistake; the message names the file, the field and the remedy in one sentence.

    The command line prints the message without a traceback and exits with code 2. Messages never contain report text or
    pixels, because they end up in logs, which must not contain patient data.
    """


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun in the singular or plural.

    Args:
        number: the number.
        noun: the noun in the singular.
        plural: plural of the noun, if it is irregular.

    Example:
        >>> counted(1, "study"), counted(2, "study"), counted(3, "image")
        ('1 study', '2 studies', '3 images')
    """
    if not plural:
        plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def did_you_mean(word: object, names: Iterable[object]) -> str:
    """Return a suggestion to append to an error about an unknown name: the closest known name, or "" if none is close.

    Example:
        >>> did_you_mean("bem", ["beam", "greedy"])
        " (did you mean 'beam'?)"
    """
    known = {str(name).casefold(): str(name) for name in names}
    close = get_close_matches(str(word).casefold(), known, n=1, cutoff=0.7)
    return f" (did you mean '{known[close[0]]}'?)" if close else ""


def choose(word: object, names: Iterable[object]) -> str:
    """Return the remedy for an unknown name: all known names, and the one that was probably meant.

    Example:
        >>> choose("bem", ["beam", "greedy"])
        "choose one of beam, greedy (did you mean 'beam'?)"
    """
    names = [*names]
    return f"choose one of {', '.join(map(str, names))}{did_you_mean(word, names)}"


def quoted(value: object, longest: int = LONGEST_QUOTE) -> str:
    """Quote a rejected value for an error message, on one line and cut to `longest` characters.

    A value that looks like a sentence is described by its length instead, because it may be report text from a shifted
    column.

    Example:
        >>> quoted("AP Supine"), quoted("Heart size is normal.")
        ("'AP Supine'", 'a text of 21 characters')
    """
    text = str(value)
    stripped = text.strip()
    if stripped.count(" ") > 4 or ("." in stripped[-1:] and " " in stripped):
        return f"a text of {len(text)} characters"
    return repr(text if len(text) <= longest else f"{text[: longest - 3]}...")
