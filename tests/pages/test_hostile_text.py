"""On every page, text that looks like markup stays text, wherever a page shows a value."""

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from jinja2 import Environment, meta
from tests.pages.html_reader import Reader

from crossray.pages import page

HOSTILE = "</style></script><script>alert(1)</script><img src=x onerror=alert(2)>\" onload='x' & {{ 7 * 7 }}"

TEMPLATES = {path.name: path.read_text() for path in (files(page.__package__) / "templates").iterdir()}
PAGES = [name for name, source in TEMPLATES.items() if "{% block content %}" in source and name != "base.html"]
PAGES += [name for name, source in TEMPLATES.items() if re.search(r'{% extends "(?!base)', source)]

#: What a page is not given by its data, or needs as a number.
OURS: dict[str, Any] = {"layers": 2}


class Everything(str):
    """Hostile text that is also whatever a template takes it for: its fields, and its two parts, are hostile too."""

    def __getattr__(self, name: str) -> "Everything":
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __getitem__(self, key: Any) -> "Everything":  # type: ignore[override]
        return self

    def __iter__(self) -> Iterator["Everything"]:  # type: ignore[override]
        return iter((self, self))


def variables(name: str) -> set[str]:
    """Names that a template and those that it builds on take from outside."""
    tree = Environment(autoescape=True).parse(TEMPLATES[name])
    found = meta.find_undeclared_variables(tree)
    return found.union(*(variables(other) for other in meta.find_referenced_templates(tree) if other))


@pytest.mark.parametrize("name", PAGES)
def test_hostile_text_stays_text_wherever_a_page_shows_a_value(name: str) -> None:
    values = dict.fromkeys(variables(name) - {"title", "style", "script", "policy"}, Everything(HOSTILE))
    reader = Reader(page.document(name, HOSTILE, **{**values, **OURS}))
    assert not reader.named("script") and not reader.named("img")
    assert not [key for _, attributes in reader.tags for key in attributes if key.startswith("on")]
    assert "".join(reader.text).count(HOSTILE) > len(values) / 2


def test_no_template_switches_escaping_off() -> None:
    sources = "".join(source for name, source in TEMPLATES.items() if name.endswith(".html"))
    assert not re.findall(r"\|\s*safe|autoescape|\bMarkup\b", sources)
    assert len(PAGES) >= 7
