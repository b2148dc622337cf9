"""The rooms of the site: which page is where, and in which order.

A room's `index.md` has the line `<!-- pages of this room -->`, which becomes its table of contents, one list for each
group. A page that is not named here is in the last group of its folder's room, or of the how-to guides, so that a new
page needs no entry.
"""

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

MARK = "<!-- pages of this room -->"

#: The page that lists the decisions; in the navigation they are below it.
DECISIONS = "decisions/README"

#: Room to group to patterns of its pages, in the order in which they are listed; the first pattern that fits decides.
ROOMS = {
    "tutorials": {
        "": ["tutorials/first-report", "tutorials/own-data", "tutorials/evaluation", "tutorials/ablation",
             "tutorials/plug-in", "tutorials/pacs", "tutorials/*"],
    },
    "explanation": {
        "Overview": ["explanation/*", "architecture", "decisions/README"],
        "Systems": ["models/baseline", "models/cmn", "models/rcan", "models/coacl", "models/uar", "models/revtaf",
                    "models/union", "liveness", "models/*"],
        "Results on IU X-Ray": ["results/index", "results/how-to-read", "results/aims", "results/main",
                                "results/reward", "results/decoding", "results/long-tail", "results/eye",
                                "results/alignment", "results/retrieval", "results/shift", "results/cost", "results/*"],
        "Synthetic studies": ["phantom", "demo", "first-run"],
        "Speed and robustness": ["speed", "data/hostile-input"],
    },
    "reference": {
        "": ["reference/commands", "reference/recipes", "reference/api", "reference/glossary", "data/labeler",
             "data/iu-xray-observations", "reference/*"],
    },
    "how-to": {
        "Get started": ["how-to/install", "how-to/commands", "how-to/*"],
        "Prepare data": ["data/manifest", "data/iu-xray", "data/mimic-cxr", "data/r2gen", "data/dicom", "data/*"],
        "Train": ["training", "ablations"],
        "Evaluate": ["evaluation", "significance", "scorecard", "chexbert", "alignment"],
        "Explain and deploy": ["explain", "confidence", "serving", "interoperability", "*"],
    },
    "project": {"": ["project/contributing", "project/changelog", "project/*"]},
}  # fmt: skip


def page_room(name: str) -> tuple[str, tuple[int, int]]:
    """Room of a page, and its place there: group, and rank in it."""
    folder = name.partition("/")[0]
    if folder in ROOMS and name != folder:
        return folder, _place(folder, name) or (len(ROOMS[folder]) - 1, len(name))
    for room in ROOMS:
        place = _place(room, name)
        if place:
            return room, place
    raise AssertionError(name)  # "*" fits everything


def _place(room: str, name: str) -> tuple[int, int] | None:
    for group, patterns in enumerate(ROOMS[room].values()):
        for rank, pattern in enumerate(patterns):
            if fnmatch(name, pattern):
                return group, rank
    return None


def _contents(app: Any, name: str, source: list[str]) -> None:
    if name == DECISIONS:
        found = "\n".join(sorted(f"/{page}" for page in app.env.found_docs if page.startswith("decisions/0")))
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n\n{found}\n```\n"
    if MARK not in source[0]:
        return
    room = name.partition("/")[0]
    pages: dict[int, list[tuple[int, str]]] = {}
    for page in app.env.found_docs:
        folder, _, rest = page.partition("/")
        nested = page.startswith(("reference/api/", "reference/recipes/", "decisions/0"))
        if nested or page == "index" or (rest == "index" and folder in ROOMS):
            continue
        where, (group, rank) = page_room(page)
        if where == room:
            pages.setdefault(group, []).append((rank, page))
    parts = []
    for group, title in enumerate(ROOMS[room]):
        entries = "\n".join(f"/{page}" for _, page in sorted(pages.get(group, [])))
        if not entries:
            continue
        heading = f"## {title}\n\n" if title else ""
        parts.append(f"{heading}```{{toctree}}\n:maxdepth: 1\n\n{entries}\n```")
    source[0] = source[0].replace(MARK, "\n\n".join(parts))


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("source-read", _contents)
    return {"parallel_read_safe": True, "version": str(Path(__file__).stat().st_mtime_ns)}
