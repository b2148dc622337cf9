"""Two spellings of one name: of patients, and of files on the disk."""

import unicodedata
from pathlib import Path

import pytest

from crossray.data.sources.identifiers import PathError, PathFinder, identifier


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (unicodedata.normalize("NFC", "Müller"), unicodedata.normalize("NFD", "Müller")),
        ("12", "12.0"),
        ("12", " 12.00 "),
    ],
)
def test_spellings_of_one_identifier(one: str, other: str) -> None:
    assert identifier(one) == identifier(other)


@pytest.mark.parametrize(("one", "other"), [("12", "012"), ("12", "12.5"), ("a", "A"), ("1.0.0", "1"), ("p1.0", "p1")])
def test_different_identifiers(one: str, other: str) -> None:
    assert identifier(one) != identifier(other)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a\\b.png in both spellings' order, and a decomposed name in a decomposed folder."""
    root = tmp_path / "root"
    for name in ("a/0.png", unicodedata.normalize("NFD", "Bücher/Müller.png"), "odd\\name.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (tmp_path / "outside.png").touch()
    return root


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a/0.png", "a/0.png"),
        ("a\\0.png", "a/0.png"),
        (".\\a\\0.png", "a/0.png"),
        ("a/../a/0.png", "a/../a/0.png"),
        ("odd\\name.png", "odd\\name.png"),
        (unicodedata.normalize("NFC", "Bücher/Müller.png"), unicodedata.normalize("NFD", "Bücher/Müller.png")),
        (unicodedata.normalize("NFC", "Bücher\\Müller.png"), unicodedata.normalize("NFD", "Bücher/Müller.png")),
    ],
)
def test_names_that_mean_a_file(folder: Path, name: str, found: str) -> None:
    assert PathFinder(folder).existing(name) == folder / found


def test_an_absolute_path_within_the_folder_is_taken(folder: Path) -> None:
    assert PathFinder(folder).existing(str(folder / "a/0.png")) == folder / "a/0.png"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../outside.png", "is outside"),
        ("..\\outside.png", "is outside"),
        ("/etc/passwd", "is absolute and outside"),
        ("C:\\a\\0.png", "another system"),
        ("c:/a/0.png", "another system"),
        ("A/0.png", "does not exist"),
        ("a/0.PNG", "capital letters"),
        ("a/1.png", "does not exist"),
        ("a/\0.png", "does not exist"),
        ("x" * 5000, "does not exist"),
        (".", "is outside"),
        ("link.png", "is outside the folder"),
    ],
)
def test_names_that_mean_none(folder: Path, name: str, reason: str) -> None:
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    with pytest.raises(PathError, match=reason):
        PathFinder(folder).existing(name)
