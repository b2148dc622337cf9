"""Collects warnings about images that could be read despite an oddity."""

import logging

_LOGGER = logging.getLogger(__name__)


class Remarks:
    """Warnings about one image, in order and without repetition.

    A reader receives an instance and calls it; the caller of the reader stores or logs the texts.

    Attributes:
        texts: sentences that begin with the field and say what is odd and how it was handled. They contain no value
            that could identify a patient.

    Example:
        >>> remark = Remarks()
        >>> remark("BitsStored", "is 10, but the values use 12 bits; these are read")
        >>> remark.texts
        ['BitsStored is 10, but the values use 12 bits; these are read']
    """

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, field: str, text: str) -> None:
        """Add a warning about a field of the header, or about "pixels", "samples" or "transparency"."""
        entry = f"{field} {text}"
        if entry not in self.texts:
            self.texts.append(entry)

    def log(self, name: str) -> None:
        """Log every text, preceded by the name of the image."""
        for text in self.texts:
            _LOGGER.warning("%s: %s", name, text)


def field_of(text: str) -> str:
    """Return the field of a warning, by which warnings are counted."""
    return text.partition(" ")[0]
