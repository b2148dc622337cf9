"""`crossray label`: tables of reports into tables of labels."""

import csv
import json
from pathlib import Path

import pytest

from crossray.commands.label import label
from crossray.errors import UserError
from crossray.text.label_table import read_reports
from crossray.text.observations import OBSERVATIONS, label_report

SECRET = "large effusion of a patient"


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "reports.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_labels_and_evidence(tmp_path: Path, encoding: str) -> None:
    report = 'No effusion.\nThe "heart", again, is enlarged'
    quoted = report.replace('"', '""')
    path = write(tmp_path, f'age,report,study_id\r\n70,"{quoted}",a\r\n\r\n60,,ä 2\r\n', encoding)
    label(path, tmp_path / "new" / "labels.csv", evidence=tmp_path / "evidence.jsonl")
    with (tmp_path / "new" / "labels.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first) == ["study_id", *OBSERVATIONS]
    assert {name: status for name, status in first.items() if status != "blank"} == {
        "study_id": "a", "cardiomegaly": "positive", "pleural_effusion": "negative",
    }  # fmt: skip
    assert second == {"study_id": "ä 2", **dict.fromkeys(OBSERVATIONS, "blank")}
    lines = [json.loads(line) for line in (tmp_path / "evidence.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["study_id"] for line in lines] == ["a", "ä 2"]
    assert [(entry["observation"], report[entry["start"] : entry["end"]]) for entry in lines[0]["evidence"]] == [
        ("pleural_effusion", "effusion"),
        ("cardiomegaly", 'heart", again, is enlarged'),
    ]
    assert lines[1]["evidence"] == []


@pytest.mark.parametrize("sign", [",", ";", "\t"])
@pytest.mark.parametrize("head", ["", "sep={}\n"])
def test_other_delimiters_and_capitals_in_the_header(tmp_path: Path, sign: str, head: str) -> None:
    text = f'{head.format(sign)}Study_ID{sign} REPORT\na{sign}"No effusion{sign} heart enlarged."\n'
    label(write(tmp_path, text), tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["study_id"], row["pleural_effusion"], row["cardiomegaly"]) == ("a", "negative", "positive")


def test_more_reports_than_are_labelled_at_once(tmp_path: Path) -> None:
    reports = ["No effusion.", "Effusion.", "Possible effusion."] * 200
    text = "study_id,report\n" + "".join(f"{place},{report}\n" for place, report in enumerate(reports))
    label(write(tmp_path, text), tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["study_id"] for row in rows] == [str(place) for place in range(600)]
    assert [row["pleural_effusion"] for row in rows] == [label_report(r).status("pleural_effusion") for r in reports]


def test_a_field_longer_than_pythons_limit(tmp_path: Path) -> None:
    label(write(tmp_path, f"study_id,report\na,{'word ' * 60_000}\n"), tmp_path / "labels.csv")
    assert csv.field_size_limit() == 131_072  # as before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: column study_id is missing"),
        ("study_id,text\n", "line 1: column report is missing"),
        ("study_id,report,report\n", "line 1: column report appears twice"),
        (f'study_id,report\na,"{SECRET}\n"\n ,{SECRET}\n', "line 4: column study_id: is empty"),
        (f"study_id,report\na,{SECRET}\nb,x\na,{SECRET}\n", "line 4: column study_id: the same as in line 2"),
        (f"study_id,report\na,{SECRET},7\n", "line 2: 3 columns where the header has 2"),
        (f'study_id,report\na,"{SECRET}"x\n', "line 2: not valid CSV"),
        (f'study_id,report\na,"{SECRET}\n', "line 2: not valid CSV"),
        (f"sep=;\nstudy_id;report\na;{SECRET}\na;x\n", "line 4: column study_id: the same as in line 3"),
        ("study_id,report\n\u00e9,x\ne\u0301,y\n", "line 3: column study_id: the same as in line 2"),
        (f"study_id,report\na,{{\\rtf1\\ansi {SECRET}\\par}}\n", "line 2: column report: is RTF, not plain text"),
    ],
)
def test_mistakes_name_line_and_column_and_leave_nothing(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        label(path, tmp_path / "labels.csv", evidence=tmp_path / "evidence.jsonl")
    assert str(caught.value).startswith(f"{path}: {message}")
    assert SECRET not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == [path]


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    out = tmp_path / "labels.csv"
    with pytest.raises(UserError, match=r"absent\.csv: cannot be read"):
        label(tmp_path / "absent.csv", out)
    with pytest.raises(UserError, match="is not UTF-8"):
        label(write(tmp_path, "study_id,report\nä,x\n", "latin-1"), out)
    path = write(tmp_path, "study_id,report\na,x\n")
    with pytest.raises(UserError, match="given twice"):
        label(path, path)
    with pytest.raises(UserError, match=r"folder: cannot be written"):
        (tmp_path / "folder").mkdir()
        label(path, tmp_path / "folder")
    assert path.read_text(encoding="utf-8").startswith("study_id")
    assert not out.exists()


@pytest.mark.parametrize(("name", "sign"), [("study", ";"), ("id", "\t"), ("Study_ID", ",")])
def test_the_study_has_the_name_of_other_tables_too(tmp_path: Path, name: str, sign: str) -> None:
    path = tmp_path / "reports.csv"
    path.write_text(f"{name}{sign}report\na{sign}Heart is large.\n")
    assert list(read_reports(path)) == [("a", "Heart is large.")]
