"""What a user did wrong, said in one sentence."""

#: Longest value that a message repeats, in characters.
LONGEST_QUOTE = 40


class UserError(Exception):
    """A wrong input: the message names the file, the field and the remedy in one sentence.

    The command line prints it without a traceback and exits with code 2. It never carries report text or pixels:
    messages end up in logs, and logs hold no patient data.
    """


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
