"""Renders a report with marks for agreement with another report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from crossray.analysis.agreement import SIGNS, Kind, Mark
from crossray.pages.page import piece
from crossray.text.display import ShownWord, shown_words

if TYPE_CHECKING:
    from markupsafe import Markup


@dataclass(frozen=True)
class Run:
    """Words that share their marks.

    Attributes:
        space: the text before them.
        text: the words.
        kind: kind of their mark, if any.
        notes: explanations for the reader.
    """

    space: str
    text: str
    kind: Kind | None = None
    notes: str = ""

    @property
    def sign(self) -> str:
        """The sign after the words, which distinguishes their mark without colors."""
        return SIGNS[self.kind] if self.kind else ""


def marked_text(text: str, marks: Sequence[Mark]) -> "Markup":
    """Render a report in readable form with its marks; adjacent words with the same marks are joined.

    Args:
        text: the report as labeled.
        marks: marks with positions in `text`, which may overlap.
    """
    marked = [(word, _marks_at(word, marks)) for word in shown_words(text)]
    runs = [_run([word for word, _ in run], found) for found, run in groupby(marked, key=lambda pair: pair[1])]
    return piece("parts.html", "marked", runs=runs)


def _marks_at(word: ShownWord, marks: Iterable[Mark]) -> tuple[Mark, ...]:
    """Marks of a word, the most important kind first."""
    kinds = list(SIGNS)
    found = [mark for mark in marks if mark.start < word.end and word.start < mark.end]
    return tuple(sorted(found, key=lambda mark: kinds.index(mark.kind)))


def _run(words: Sequence[ShownWord], marks: Sequence[Mark]) -> Run:
    space = words[0].space
    text = "".join(word.space + word.shown for word in words).removeprefix(space)
    if not marks:
        return Run(space, text)
    return Run(space, text, marks[0].kind, "; ".join(dict.fromkeys(mark.note for mark in marks)))
