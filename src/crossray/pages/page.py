"""Self-contained HTML pages: one file, no network access. Templates escape everything that comes from data.

A page is a template in `templates/` that extends `base.html`; shared parts are macros in `parts.html` and
`charts.html`. Results of `piece` are markup; all other text is escaped.
"""

import base64
import hashlib
import io
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

RESEARCH = "Research software: not for clinical use."
SYNTHETIC = "All images here are synthetic: drawn by CrossRay's phantom, not taken of any person."

#: A cell: its text, or its text and smaller lines below it.
Cell = str | tuple[str, ...]


def document(template: str, title: str, *, script: str = "", style: str = "", **values: Any) -> str:
    """Render a complete HTML page.

    Its content security policy forbids loading resources and running other scripts, so even text misinterpreted as
    markup is harmless.

    Args:
        template: a file in `templates/` that extends `base.html`.
        title: title of the page.
        script: JavaScript file in `templates/` to run at the end of the page; "" for none.
        style: CSS file in `templates/` to use in addition to page.css; "" for none.
        values: values for the template.
    """
    from markupsafe import Markup

    code = asset(script) if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    rules = asset("page.css") + (asset(style) if style else "")
    # Style and script are files of this package and contain no data.
    return (
        _environment()
        .get_template(template)
        .render(title=title, policy=policy, style=Markup(rules), script=Markup(code), **values)
    )


def piece(template: str, macro: str, /, **values: Any) -> "Markup":
    """Render a template macro with these values."""
    made: Markup = getattr(_environment().get_template(template).module, macro)(**values)
    return made


def asset(name: str) -> str:
    """The content of a CSS or JavaScript file in `templates/`."""
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    caption: str = "",
    own: Sequence[int] = (),
    text: bool = False,
) -> "Markup":
    """Render a table that scrolls horizontally on a narrow screen.

    Args:
        headings: headings of the columns.
        rows: cells of each row, of which the first is the row's heading.
        caption: what the table shows.
        own: indices of the rows in bold.
        text: whether cells contain text, which is left-aligned and wrapped, rather than numbers.
    """
    return piece("parts.html", "table", headings=headings, rows=rows, caption=caption, own=own, text=text)


def image(pixels: NDArray[np.uint8], alternative: str, longest: int = 320) -> "Markup":
    """Embed gray pixels (H, W) as an inline JPEG whose longer side has at most `longest` pixels."""
    picture = Image.fromarray(np.asarray(pixels))
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=82, optimize=True)
    data, (width, height) = _base64(buffer.getvalue()), picture.size
    return piece("parts.html", "image", kind="jpeg", data=data, alternative=alternative, width=width, height=height)


def png(content: bytes, alternative: str) -> "Markup":
    """Embed the content of a PNG file as an inline image."""
    return piece("parts.html", "image", kind="png", data=_base64(content), alternative=alternative)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(__package__ or "", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
