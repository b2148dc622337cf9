"""Self-contained HTML pages: one file, no network. Everything that comes from data is escaped here."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --warn: #b45309; --good: #15803d; --bad: #b91c1c; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
.notice { border-left: .3rem solid var(--warn); background: var(--soft); padding: .6rem 1rem; margin: 1rem 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tr.own td { font-weight: 600; }
small, .muted { opacity: .7; font-weight: 400; } .good { color: var(--good); } .bad { color: var(--bad); }
.study { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); gap: 1rem; padding: 1rem 0;
  border-top: 1px solid var(--line); } .views { display: flex; gap: .5rem; }
.views img { width: 50%; align-self: start; border-radius: .3rem; }
.study p { margin: .1rem 0 .7rem; } figure { margin: 0; } svg { max-width: 100%; height: auto; }
@media (max-width: 40rem) { .study { grid-template-columns: 1fr; } }
"""


def document(title: str, body: Sequence[str]) -> str:
    """A whole HTML page from ready-made pieces of body."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def heading(text: str) -> str:
    """A section heading."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; `kind` is one of "", "notice", "muted", "good", "bad"."""
    return f'<p class="{escape(kind)}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], own: int | None = None) -> str:
    """A table whose first column is left-aligned; row `own` is set in bold."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in headings)
    body = "".join(
        f"<tr{' class=own' if index == own else ''}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for index, row in enumerate(rows)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def image(pixels: NDArray[np.uint8], alternative: str) -> str:
    """(H, W) grey pixels as an inline PNG."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(buffer, format="PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{escape(alternative)}">'


def study(identifier: str, views: Sequence[str], texts: Mapping[str, str]) -> str:
    """One study: its views (from `image`) beside named texts."""
    named = "".join(f"<small>{escape(name)}</small><p>{escape(text)}</p>" for name, text in texts.items())
    pictures = f'<div class="views">{"".join(views)}</div><small>{escape(identifier)}</small>'
    return f'<article class="study"><div>{pictures}</div><div>{named}</div></article>'


def curve(points: Sequence[tuple[float, float]], label: str, width: int = 360, height: int = 150) -> str:
    """A line chart as inline SVG, the ends of both axes written beside; "" for fewer than 2 points."""
    if len(points) < 2:
        return ""
    xs, ys = np.array(points, dtype=float).T
    low, high = float(ys.min()), float(ys.max())
    span = high - low or 1.0
    left, top, right, bottom = 48, 22, width - 8, height - 22
    px = left + (xs - xs[0]) / (xs[-1] - xs[0] or 1.0) * (right - left)
    py = bottom - (ys - low) / span * (bottom - top)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(px, py, strict=True))
    text = 'font-size="11" fill="currentColor"'
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{escape(label)}">'
        f'<text x="{left}" y="14" {text}>{escape(label)}</text>'
        f'<text x="2" y="{top + 4}" {text}>{high:.3g}</text><text x="2" y="{bottom}" {text}>{low:.3g}</text>'
        f'<text x="{left}" y="{height - 6}" {text}>{xs[0]:g}</text>'
        f'<text x="{right}" y="{height - 6}" text-anchor="end" {text}>{xs[-1]:g}</text>'
        f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
    )
