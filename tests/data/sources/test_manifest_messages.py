"""Tables as people's programs write them, and messages that are true of what stands there."""

import json
import unicodedata
from pathlib import Path

import pytest
from tests.data.sources.openi import png

from crossray import cli
from crossray.data.sources.manifest import read_manifest
from crossray.data.store import Dataset
from crossray.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(1, 4):
        (tmp_path / f"{number}.png").write_bytes(png(number))
    return tmp_path


def written(folder: Path, text: str, name: str = "m.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def refusal(folder: Path, text: str, name: str = "m.csv") -> str:
    with pytest.raises(UserError) as caught:
        read_manifest(written(folder, text, name))
    return str(caught.value)


class TestTables:
    @pytest.mark.parametrize(
        "text",
        [
            "images;findings\n1.png;clear, all\n",
            'images;findings\n"1.png";"clear, all"\n',
            "images\tfindings\n1.png\tclear, all\n",
            'sep=,\nimages,findings\n1.png,"clear, all"\n',
            "sep=;\r\nimages;findings\r\n1.png;clear, all\r\n",
            '\ufeffImages , FINDINGS\n1.png,"clear, all"\n',
            '"images","findings"\n"1.png","clear, all"\n\n',
        ],
    )
    def test_ways_to_write_a_table(self, folder: Path, text: str) -> None:
        (study,) = read_manifest(written(folder, text)).studies
        assert study.findings == "clear, all"
        assert [Path(image.name).name for image in study.images] == ["1.png"]

    def test_several_images_between_semicolons(self, folder: Path) -> None:
        (study,) = read_manifest(written(folder, 'images;findings\n"1.png;2.png";clear\n')).studies
        assert len(study.images) == 2

    def test_a_field_as_long_as_a_line_may_be(self, folder: Path) -> None:
        text = "a " * 250_000
        (study,) = read_manifest(written(folder, f"images,findings\n1.png,{text}\n")).studies
        assert study.findings == text.strip()

    def test_a_field_of_many_lines_that_is_too_long(self, folder: Path) -> None:
        message = refusal(folder, 'images,findings\n1.png,clear\n2.png,"' + "word\n" * 250_000 + '"\n')
        assert "not valid CSV (field larger than field limit" in message

    def test_the_line_is_that_of_the_fault(self, folder: Path) -> None:
        assert "line 3: not valid CSV" in refusal(folder, 'images,findings\n1.png,clear\n2.png,"clear"x\n')

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            (",images,findings\n0,1.png,clear\n", "column 1 has no name"),
            ("images,findings,split,split\n1.png,clear,train,test\n", "column 'split': appears twice"),
            ("images,Images,findings\n1.png,2.png,clear\n", "column 'images': appears twice"),
            ("images,findings,findings\n1.png,one,two\n", "column 'findings': appears twice"),
            ("images,findings,edema,edema\n1.png,one,1,0\n", "column 'edema': appears twice"),
        ],
    )
    def test_columns(self, folder: Path, text: str, words: str) -> None:
        assert words in refusal(folder, text)

    def test_keys(self, folder: Path) -> None:
        message = refusal(folder, '{"images": "1.png", "findings": "one", "findings": "two"}\n', "m.jsonl")
        assert "line 1: row: 'findings' is a key that appears twice" in message or "column" in message
        row = {"images": "1.png", "findings": "x", "labels": {"edema": 1}, "edema": 0}
        assert "'edema' is given together with columns of observations" in refusal(
            folder, json.dumps(row) + "\n", "m.jsonl"
        )


