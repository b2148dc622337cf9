"""What a user did wrong, said in one sentence."""

from collections.abc import Iterable
from difflib import get_close_matches

#: Longest value that a message repeats, in characters.
LONGEST_QUOTE = 40


class UserError(Exception):
    """A wrong input: the message names the file, the field and the remedy in one sentence.

    The command line prints it without a traceback and exits with code 2. It never carries report text or pixels:
    messages end up in logs, and logs hold no patient data.
    """


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun in the singular or plural.

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
    """What ends a message about a name that does not exist: the existing name closest to it, or "" if none is close.

    Example:
        >>> did_you_mean("bem", ["beam", "greedy"])
        " (did you mean 'beam'?)"
    """
    known = {str(name).casefold(): str(name) for name in names}
    close = get_close_matches(str(word).casefold(), known, n=1)
    return f" (did you mean '{known[close[0]]}'?)" if close else ""


def choose(word: object, names: Iterable[object]) -> str:
    """The remedy for a name that does not exist: all names that do, and the one that was probably meant.

    Example:
        >>> choose("bem", ["beam", "greedy"])
        "choose one of beam, greedy (did you mean 'beam'?)"
    """
    names = [*names]
    return f"choose one of {', '.join(map(str, names))}{did_you_mean(word, names)}"


def quoted(value: object, longest: int = LONGEST_QUOTE) -> str:
    """A refused value as a message repeats it: in quotation marks, on one line, cut to `longest` characters.

    What reads like a sentence is counted instead, because it may be report text that slipped into another column.

    Example:
        >>> quoted("AP Supine"), quoted("Heart size is normal.")
        ("'AP Supine'", 'a text of 21 characters')
    """
    text = str(value)
    stripped = text.strip()
    if stripped.count(" ") > 4 or ("." in stripped[-1:] and " " in stripped):
        return f"a text of {len(text)} characters"
    return repr(text if len(text) <= longest else f"{text[: longest - 3]}...")
