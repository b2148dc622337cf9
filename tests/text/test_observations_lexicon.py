"""The phrase file: what its patterns stand for, and how phrases are found."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from crossray.text.labeling.lexicon import Cue, Finding, Quality, Structure, build, expand, lexicon
from crossray.text.labeling.registry import INCIDENTAL, phrases
from crossray.text.labeling.tokens import sentence_spans, token_spans, tokens
from crossray.text.observations import OBSERVATIONS

CONTENT: Mapping[str, Any] = phrases()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("left|right lung", ["left lung", "right lung"]),
        ("pleural? effusion", ["pleural effusion", "effusion"]),
        ("$side base", ["left base", "both sides base"]),
        ("air-space disease", ["air space disease"]),
        ("?", ["?"]),
        ("c/w $side? base", ["c / w left base", "c / w both sides base", "c / w base"]),
    ],
)
def test_patterns(pattern: str, expected: list[str]) -> None:
    expanded = [" ".join(words) for words in expand(pattern, {"side": ["left", "both sides"]})]
    assert expanded == expected


def found(sentence: str) -> list[str]:
    words = tokens(sentence)
    return [" ".join(words[match.start : match.end]) for match in lexicon().matches(words)]


def test_the_longest_phrase_counts_and_fillers_may_stand_in_it() -> None:
    assert found("pericardial effusion") == ["pericardial effusion"]
    assert found("no significant interval change in the effusion") == ["no significant interval change in", "effusion"]
    assert found("no significant effusion") == ["no", "effusion"]
    assert found("not seen") == ["not seen"]
    assert found("not at least now also seen") == ["not", "seen"]  # more fillers than a phrase may hold


def test_words_with_one_letter_wrong() -> None:
    spellings = lexicon().spellings
    assert spellings["cardiomegally"] == "cardiomegaly"  # too much
    assert spellings["penumothorax"] == "pneumothorax"  # exchanged
    assert spellings["silouette"] == "silhouette"  # missing
    assert spellings["atelactasis"] == "atelectasis"  # wrong
    assert not spellings.keys() & {"effusions", "effusion", "infiltrates", "pneumonic", "atelectases"}


def test_names_and_kinds_fit_together() -> None:
    assert set(CONTENT["findings"]) | set(CONTENT["signs"]) <= {*OBSERVATIONS, INCIDENTAL}
    assert not CONTENT["findings"][INCIDENTAL]
    assert not CONTENT["findings"]["no_finding"]
    told = {quality: names for entry in CONTENT["structures"].values() for quality, names in entry["tells"].items()}
    assert set(told) <= set(CONTENT["qualities"])
    assert {name for names in told.values() for name in names} <= set(OBSERVATIONS)
    assert {entry["status"] for entry in CONTENT["qualities"].values()} == {"positive", "negative", "uncertain"}
    mentioned = {name for names in told.values() for name in names} | {
        name for name, entries in CONTENT["findings"].items() if entries
    }
    assert mentioned == set(OBSERVATIONS) - {"no_finding"}


def test_no_entry_stands_twice() -> None:
    lists = [*CONTENT["findings"].values(), *CONTENT["signs"].values(), CONTENT["nothing"], *CONTENT["cues"].values()]
    lists += [entry["names"] for entry in CONTENT["structures"].values()]
    for entries in lists:
        assert [entry for entry, count in Counter(entries).items() if count > 1] == []


def test_no_longer_phrase_hides_a_finding_by_accident() -> None:
    """A "compression fracture" must still be a fracture. What only looks like a finding hides it by intent."""
    found: dict[tuple[str, ...], set[str]] = {}
    for section in ("findings", "signs"):
        for name, patterns in CONTENT[section].items():
            for pattern in patterns:
                for words in expand(pattern, CONTENT["sets"]):
                    found.setdefault(tuple(words), set()).add(name)
    hidden = {
        (part, name)
        for phrase, names in found.items()
        for start in range(len(phrase))
        for end in range(start + 1, len(phrase) + 1)
        if (part := phrase[start:end]) != phrase
        for name in found.get(part, set()) - names
    }
    assert {name for _, name in hidden} <= {"lung_opacity"}
    assert all("scar" in part[-1] for part, _ in hidden), "a scar of the pleura is none of the lung; nothing else"


def test_a_small_lexicon() -> None:
    small = build(
        {
            "sets": {},
            "fillers": ["the"],
            "often_misspelled": [],
            "findings": {"edema": ["wet lung"], "pneumonia": ["wet lung"]},
            "signs": {},
            "nothing": ["wet lung rag"],
            "structures": {"heart": {"names": ["heart"], "tells": {"big": ["cardiomegaly"]}}},
            "qualities": {"big": {"status": "positive", "adjectives": ["big"]}},
            "cues": {"negation_before": ["no"]},
        }
    )
    (finding,), (no,), (heart,), (big,), (rag,) = (
        match.roles for match in small.matches(tokens("wet the lung no heart big wet lung rag"))
    )
    assert finding == Finding(("edema", "pneumonia"))
    assert no == Cue("negation_before")
    assert heart == Structure("heart", {"big": ("cardiomegaly",)})
    assert big == Quality("big", "positive", is_noun=False)
    assert rag == Finding(())


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ("No mass.Heart big", [["no", "mass"], ["heart", "big"]]),
        ("A 3.5 cm mass vs. cyst, e.g. old", [["a", "3.5", "cm", "mass", "vs", "cyst", ",", "e", "g", "old"]]),
        ("no mass .\nair-space - heart", [["no", "mass"], ["air", "space", "-", "heart"]]),
        ("No mass\nHeart big", [["no", "mass"], ["heart", "big"]]),
        ("Is it a mass? A cyst", [["is", "it", "a", "mass", "?"], ["a", "cyst"]]),
        ("A mass? No.", [["a", "mass", ":", "no"]]),
        ("Heart.<br/>Lung\\.br\\Mass", [["heart"], ["lung"], ["mass"]]),
        ("first line\nsame sentence\n \nnew one", [["first", "line", "same", "sentence"], ["new", "one"]]),
        (" .. ! ", []),
    ],
)
def test_sentences(report: str, words: list[list[str]]) -> None:
    found = tokens(report)
    assert [found[start:end] for start, end in sentence_spans(found)] == words
    # breaks that end a statement, and a question with its answer, are read as signs of their own
    for (start, end), token in zip(token_spans(report), found, strict=True):
        assert report[start:end].lower() == token or (token in (":", "\n", "\x1e"))


def test_a_text_without_full_stops_is_cut() -> None:
    assert list(sentence_spans(["word"] * 600)) == [(0, 256), (256, 512), (512, 600)]
