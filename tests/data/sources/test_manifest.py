"""A user's own table: what is read, and how every bad row is named."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from tests.data.sources.openi import png

from crossray import cli
from crossray.data.sources import manifest, manifest_table
from crossray.data.sources.manifest import filled_template, read_manifest, write_template
from crossray.data.store import Dataset
from crossray.errors import UserError

SECRET = "Nodule of Mr Smith."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with images a.png, b.png and c.png."""
    for i, name in enumerate("abc"):
        (tmp_path / f"{name}.png").write_bytes(png(i))
    return tmp_path


def table(folder: Path, *rows: dict[str, Any], name: str = "studies.csv") -> Path:
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, "")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_csv_and_jsonl_say_the_same(folder: Path) -> None:
    rows = [
        {"study": "1", "patient": "p", "split": "val", "images": "a.png;b.png", "views": "PA;lateral",
         "findings": "Clear, all.\nFine.", "impression": "Good.", "indication": "Cough.", "edema": "0",
         "pneumonia": "uncertain"},
        {"study": "2", "patient": "q", "split": "test", "images": "c.png", "views": "", "findings": "Edema.",
         "impression": "", "indication": "", "edema": "positive", "pneumonia": ""},
    ]  # fmt: skip
    lists = [
        {**rows[0], "study": 1, "images": ["a.png", "b.png"], "views": ["pa", "lateral"], "edema": 0},
        {"study": "2", "patient": "q", "split": "test", "images": ["c.png"], "findings": "Edema.",
         "labels": {"edema": 1, "pneumonia": None}},
    ]  # fmt: skip
    read = read_manifest(table(folder, *rows))
    assert read == read_manifest(table(folder, *lists, name="studies.jsonl"))
    first, second = read.studies
    assert (first.id, first.patient, first.split, first.indication) == ("1", "p", "val", "Cough.")
    assert [(Path(image.name).name, image.position) for image in first.images] == [
        ("a.png", "pa"),
        ("b.png", "lateral"),
    ]
    assert first.labels == {"edema": "negative", "pneumonia": "uncertain"}
    assert second.labels == {"edema": "positive", "pneumonia": "blank"}
    assert second.images[0].position == "unknown"


def test_a_row_without_labels_among_others_has_none(folder: Path) -> None:
    rows = [
        {"images": "a.png", "findings": "Edema.", "labels": {"edema": 1}},
        {"images": "b.png", "findings": "Edema.", "labels": None},
        {"images": "c.png", "findings": "Edema."},
    ]
    labels = [study.labels for study in read_manifest(table(folder, *rows, name="studies.jsonl")).studies]
    assert labels == [{"edema": "positive"}, None, None]


def test_a_whole_report_is_parted_and_what_is_left_out_is_filled_in(folder: Path) -> None:
    path = table(
        folder,
        {"images": "a.png", "report": "INDICATION: Cough.\nFINDINGS: Large effusion.\nIMPRESSION: Effusion."},
        {"images": "b.png", "report": "No headings\nhere."},
    )
    first, second = read_manifest(path).studies
    assert (first.findings, first.impression, first.indication) == ("Large effusion.", "Effusion.", "Cough.")
    assert first.labels is not None and first.labels["pleural_effusion"] == "positive"
    assert second.findings == "No headings here."
    assert (first.id, first.patient) == ("line-4", "line-4")


@pytest.mark.parametrize(
    ("name", "missing"), [("studies.csv", "nan"), ("s.csv", "N/A"), ("studies.jsonl", float("nan"))]
)
def test_a_placeholder_is_no_patient(folder: Path, name: str, missing: object) -> None:
    rows = [{"study": f"s{i}", "patient": missing, "images": "a.png", "findings": "Clear."} for i in range(3)]
    assert [study.patient for study in read_manifest(table(folder, *rows, name=name)).studies] == ["s0", "s1", "s2"]


