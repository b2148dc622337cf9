"""What was odd about an image that could be read all the same."""

import logging

_LOGGER = logging.getLogger(__name__)


class Remarks:
    """Warnings about one image, in the order in which they arose, each once.

    A reader is given one of these and calls it; who opened the image stores the texts with it or logs them.

    Attributes:
        texts: sentences that begin with the field: what is odd and what was done about it. They hold no value that
            could name a patient.

    Example:
        >>> remark = Remarks()
        >>> remark("BitsStored", "is 10, but the values use 12 bits; these are read")
        >>> remark.texts
        ['BitsStored is 10, but the values use 12 bits; these are read']
    """

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, field: str, text: str) -> None:
        """Remark on a field of the header, or on "pixels", "samples" or "transparency"."""
        entry = f"{field} {text}"
        if entry not in self.texts:
            self.texts.append(entry)

    def log(self, name: str) -> None:
        """Log every text behind the image's name."""
        for text in self.texts:
            _LOGGER.warning("%s: %s", name, text)


def field_of(text: str) -> str:
    """The field that a warning is about: what warnings are counted by."""
    return text.partition(" ")[0]
