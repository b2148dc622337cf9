"""The check of links inside the built site, on pages of a few lines."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def broken():
    spec = importlib.util.spec_from_file_location("check_links", ROOT / "docs" / "check_links.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.broken


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("other.html", None),
        ("other.html#there", None),
        ("folder/", None),
        ("https://example.org/x", None),
        ("other.html#gone", "no such place"),
        ("gone.html", "no such file"),
    ],
)
def test_links(tmp_path: Path, broken, link: str, fault: str | None) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "index.html").write_text("")
    (tmp_path / "other.html").write_text('<p id="there">')
    (tmp_path / "page.html").write_text(f'<a href="{link}">')
    assert broken(tmp_path) == ([] if fault is None else [f"page.html: {link}: {fault}"])


@pytest.mark.parametrize(
    ("tag", "fault"),
    [
        ('<script src="https://example.org/x">', True),
        ('<link rel="stylesheet" href="//example.org/x">', True),
        ('<img src="data:image/png;base64,AA==">', False),
    ],
)
def test_nothing_is_loaded_from_a_network(tmp_path: Path, broken, tag: str, fault: bool) -> None:
    (tmp_path / "page.html").write_text(tag)
    assert [line.endswith("loaded from elsewhere") for line in broken(tmp_path)] == [True] * fault


@pytest.mark.parametrize("arguments", [[], ["no-such-folder"]])
def test_without_a_folder_the_usage_is_printed(arguments: list[str]) -> None:
    command = [sys.executable, str(ROOT / "docs" / "check_links.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("usage: ")
