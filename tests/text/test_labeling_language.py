"""Languages: which one a report is in, what is read in it, and what is not."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from crossray.text.observations import OBSERVATIONS, label_report, language_notes, report_language

SENTENCES: dict[str, list[tuple[str, dict[str, str]]]] = yaml.safe_load(
    Path(__file__).with_name("language_sentences.yaml").read_text(encoding="utf-8")
)
CASES: list[Any] = [(code, text, labels) for code, entries in SENTENCES.items() for text, labels in entries]


@pytest.mark.parametrize(("code", "text", "expected"), CASES, ids=[text for _, text, _ in CASES])
def test_sentences(code: str, text: str, expected: dict[str, str]) -> None:
    assert report_language(text) in (code, "en") if len(text.split()) < 2 else report_language(text) == code
    found = dict(zip(OBSERVATIONS, label_report(text).statuses, strict=True))
    assert {name: said for name, said in found.items() if said != "blank" and name != "no_finding"} == expected


@pytest.mark.parametrize("code", SENTENCES)
def test_accents_may_be_missing(code: str) -> None:
    plain = str.maketrans("áéíóúüñàâèêëîïôûçÉÀ", "aeiouunaaeeeiioucEA")
    for text, _ in SENTENCES[code]:
        assert label_report(text.translate(plain)).codes == label_report(text).codes, text


def test_german_umlauts_may_be_written_as_two_letters() -> None:
    for text in ("Herz grenzwertig vergrößert.", "Große Ergüsse.", "Überblähung der Lunge."):
        ascii_text = text
        for letter, two in (("ö", "oe"), ("ü", "ue"), ("ä", "ae"), ("Ü", "Ue"), ("ß", "ss")):
            ascii_text = ascii_text.replace(letter, two)
        assert label_report(ascii_text).codes == label_report(text).codes, ascii_text


@pytest.mark.parametrize(
    "text",
    [
        "Sem derrame pleural. Área cardíaca normal.",
        "Não há sinais de pneumotórax.",
        "Non versamento pleurico. Ombra cardiaca nei limiti.",
        "Geen pneumothorax. Hart niet vergroot.",
        "Brak zmian ogniskowych. Serce w granicach normy.",
        "Plevral efüzyon izlenmedi. Kalp normal.",
        "Hjärtat är inte förstorat. Inga infiltrat.",
        "\u5de6\u4fa7\u5927\u91cf\u6c14\u80f8\u3002",
        "\u041f\u043d\u0435\u0432\u043c\u043e\u0442\u043e\u0440\u0430\u043a\u0441\u0430 \u043d\u0435\u0442.",
        "\u6c17\u80f8\u306f\u8a8d\u3081\u307e\u305b\u3093\u3002",
        "\u0644\u0627 \u064a\u0648\u062c\u062f \u0627\u0633\u062a\u0631\u0648\u0627\u062d",
        "lorem ipsum dolor amet",
    ],
)
def test_other_languages_have_no_labels(text: str) -> None:
    assert report_language(text) == "other"
    assert set(label_report(text).statuses) == {"blank"}


@pytest.mark.parametrize(
    "text", ["", "  ", "nan", "NaN", "None", "N/A", "n/a.", "null", "#N/A", "-", "___", "<NA>", "[]", "Not available"]
)
def test_what_is_no_report_has_no_labels(text: str) -> None:
    assert report_language(text) == ""
    assert set(label_report(text).statuses) == {"blank"}


def test_what_is_said_of_languages() -> None:
    assert language_notes({"en": 5, "": 2}) == []
    german, other = language_notes({"en": 1, "de": 2, "other": 3})
    assert "2 of 6 reports look German" in german
    assert "3 of 6" in other
