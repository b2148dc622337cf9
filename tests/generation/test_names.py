"""File names that are no UTF-8, and terminals that are none either: what is written and printed never raises."""

import io
import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.data.images.test_dicom_contradictions import film

from crossray import cli
from crossray.data.store import Dataset
from crossray.files.names import printable
from crossray.generation.files import study_ids


def odd(folder: Path, name: bytes = b"caf\xe9.png") -> Path:
    path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
    path.parent.mkdir(exist_ok=True)
    return path


def test_printable_is_utf8_and_keeps_what_is() -> None:
    assert printable("Müller/1.png") == "Müller/1.png"
    assert printable(os.fsdecode(b"caf\xe9")) == "caf\\xe9"


def test_names_of_studies(tmp_path: Path) -> None:
    assert study_ids([[odd(tmp_path)]]) == ["caf\\xe9"]


def test_a_manifest_with_such_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd(tmp_path, b"s/caf\xe9.png").write_bytes(b"damaged")
    Image.fromarray(film()).save(odd(tmp_path, b"t/caf\xe9.png"))
    (tmp_path / "m.csv").write_text("images,findings\ns,clear\nt,clear\n")
    arguments = ["prepare", "manifest", str(tmp_path / "m.csv"), "--out", str(tmp_path / "d"), "--size", "32"]
    cli.main([*arguments, "--workers", "0"])
    assert Dataset.open(tmp_path / "d").studies == 1
    (line,) = (tmp_path / "d" / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert "caf\\xe9.png: not a PNG, JPEG" in json.loads(line)["reason"]


def test_a_terminal_without_the_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    path = tmp_path / "Müller.csv"
    cli.main(["prepare", "manifest", "--template", str(path)])
    stream.flush()
    assert b"M\\xfcller.csv written" in stream.buffer.getvalue().replace(b"\n", b"")


def test_an_option_that_is_no_utf8_is_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["prepare", "manifest", "--template", str(odd(tmp_path))])
    assert stop.value.code == 2
    assert "the name is not UTF-8" in capsys.readouterr().err