def test_a_drawn_split_keeps_patients_together(folder: Path) -> None:
    rows = [{"patient": f"p{i // 3}", "images": "a.png", "findings": "Clear."} for i in range(90)]
    studies = read_manifest(table(folder, *rows), seed=3).studies
    assert len({(study.patient, study.split) for study in studies}) == 30
    counts = [sum(study.split == split for study in studies) for split in ("train", "val", "test")]
    assert counts == [63, 9, 18]
    assert [s.split for s in studies] != [s.split for s in read_manifest(table(folder, *rows), seed=4).studies]


@pytest.mark.parametrize(
    ("row", "column", "message"),
    [
        ({"images": ""}, "images", "is empty"),
        ({"images": "absent.png"}, "images", "'absent.png' does not exist"),
        ({"images": "a.png;../a.png"}, "images", "'../a.png' is outside"),
        ({"images": "/etc/passwd"}, "images", "'/etc/passwd' is absolute and outside"),
        ({"images": "C:\\films\\1.png"}, "images", r"'C:\\\\films\\\\1.png' is an absolute path of another system"),
        ({"images": "x" * 5000}, "images", "'...x{37}' does not exist"),
        ({"images": "A.PNG"}, "images", "'A.PNG' does not exist, but a file whose name differs in capital letters"),
        ({"images": "."}, "images", "'.' is outside"),
        ({"images": "a.png;./a.png"}, "images", "an image is named twice"),
        ({"views": "pa;ap"}, "views", "2 positions for 1 image"),
        ({"views": "oblique"}, "views", "'oblique' is not one of unknown, frontal, pa"),
        ({"views": SECRET}, "views", "a text of 19 characters is not one of unknown"),
        ({"findings": " "}, "findings", "is empty"),
        ({"report": SECRET}, "report", "is given together with sections"),
        ({"findings": "", "report": "IMPRESSION: x."}, "report", "has no findings section"),
        ({"split": "training"}, "split", "'training' is not train, val or test"),
        ({"split": ""}, "split", "'' is not train"),
        ({"study": "first"}, "study", "'first' the same as in line 2"),
        ({"patient": "first", "split": "test"}, "split", "the patient is in another split in line 2"),
        ({"edema": "maybe"}, "edema", "'maybe' is not one of blank, positive"),
    ],
)
@pytest.mark.parametrize("name", ["studies.csv", "studies.jsonl"])
def test_every_fault_is_named(folder: Path, row: dict[str, str], column: str, message: str, name: str) -> None:
    good = {"study": "first", "patient": "first", "split": "train", "images": "a.png", "views": "", "report": "",
            "findings": SECRET, "edema": ""}  # fmt: skip
    path = table(folder, good, {**good, "study": "second", "patient": "second", **row}, name=name)
    line = 3 if name.endswith("csv") else 2
    message = message.replace("line 2", f"line {line - 1}")
    with pytest.raises(UserError, match=rf"1 bad row; .*\n  {name}: line {line}: {column}: {message}") as caught:
        read_manifest(path)
    assert "Smith" not in str(caught.value)
    read = read_manifest(path, skip_bad=True)
    assert [study.id for study in read.studies] == ["first"]
    assert [(fault.line, fault.column) for fault in read.faults] == [(line, column)]


