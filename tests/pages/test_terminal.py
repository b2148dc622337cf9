"""What commands print is shown as it is: names and reports may contain what rich would take for markup."""

import csv
import re
from pathlib import Path

import pytest
from rich.table import Table

from crossray.cli import main
from crossray.pages.tables import Grid
from crossray.pages.terminal import console

TEXT = "seen by Dr. [name], [/b] :heart:"


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


def test_lines_and_tables_show_square_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(TEXT, title=TEXT)
    table.add_row(TEXT)
    for shown in (TEXT, table, Grid(TEXT, ["study", "report"], [["1", TEXT]]).render()):
        console().print(shown)
    assert capsys.readouterr().out.count(TEXT) == 6


def test_a_file_named_like_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with Path("reports.csv").open("w", encoding="utf-8") as file:
        csv.writer(file).writerows([["study_id", "report"], ["1", "No effusion."]])
    main(["label", "reports.csv", "--out", "[red]/[/b].csv"])
    assert re.search(r"in \[red\]/\[/b\]\.csv", capsys.readouterr().out)
