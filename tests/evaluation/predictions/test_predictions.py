"""The predictions file: round trip, files from elsewhere, broken ones, and interrupted writing."""

import json
from pathlib import Path

import pytest

from crossray.errors import UserError
from crossray.evaluation.predictions import Prediction, PredictionFile, Provenance, write_predictions

PROVENANCE = Provenance(model="runs/a", data="data/x", max_length=60, decoding={"beam": 3}, versions={"crossray": "0"})
ROWS = (
    Prediction("1", "a .", {"r2gen": "a <unk> .", "full": "a b ."}, ("1/0.png", "1/1.png"), -1.5),
    Prediction("2", "", {}, ("2.png",)),
)
ROW = '{"id": "1", "prediction": "a", "reference": "b"}'


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "predictions.jsonl"
    assert write_predictions(path, PROVENANCE, iter(ROWS)) == 2
    found = PredictionFile.load(path)
    assert (found.provenance, found.rows, found.path) == (PROVENANCE, ROWS, path)
    assert found.protocols() == ()
    assert json.loads(path.read_text().splitlines()[0])["crossray"]["format"] == 1
    with pytest.raises(UserError, match="study '2': field 'references'"):
        found.references("full")


def test_scores_are_no_predictions(tmp_path: Path) -> None:
    path = tmp_path / "mine.scores.json"
    path.write_text('{"format": 1, "protocols": {}}')
    with pytest.raises(UserError, match="contains scores; give the predictions"):
        PredictionFile.load(path)


def test_a_plain_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("\ufeff" + ROW + '\n\n{"id": "2", "prediction": "é", "reference": "", "extra": 1}\n', "utf-8")
    found = PredictionFile.load(path)
    assert found.protocols() == ("full",)
    assert found.hypotheses() == ["a", "é"]
    assert found.references("full") == ["b", ""]
    assert found.provenance.protocol("full", 2).cleaner == "none"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it contains no prediction"),
        ("{", "line 1: not JSON"),
        (f"{ROW}\n[1]", "line 2: not a JSON object"),
        (f"{ROW}\n{ROW}", "line 2: id '1' is in an earlier line"),
        ('{"prediction": "secret"}', "line 1: id"),
        ('{"id": 5, "prediction": "secret"}', "line 1: id"),
        ('{"id": "1"}', "line 1: prediction"),
        ('{"id": "1", "prediction": ["secret"]}', "line 1: prediction"),
        ('{"id": "1", "prediction": "secret", "reference": null}', "line 1: reference"),
        ('{"id": "1", "prediction": "secret", "references": {"other": "secret"}}', "line 1: references"),
        ('{"id": "1", "prediction": "secret", "images": "x.png"}', "line 1: images"),
        ('{"id": "1", "prediction": "secret", "log_probability": NaN}', "line 1: log_probability"),
        ('{"id": "1", "prediction": "secret", "log_probability": true}', "line 1: log_probability"),
        (f'{{"id": "1", "prediction": "secret", "log_probability": -{"9" * 400}}}', "line 1: log_probability"),
        (f'{{"id": "1", "prediction": "secret", "seconds": {"9" * 400}}}', "line 1: seconds"),
        (r'{"id": "\ud800", "prediction": "secret"}', "line 1: id"),
        (r'{"id": "1", "prediction": "secret \ud800"}', "line 1: prediction"),
        (r'{"id": "1", "prediction": "secret", "reference": "\udc00"}', "line 1: reference"),
        (r'{"id": "1", "prediction": "secret", "images": ["\udc00"]}', "line 1: images"),
        (r'{"crossray": {"format": 1, "model": "\ud800"}}', "line 1: crossray"),
        ('{"crossray": {"format": 1, "versions": {"crossray": 1}}}', "line 1: crossray.versions"),
        ('{"crossray": {"format": 2}}', "line 1: crossray.format"),
        ('{"crossray": 1}', "line 1: crossray.format"),
        ('{"crossray": {"format": 1, "model": 3}}', "line 1: crossray.model"),
        ('{"crossray": {"format": 1, "max_length": true}}', "line 1: crossray.max_length"),
        (f'{ROW}\n{{"crossray": {{"format": 1}}}}', "line 2: a second header"),
        ("[" * 100_000, "line 1: not JSON"),
    ],
)
def test_broken_files_are_refused_in_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        PredictionFile.load(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: {message}")
    assert "secret" not in text
    assert "\n" not in text


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        PredictionFile.load(tmp_path / "absent.jsonl")
    with pytest.raises(UserError, match="cannot be read"):
        PredictionFile.load(tmp_path)
    (tmp_path / "binary").write_bytes(b'{"id": "\xff\xfe"}')
    with pytest.raises(UserError, match="UTF-8"):
        PredictionFile.load(tmp_path / "binary")


def test_an_interrupted_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, PROVENANCE, ROWS)
    before = path.read_bytes()

    def interrupted():
        yield ROWS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(path, PROVENANCE, interrupted())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
