"""What a manifest's column `report` may hold: sections, none, or nothing but a word for nothing."""

import csv
from pathlib import Path

import pytest
from PIL import Image

from crossray import cli
from crossray.data.sources.manifest import read_manifest
from crossray.data.study import Study
from crossray.errors import UserError


def study(folder: Path, **columns: str) -> Study:
    Image.new("L", (8, 8)).save(folder / "a.png")
    with (folder / "m.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["images", *columns], ["a.png", *columns.values()]])
    return read_manifest(folder / "m.csv").studies[0]


def test_a_last_paragraph_is_no_findings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no findings section.*not understood: 'SCAN NOTES'"):
        study(tmp_path, report="INDICATION: Cough.\n\nSCAN NOTES: Large effusion.\n\nCHECKED BY X\n\nOn Monday")


def test_what_is_not_kept_is_counted(tmp_path: Path) -> None:
    found = study(tmp_path, report="TECHNIQUE: Two views.\nRESULT: No mass\nLarge effusion\nSIGNED BY: Dr X")
    assert found.findings == "No mass. Large effusion"
    assert found.extra == {"unread": {"words": 6, "headings": []}}
    assert found.labels is not None
    assert found.labels["pleural_effusion"] == "positive"


def test_an_addendum_is_kept(tmp_path: Path) -> None:
    found = study(tmp_path, report="FINDINGS: Clear.\nADDENDUM: Large pneumothorax, told by phone.")
    assert (found.findings, found.extra) == ("Clear.", {"addendum": "Large pneumothorax, told by phone."})


def test_the_words_of_addenda_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study(tmp_path, report="TECHNIQUE: Two views.\nFINDINGS: Clear.\nADDENDUM: Large pneumothorax.")
    Image.new("L", (40, 40)).save(tmp_path / "a.png")
    arguments = ["prepare", "manifest", str(tmp_path / "m.csv"), "--out", str(tmp_path / "d"), "--size", "32"]
    cli.main([*arguments, "--workers", "0"])
    printed = capsys.readouterr().out
    assert "2 words of 1 report are outside the stored sections" in printed
    assert "2 words of 1 addendum are stored beside the sections" in printed


@pytest.mark.parametrize("word", ["nan", "None", "N/A", "NULL", "-", "#N/A"])
@pytest.mark.parametrize("column", ["report", "findings"])
def test_a_word_for_nothing_is_an_empty_report(tmp_path: Path, column: str, word: str) -> None:
    with pytest.raises(UserError, match="is empty"):
        study(tmp_path, **{column: word})


def test_text_without_headings_is_the_findings_as_a_whole(tmp_path: Path) -> None:
    assert study(tmp_path, report="Chest film\n\nNo mass.").findings == "Chest film. No mass."


@pytest.mark.parametrize("column", ["report", "findings"])
def test_rich_text_is_refused(tmp_path: Path, column: str) -> None:
    with pytest.raises(UserError, match=f"{column}.*is RTF, not plain text"):
        study(tmp_path, **{column: r"{\rtf1\ansi FINDINGS: No mass.\par}"})


def test_an_image_of_two_patients_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    table = tmp_path / "m.csv"
    table.write_text("patient,study,images,findings\np,1,a.png,Clear.\np,2,a.png,Clear.\n", encoding="utf-8")
    read_manifest(table)
    assert not caplog.messages
    table.write_text("patient,study,images,findings\np,1,a.png,Clear.\nq,2,a.png,Clear.\n", encoding="utf-8")
    read_manifest(table)
    assert "1 images belong to more than one patient" in caplog.text
