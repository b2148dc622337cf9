"""Predictions and references that are written in different ways, and true reports that cannot be labeled."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from crossray import evaluate
from crossray.data.store import Dataset
from crossray.evaluation.predictions.exchange import open_predictions
from crossray.evaluation.predictions.writing import clinical_notes, writing_notes
from crossray.evaluation.trivial import MOST_FREQUENT, NEAREST_IMAGE, trivial_reports

CLEANED = ["the heart is normal . the lungs are clear .", "there is a small effusion ."]
WRITTEN = ["The heart is normal. The lungs are clear.", "There is a small effusion."]


def test_sides_written_differently_are_noticed() -> None:
    (note,) = writing_notes(WRITTEN, CLEANED)
    assert "capital letters and full stops attached to words" in note
    assert "--cleaner" in note
    assert writing_notes(CLEANED, CLEANED) == writing_notes(WRITTEN, WRITTEN) == []


def test_empty_reports_are_counted() -> None:
    notes = writing_notes(["nan", "x ."], ["", "x ."])
    assert [note[:21] for note in notes] == ["1 of 2 predictions ar", "1 of 2 references are"]


def test_a_cleaner_that_was_asked_for_cleans_both_sides(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    rows = [
        {"id": str(number), "prediction": prediction, "reference": reference}
        for number, (prediction, reference) in enumerate(zip(WRITTEN, CLEANED, strict=True))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert open_predictions(path).hypotheses() == WRITTEN
    cleaned = open_predictions(path, cleaner="legacy")
    assert cleaned.hypotheses() == cleaned.references("full") == CLEANED
    assert cleaned.provenance.cleaner == "legacy"


def test_letters_of_two_characters_are_the_same_letters(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps({"id": "a", "prediction": "o\u0308dem .", "reference": "\u00f6dem ."}) + "\n")
    file = open_predictions(path)
    assert file.hypotheses() == file.references("full")


def test_references_and_baselines_of_a_dataset_have_the_same_letters(
    tmp_path: Path, make_dataset: Callable[..., Dataset]
) -> None:
    report = unicodedata.normalize("NFD", "Herzvergrößerung, Ödem.")
    dataset = make_dataset([(split, report, 10, None, False) for split in ("train", "test")])
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps({"id": "study-1", "prediction": report}) + "\n")
    file = open_predictions(path, dataset=dataset)
    assert file.hypotheses() == file.references("full")
    baselines = trivial_reports(dataset, dataset.rows("test"))
    assert baselines[MOST_FREQUENT] == baselines[NEAREST_IMAGE] == file.references("full")


def test_texts_in_memory_have_the_same_letters() -> None:
    report = "Herzvergrößerung, Ödem."
    scores = evaluate([unicodedata.normalize("NFD", report)], [report], meteor="no", resamples=10)
    assert scores["bleu1"] == pytest.approx(1)


def test_clinical_scores_are_withheld_for_languages_that_are_not_read() -> None:
    assert clinical_notes(WRITTEN) == (True, [])
    readable, notes = clinical_notes(["Geen pneumothorax. Hart niet vergroot.", "Brak zmian ogniskowych."])
    assert not readable
    assert "not computed" in notes[-1]
    readable, notes = clinical_notes(["Kein Pneumothorax. Herz nicht vergr\u00f6\u00dfert.", *WRITTEN])
    assert readable
    assert "1 of 3 reports look German" in notes[0]

    class Dutch:
        @staticmethod
        def reads(report: str) -> bool:
            return "Hart" in report

    assert clinical_notes(["Geen pneumothorax. Hart niet vergroot."], Dutch())[0]
    assert not clinical_notes(["Brak zmian ogniskowych."], Dutch())[0]