def test_many_faults_are_counted(folder: Path) -> None:
    path = table(folder, *({"images": "absent.png", "findings": "x"} for _ in range(25)))
    with pytest.raises(UserError, match="25 bad rows") as caught:
        read_manifest(path)
    assert str(caught.value).count("\n") == 1
    assert str(caught.value).endswith(": 'absent.png': 25 rows (lines 2, 3, 4, ...)")
    with pytest.raises(UserError, match="no row can be used"):
        read_manifest(path, skip_bad=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"images,finding\na.png,x\n", "column 'finding' is unknown"),
        ("x.csv", b"images,age,sex,findings\na.png,1,f,x\n", "columns 'age', 'sex' are unknown; remove them"),
        ("x.csv", b"images,study\na.png,x\n", r"column findings \(or report\): is missing"),
        ("x.csv", b"", "column images: is missing"),
        ("x.csv", b"images,findings\na.png\n", "line 2: row: another number of fields"),
        ("x.csv", b"images,findings\na.png,x,y\n", "line 2: row: another number of fields"),
        ("x.csv", b'images,findings\na.png,"x\n', "not valid CSV"),
        ("x.csv", b"\xff\xfe\x00", "not UTF-8"),
        ("x.jsonl", b'{"images": "a.png", "findings": "x"}\n{"images"\n', "line 2: row: is not JSON"),
        ("x.jsonl", b'{"images": "a.png", "findings": "x"}\n[1]\n', "line 2: row: is not an object"),
        ("x.jsonl", b'{"images": "a.png", "findings": 1}\n', "line 1: findings: is not text"),
        ("x.jsonl", b'{"images": [["a.png"]], "findings": "x"}\n', "line 1: images: is not text"),
        ("x.jsonl", b'{"images": "a.png", "findings": "x", "labels": [1]}\n', "line 1: labels: is not an object"),
        ("x.jsonl", b'{"images": "a.png", "findings": "x", "labels": ""}\n', "line 1: labels: is not an object"),
        ("x.jsonl", b'{"images": "a.png", "findings": "x", "labels": {"gout": 1}}\n', "unknown observation"),
        ("x.jsonl", b'{"images": "a.png", "findings": "\\ud800"}\n', "an incomplete character"),
        ("x.jsonl", b"[" * 100_000, "is missing"),
        ("x.xlsx", b"PK", "neither .csv nor .jsonl"),
    ],
)
def test_broken_tables_end_in_a_sentence(folder: Path, name: str, content: bytes, message: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_manifest(folder / name)


def test_what_would_fill_the_memory_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(folder, *({"images": "a.png", "findings": f"{n}"} for n in range(3)))
    monkeypatch.setattr(manifest_table, "MAX_LINE", 16)
    with pytest.raises(UserError, match="a line has more than 16 characters"):
        read_manifest(path)
    monkeypatch.setattr(manifest_table, "MAX_LINE", 17)
    assert len(read_manifest(path).studies) == 3
    monkeypatch.setattr(manifest, "MAX_ROWS", 2)
    with pytest.raises(UserError, match="more than 2 rows"):
        read_manifest(path)
    monkeypatch.setattr(manifest_table, "MAX_BYTES", 20)
    with pytest.raises(UserError, match="larger than 0 MiB"):
        read_manifest(path)


def test_the_template_can_be_filled_in(tmp_path: Path) -> None:
    write_template(tmp_path / "studies.csv")
    for name in ("1/frontal.png", "1/lateral.png", "2/frontal.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(png())
    assert [study.split for study in read_manifest(tmp_path / "studies.csv").studies] == ["train", "test"]
    with pytest.raises(UserError, match="exists already"):
        write_template(tmp_path / "studies.csv")


def test_the_command_skips_bad_rows_on_request(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(folder, {"images": "a.png", "findings": "Clear."}, {"images": "absent.png", "findings": SECRET})
    arguments = ["prepare", "manifest", str(path), "--out", str(folder / "out"), "--size", "32", "--workers", "0"]
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert not (folder / "out").exists()
    assert "line 3: images" in capsys.readouterr().err
    for _ in range(2):  # the second time it is already prepared
        cli.main([*arguments, "--skip-bad", "true"])
    lines = [json.loads(line) for line in (folder / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [(line["study"], line["step"]) for line in lines] == [("line-3", "manifest")]
    dataset = Dataset.open(folder / "out")
    assert dataset.info.counts["read"] == 2
    assert dataset.info.counts["rejected"] == {"manifest": 1}
    assert "line 3: images" in (folder / "out" / "rejected.jsonl").read_text().replace('\\"', "")


def test_the_command_writes_the_template(tmp_path: Path) -> None:
    cli.main(["prepare", "manifest", "--template", str(tmp_path / "t.csv")])
    assert (tmp_path / "t.csv").exists()


def test_the_command_prints_the_template(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["prepare", "manifest", "--template"])
    assert capsys.readouterr().out == filled_template()
    assert filled_template().startswith("study,patient,split,images,views,findings,")
