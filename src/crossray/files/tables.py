"""Helpers for reading CSV files of users."""

#: Field delimiters: some programs write semicolons, and copied tables have tabs.
DELIMITERS = (",", ";", "\t")

#: Columns that may hold the names of the studies: that of `crossray label`, of manifests, and of predictions.
STUDY_COLUMNS = ("study_id", "study", "id")


def delimiter(header: str, needed: str) -> str:
    """Return the delimiter with which a header contains a column; a comma if none does.

    Args:
        header: first line of a CSV file.
        needed: name of the column in lower case.

    Example:
        >>> delimiter("study_id;report", "report")
        ';'
    """
    for sign in DELIMITERS:
        if needed in (name.strip(' \t\r\n"').lower() for name in header.split(sign)):
            return sign
    return ","


def is_separator_line(line: str) -> bool:
    """Whether a first line is Excel's declaration of the delimiter, such as "sep=;"."""
    return line.lower().startswith("sep=")


def is_rich_text(text: str) -> bool:
    """Whether a text is RTF, whose control words would be mistaken for words of the report."""
    return text.lstrip("\ufeff \t\r\n").startswith("{\\rtf")
