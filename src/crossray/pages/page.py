"""Self-contained HTML pages: one file, no network. Everything that comes from data is escaped here."""

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: A cell: its text, or its text and smaller lines beneath it.
Cell = str | tuple[str, ...]


def document(title: str, body: Sequence[str], script: str = "", style: str = "") -> str:
    """A whole HTML page.

    Its policy forbids the browser to load anything and to run any script but the given one, so that text that should
    slip through as markup could still do nothing.

    Args:
        title: of the page.
        body: ready-made pieces of markup.
        script: JavaScript that the page runs at its end; "" for none.
        style: rules that only this page needs, beside those of page.css.
    """
    style = asset("page.css") + style
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>\n{style}</style></head>\n'
        "<body>\n" + "\n".join(body) + (f"\n<script>{script}</script>" if script else "") + "\n</body></html>\n"
    )


def asset(name: str) -> str:
    """A style or script that lies beside this file."""
    return (files(__package__) / name).read_text(encoding="utf-8")


def title(text: str) -> str:
    """The heading of the page."""
    return f"<h1>{escape(text)}</h1>"


def heading(text: str, identifier: str = "") -> str:
    """A section heading; `identifier` is what `contents` points to."""
    place = f' id="{escape(identifier)}"' if identifier else ""
    return f"<h2{place}>{escape(text)}</h2>"


def subheading(text: str) -> str:
    """The heading of a part of a section."""
    return f"<h3>{escape(text)}</h3>"


def contents(sections: Mapping[str, str]) -> str:
    """Links to sections: identifier to text."""
    links = "".join(f'<a href="#{escape(target)}">{escape(text)}</a>' for target, text in sections.items())
    return f'<nav aria-label="Sections">{links}</nav>'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; `kind` is one of "", "notice", "muted", "good", "bad"."""
    return f'<p class="{escape(kind)}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def alarm(subject: str, sentences: Sequence[str]) -> str:
    """What must be known before anything else is read: whom it concerns, and what was found."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<div class="alarm"><strong>{escape(subject)}</strong><ul>{items}</ul></div>'


def details(summary: str, pieces: Sequence[str]) -> str:
    """Ready-made pieces that a reader unfolds."""
    return f"<details><summary>{escape(summary)}</summary>{''.join(pieces)}</details>"


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    caption: str = "",
    own: Sequence[int] = (),
    text: bool = False,
) -> str:
    """A table that scrolls by itself where the screen is narrow.

    Args:
        headings: of the columns.
        rows: cells; the first of a row is its heading.
        caption: what the table shows.
        own: rows to set in bold.
        text: whether cells are words, set to the left and broken into lines, and not numbers.
    """
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in headings)
    body = "".join(f"<tr{' class=own' if index in own else ''}>{_row(row)}</tr>" for index, row in enumerate(rows))
    title = f"<caption><span>{escape(caption)}</span></caption>" if caption else ""
    kind = ' class="text"' if text else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption or headings[0])}">'
        f"<table{kind}>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(cells: Sequence[Cell]) -> str:
    first, *others = (_cell(cell) for cell in cells)
    return f'<th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others)


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return escape(cell)
    above, *beneath = cell
    return escape(above) + "".join(f"<small>{escape(line)}</small>" for line in beneath)


def image(pixels: NDArray[np.uint8], alternative: str, longest: int = 320) -> str:
    """(H, W) grey pixels as an inline JPEG whose longer side has at most `longest` pixels."""
    picture = Image.fromarray(np.asarray(pixels))
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=82, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<img src="data:image/jpeg;base64,{data}" {size} alt="{escape(alternative)}">'
