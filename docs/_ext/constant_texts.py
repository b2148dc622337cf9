"""The text of a constant (`#:` comments) is shown as it is written.

napoleon takes what stands before the first colon for the type of the constant, which these comments do not give.
"""

from typing import Any

_KINDS = ("attribute", "data")


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx: keep the lines before napoleon reads them (its priority is 500), and put them back."""
    kept: dict[str, list[str]] = {}

    def keep(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
        if what in _KINDS:
            kept[name] = list(lines)

    def put_back(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
        lines[:] = kept.pop(name, lines)

    app.connect("autodoc-process-docstring", keep, priority=400)
    app.connect("autodoc-process-docstring", put_back, priority=600)
    return {"parallel_read_safe": True}
