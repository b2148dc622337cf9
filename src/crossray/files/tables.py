"""What users' tables of text have in common."""

#: What may stand between fields: some systems write semicolons, a copied table has tabs.
DELIMITERS = (",", ";", "\t")


def delimiter(header: str, needed: str) -> str:
    """The delimiter at which a header has a column; a comma where none has.

    Args:
        header: first line of a CSV file.
        needed: name of the column, in small letters.
    """
    for sign in DELIMITERS:
        if needed in (name.strip(' \t\r\n"').lower() for name in header.split(sign)):
            return sign
    return ","


def is_separator_line(line: str) -> bool:
    """Whether a first line is what Excel writes for itself: "sep=;"."""
    return line.lower().startswith("sep=")


def is_rich_text(text: str) -> bool:
    """Whether a text is RTF, whose control words would be taken for words of a report."""
    return text.lstrip("\ufeff \t\r\n").startswith("{\\rtf")
