"""The four rooms of the site: which page stands where.

A room's `index.md` has the line `<!-- pages of this room -->`, which becomes its table of contents. A page that is not
named here stands in the room of its folder, or in the how-to guides, so that a new page needs no entry.
"""

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

MARK = "<!-- pages of this room -->"

#: Room to the patterns of its pages, in the order in which they are listed; the first pattern that fits decides.
ROOMS = {
    "tutorials": ["tutorials/first-report", "tutorials/own-data", "tutorials/ablation", "tutorials/plug-in",
                  "tutorials/evaluation", "tutorials/pacs", "tutorials/*"],
    "explanation": ["explanation/*", "architecture", "models/*", "phantom", "first-run", "demo", "liveness", "speed",
                    "results/*", "decisions/README", "decisions/*"],
    "reference": ["reference/commands", "reference/recipes", "reference/api", "reference/glossary", "reference/*",
                  "data/labeler"],
    "how-to": ["how-to/*", "data/*", "training", "evaluation", "*"],
    "project": ["project/*"],
}  # fmt: skip


def page_room(name: str) -> tuple[str, int]:
    """Room of a page, and its rank there."""
    folder = name.partition("/")[0]
    if folder in ROOMS and name != folder:
        return folder, _rank(ROOMS[folder], name)
    for room, patterns in ROOMS.items():
        rank = _rank(patterns, name)
        if rank < len(patterns):
            return room, rank
    raise AssertionError(name)  # "*" fits everything


def _rank(patterns: list[str], name: str) -> int:
    return next((i for i, pattern in enumerate(patterns) if fnmatch(name, pattern)), len(patterns))


def _contents(app: Any, name: str, source: list[str]) -> None:
    if MARK not in source[0]:
        return
    room = name.partition("/")[0]
    pages = []
    for page in app.env.found_docs:
        nested = page.startswith(("reference/api/", "reference/recipes/"))
        if page == "index" or page.endswith("/index") or nested:
            continue
        where, rank = page_room(page)
        if where == room:
            pages.append((rank, page))
    entries = "\n".join(f"/{page}" for _, page in sorted(pages))
    source[0] = source[0].replace(MARK, f"```{{toctree}}\n:maxdepth: 1\n\n{entries}\n```")


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("source-read", _contents)
    return {"parallel_read_safe": True, "version": str(Path(__file__).stat().st_mtime_ns)}
