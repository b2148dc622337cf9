"""Links from pages into the source: in the repository they lead to the file, on the site to its highlighted copy.

`[LRE](../src/crossray/models/revtaf.py#Revtaf)` works in both; a name that the file does not define is a warning.
Files at the root of the repository, such as CONTRIBUTING.md, are pages of `project/`.
"""

import ast
import os
import posixpath
import re
from functools import cache
from pathlib import Path
from typing import Any

from sphinx.util import logging

ROOT = Path(__file__).parents[2]

#: Packages, and modules of `crossray` itself, whose source the pages of the papers link to.
_SHOWN = {"models", "layers", "decoding", "evaluation", "api", "registry.py", "errors.py"}

_LOG = logging.getLogger(__name__)
_SOURCE = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])+)\]\(((?:\.\./)*src/crossray/[\w/]+\.py)(?:#(\w+(?:\.\w+)*))?\)")
_PROJECT = re.compile(r"\]\(((?:\.\./)+)([A-Z_]+)\.md\)")
_OTHER = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])+)\]\(((?:\.\./)+(?:tests|benchmarks|constraints|\.ci)[\w/.-]*)\)")


@cache
def _defined(path: Path) -> frozenset[str]:
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
            names |= {f"{node.name}.{inner.name}" for inner in getattr(node, "body", ())
                      if isinstance(inner, ast.FunctionDef)}  # fmt: skip
    return frozenset(names)


@cache
def _places() -> dict[str, Path]:
    """Class or function of the shown packages to its file; names that two files define are left out."""
    found: dict[str, Path] = {}
    twice = set()
    for package in sorted(_SHOWN):
        for path in sorted((ROOT / "src" / "crossray" / package).rglob("*.py")):
            for name in _defined(path):
                twice |= {name} & found.keys()
                found[name] = path
    return {name: path for name, path in found.items() if name not in twice}


def _linked(table_cell: str, folder: str, home: Path) -> str:
    """Names in backquotes become links into the source, where they can be found."""

    def link(match: re.Match[str]) -> str:
        name = match[1]
        *module, last = name.removeprefix("crossray.").split(".")
        while module and module[0].islower() and not last.islower() and len(module) > 1 and not module[-1].islower():
            last = f"{module.pop()}.{last}"
        path: Path | None = ROOT / "src" / "crossray" / name
        anchor = ""
        if not name.endswith(".py"):
            path = (
                ROOT.joinpath("src", "crossray", *module).with_suffix(".py") if module and module[0].islower() else None
            )
            anchor = last if path else name
            if path and not path.is_file():
                path, anchor = path.with_suffix("") / f"{last}.py", ""
        if path is None:
            path = home if home.is_file() and anchor in _defined(home) else _places().get(anchor)
        if path is None or not path.is_file() or (anchor and anchor not in _defined(path)):
            return match[0]
        if path.relative_to(ROOT / "src" / "crossray").parts[0] not in _SHOWN:
            return match[0]
        dotted = path.relative_to(ROOT / "src").with_suffix("").as_posix()
        fragment = f"#{anchor}" if anchor else ""
        return f'<a href="{folder}_modules/{dotted}.html{fragment}">{match[0]}</a>'

    return re.sub(r"`([\w./]+)`", link, table_cell)


def _tables(name: str, text: str) -> str:
    """Tables of docs/models whose last column is called "where"."""
    home = ROOT / "src" / "crossray" / f"{name}.py"
    lines, inside = [], False
    for line in text.split("\n"):
        if inside and line.startswith("|"):
            head, bar, cell = line.rstrip().removesuffix("|").rpartition("|")
            line = head + bar + _linked(cell, "../", home) + "|"
        else:
            inside = bool(re.search(r"\| *where *\|\s*$", line))
        lines.append(line)
    return "\n".join(lines)


def _read(app: Any, name: str, source: list[str]) -> None:
    folder = posixpath.dirname(name)
    up = os.path.relpath(".", folder or ".")

    def link(match: re.Match[str]) -> str:
        text, path, anchor = match.groups()
        file = (Path(app.srcdir) / folder / path).resolve()
        if not file.is_file():
            _LOG.warning("%s does not exist", path, location=name)
            return text
        if anchor and anchor not in _defined(file):
            _LOG.warning("%s defines no %s", path, anchor, location=name)
        if file.relative_to(ROOT / "src" / "crossray").parts[0] not in _SHOWN:
            return text  # in the repository, not on the site
        page = file.relative_to(ROOT / "src").with_suffix(".html").as_posix()
        if page.endswith("/__init__.html"):
            page = page.removesuffix("/__init__.html") + ".html"
        fragment = f"#{anchor}"
        return f'<a href="{up}/_modules/{page}{fragment if anchor else ""}">{text}</a>'

    def project(match: re.Match[str]) -> str:
        page = {"README": "index"}.get(match[2], f"project/{match[2].lower().replace('_', '-')}")
        return f"]({up}/{page}.md)" if (Path(app.srcdir) / f"{page}.md").exists() else match[0]

    def other(match: re.Match[str]) -> str:
        if not (Path(app.srcdir) / folder / match[2]).exists():
            _LOG.warning("%s does not exist", match[2], location=name)
        return match[1]  # tests and benchmarks are in the repository, not on the site

    if name.startswith("models/"):
        source[0] = _tables(name, source[0])
    source[0] = _OTHER.sub(other, _PROJECT.sub(project, _SOURCE.sub(link, source[0])))


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "env_version": 1}