class TestFaults:
    def test_equal_faults_are_summed_up(self, folder: Path) -> None:
        rows = ["1.png,Axial,clear"] * 11 + ["1.png,Coronal,clear"] * 2 + ["1.png,AP Supine,clear", "1.png,L,clear"]
        message = refusal(folder, "images,views,findings\n" + "\n".join(rows) + "\n")
        assert "13 bad rows" in message
        assert message.count("\n") == 1
        assert message.endswith("'Axial': 11 rows (lines 2, 3, 4, ...), 'Coronal': 2 rows (lines 13, 14)")

    def test_usual_words_for_views_are_read(self, folder: Path) -> None:
        words = ["AP Supine", "L", "PA", "Lateral", "portable", "LL", "p.a."]
        rows = "".join(f"1.png,{word},clear\n" for word in words)
        studies = read_manifest(written(folder, "images,views,findings\n" + rows)).studies
        found = [study.images[0].position for study in studies]
        assert found == ["ap", "lateral", "pa", "lateral", "ap", "lateral", "pa"]

    def test_many_values_are_cut(self, folder: Path) -> None:
        rows = "".join(f"gone-{number}.png,clear\n" for number in range(500))
        message = refusal(folder, "images,findings\n" + rows)
        assert "500 bad rows" in message and "and 490 more rows" in message
        assert len(message) < 1000

    @pytest.mark.parametrize("column", ["views", "split", "edema"])
    def test_report_text_in_another_column_is_not_repeated(self, folder: Path, column: str) -> None:
        text = "Mr Smith has a nodule."
        message = refusal(folder, f"images,findings,{column}\n1.png,clear,{text}\n")
        assert f"a text of {len(text)} characters" in message and "Smith" not in message

    def test_a_long_value_is_cut(self, folder: Path) -> None:
        message = refusal(folder, f"images,findings,split\n1.png,clear,{'x' * 90}\n")
        assert f"'{'x' * 37}...'" in message and "x" * 38 not in message


def test_frontal_views_come_first_whatever_the_list_says(folder: Path) -> None:
    text = "images,views,findings\n1.png;2.png;3.png,lateral;lateral;pa,clear\n"
    (study,) = read_manifest(written(folder, text)).studies
    assert [image.position for image in study.images] == ["pa", "lateral", "lateral"]
    assert [Path(image.name).name for image in study.images] == ["3.png", "1.png", "2.png"]


@pytest.mark.parametrize(
    ("one", "other"), [("12", "12.0"), tuple(unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))]
)
def test_a_patient_in_two_spellings_is_one(folder: Path, one: str, other: str) -> None:
    text = f"images,findings,patient,split\n1.png,clear,{one},train\n2.png,clear,{other},test\n"
    assert "the patient is in another split in line 2" in refusal(folder, text)


def test_a_number_is_a_name_in_jsonl(folder: Path) -> None:
    rows = [{"images": "1.png", "findings": "x", "patient": 12}, {"images": "2.png", "findings": "x", "patient": 12.0}]
    studies = read_manifest(written(folder, "".join(json.dumps(row) + "\n" for row in rows), "m.jsonl")).studies
    assert [study.patient for study in studies] == ["12", "12"]


class TestPreparedAgain:
    """A dataset knows the images that it was made of."""

    def prepare(self, folder: Path, *more: str) -> None:
        arguments = ["prepare", "manifest", str(folder / "m.csv"), "--out", str(folder / "out")]
        cli.main([*arguments, "--size", "32", "--workers", "0", *more])

    @pytest.mark.parametrize("by", ["size_time", "digest"])
    def test_a_repaired_image_is_noticed(self, folder: Path, by: str, capsys: pytest.CaptureFixture[str]) -> None:
        whole = (folder / "2.png").read_bytes()
        (folder / "2.png").write_bytes(whole[:100])
        written(folder, "images,findings\n1.png,clear\n2.png,clear\n")
        self.prepare(folder, "--identity", by)
        assert Dataset.open(folder / "out").info.counts["rejected"] == {"broken_image": 1}
        (folder / "2.png").write_bytes(whole)
        with pytest.raises(SystemExit) as stop:
            self.prepare(folder, "--identity", by)
        assert stop.value.code == 2
        assert "the image files or --identity have changed since this dataset was prepared" in capsys.readouterr().err

    def test_the_same_images_are_said_to_be_prepared(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        written(folder, "images,findings\n1.png,clear\n2.png,clear\n")
        self.prepare(folder)
        assert not caplog.messages
        self.prepare(folder)
        assert caplog.messages == [
            f"{folder / 'out'}: is already prepared and was not read again; remove the folder to prepare it anew"
        ]

    def test_a_copy_with_another_time_is_the_same_by_its_digest(self, folder: Path) -> None:
        import os

        written(folder, "images,findings\n1.png,clear\n2.png,clear\n")
        self.prepare(folder, "--identity", "digest")
        os.utime(folder / "1.png", (1, 1))
        self.prepare(folder, "--identity", "digest")
        (folder / "1.png").write_bytes((folder / "3.png").read_bytes())
        with pytest.raises(SystemExit):
            self.prepare(folder, "--identity", "digest")
