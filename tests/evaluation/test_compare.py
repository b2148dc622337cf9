"""Comparing predictions files: what may stand side by side, what is tested, and what is printed and written."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from crossray import cli
from crossray.errors import UserError
from crossray.evaluation import compare as comparing
from crossray.evaluation.compare import Comparison, compare
from crossray.evaluation.metrics.nlg import METRICS, score
from crossray.evaluation.predictions import Prediction, PredictionFile, Provenance
from crossray.evaluation.predictions.exchange import choose
from crossray.pages.compare_tables import markdown_page, print_comparison
from crossray.text.observations import CHEXPERT

HEADER = Provenance(model="runs/a", data_sha256="d1", split="test", cleaner="legacy", max_length=60, tokenizer="t1")
QUICK = {"meteor": "no", "resamples": 40, "labeler": None}


class LengthLabeler:
    """Sees cardiomegaly in every report of more than ten words."""

    name = "lengths 1"
    observations = CHEXPERT

    def label(self, reports) -> np.ndarray:
        codes = np.zeros((len(reports), 14), dtype=np.int8)
        codes[:, 1] = [len(report.split()) > 10 for report in reports]
        return codes


@pytest.fixture
def write(tmp_path: Path, made_up) -> Callable[..., Path]:
    """Writes a system's predictions for some of 30 studies whose true reports are always the same."""
    true = made_up(30, 0)

    def make(
        name: str, seed: int, studies=range(30), provenance: Provenance = HEADER, r2gen: str = "", full: str = "",
        protocols=("r2gen", "full"),
    ) -> Path:  # fmt: skip
        reports = made_up(30, seed)
        rows = [
            Prediction(
                id=f"study-{study}",
                prediction=reports[study],
                references={
                    key: text for key, text in
                    (("r2gen", true[study] + r2gen), ("full", true[study] + full)) if key in protocols
                },
            )
            for study in studies
        ]  # fmt: skip
        path = tmp_path / f"{name}.jsonl"
        PredictionFile(provenance, tuple(rows)).save(path)
        return path

    return make


def plain(path: Path, rows: PredictionFile) -> Path:
    """The same studies as another program would write them: no header, one reference."""
    lines = [{"id": row.id, "prediction": row.prediction, "reference": row.references["full"]} for row in rows.rows]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_shuffled_images_are_said(write) -> None:
    ours, shuffled = write("a", 1), write("b", 1, provenance=replace(HEADER, shuffled_images=True))
    notes = [note for note in compare([ours, shuffled], **QUICK).notes if "shuffled between studies" in note]
    assert len(notes) == 1 and notes[0].startswith(f"{shuffled}: ")


def test_clinical_scores_are_withheld_for_languages_that_are_not_read(tmp_path: Path) -> None:
    true = ["Geen pneumothorax. Hart niet vergroot.", "Geen oedeem, wel pleuravocht links."] * 4
    for name, written in (("one", true[::-1]), ("two", true)):
        rows = tuple(Prediction(str(i), text, {"full": true[i]}) for i, text in enumerate(written))
        PredictionFile(replace(HEADER, model=name), rows).save(tmp_path / f"{name}.jsonl")
    found = compare([tmp_path / "one.jsonl", tmp_path / "two.jsonl"], meteor="no", resamples=20)
    (part,) = found.protocols.values()
    assert not any(metric.startswith("ce_") for metric in part.results[0].scores)
    assert part.comparisons == len(part.pairs[0].tests) and part.results[0].protocol.labeler == ""
    assert any("8 of 8 reports are in no language" in note for note in found.notes)
    assert any("clinical efficacy not computed" in note for note in found.notes)


def test_studies_are_matched_by_id(write) -> None:
    one, two = write("one", 1), write("two", 2)
    reordered = write("reordered", 2, studies=np.random.default_rng(0).permutation(30))
    expected, found = (compare([one, other], **QUICK) for other in (two, reordered))
    assert list(found.protocols) == ["r2gen", "full"]
    for name in found.protocols:
        assert [pair.tests for pair in found.protocols[name].pairs] == [
            pair.tests for pair in expected.protocols[name].pairs
        ]
    file = PredictionFile.load(two)
    scores = found.protocols["full"].results[1].scores
    naive = score(file.hypotheses(), file.references("full"))
    assert {metric: scores[metric].value for metric in METRICS} == pytest.approx(naive)
    tests = found.protocols["full"].pairs[0].tests
    first = found.protocols["full"].results[0].scores
    assert tests["bleu4"].difference.value == pytest.approx(first["bleu4"].value - naive["bleu4"])


def test_other_studies_are_refused_or_left_out(write) -> None:
    one, two = write("one", 1, studies=range(25)), write("two", 2, studies=range(3, 30))
    with pytest.raises(UserError) as caught:
        compare([one, two], **QUICK)
    message = str(caught.value)
    assert f"{one} and {two}: 3 studies are only in the first and 5 only in the second" in message
    assert "the 22 that all files share with --common" in message
    found = compare([one, two], common=True, **QUICK)
    assert {result.studies for result in found.protocols["full"].results} == {22}
    chosen = choose(PredictionFile.load(one), [f"study-{study}" for study in range(3, 25)])
    protocol = found.protocols["full"].results[0].protocol
    assert (protocol.studies, protocol.subset) == (22, chosen.provenance.subset)
    assert f"compared on the 22 studies that all files share, of 25 in {one}, 27 in {two}" in found.notes
    with pytest.raises(UserError, match="no study id in common"):
        compare([one, write("three", 3, studies=range(25, 30))], common=True, **QUICK)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"section": "impression"}, "header: section differ"),
        ({"cleaner": "fixed"}, "header: cleaner differ"),
        ({"data_sha256": "d2", "split": "val"}, "header: data, split differ"),
    ],
)
def test_other_protocols_are_refused(write, changes: dict[str, str], message: str) -> None:
    other = replace(HEADER, model="runs/b", **changes)
    with pytest.raises(UserError, match=message):
        compare([write("one", 1), write("two", 2, provenance=other)], **QUICK)


def test_other_references_are_refused_without_telling_them(write) -> None:
    with pytest.raises(UserError, match="the full references of 30 studies differ") as caught:
        compare([write("one", 1), write("two", 2, full=" secret .")], **QUICK)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("how", ["text", "tokenizer", "absent"])
def test_only_full_remains_where_vocabularies_differ(write, how: str) -> None:
    other = replace(HEADER, model="runs/b", tokenizer="t2" if how == "tokenizer" else "t1")
    two = write(
        "two", 2, provenance=other, r2gen=" <unk>" if how == "text" else "",
        protocols=("full",) if how == "absent" else ("r2gen", "full"),
    )  # fmt: skip
    found = compare([write("one", 1), two], **QUICK)
    assert list(found.protocols) == ["full"]
    assert any(note.startswith("r2gen not compared: ") for note in found.notes)


def test_no_common_protocol_is_refused(write) -> None:
    with pytest.raises(UserError, match="no protocol has one for every study in every file"):
        compare([write("one", 1, protocols=("r2gen",)), write("two", 2, protocols=("full",))], **QUICK)


def test_a_file_without_header_compares_by_its_references(write, tmp_path: Path) -> None:
    one = write("one", 1)
    theirs = plain(tmp_path / "theirs.jsonl", PredictionFile.load(write("two", 2)))
    for files in ([one, theirs], [theirs, one]):
        found = compare(files, **QUICK)
        assert found.protocols.keys() == {"full"}
        assert {result.protocol.cleaner for result in found.protocols["full"].results} == {"legacy"}
        assert (
            f"{theirs} does not say its section, cleaner, data, split: by its equal references it is taken for the "
            f"protocol of {one}"
        ) in found.notes
    part = compare([write("part", 1, studies=range(10)), theirs], common=True, **QUICK)
    assert part.protocols["full"].results[0].studies == 10
    both_plain = compare([theirs, plain(tmp_path / "more.jsonl", PredictionFile.load(one))], **QUICK)
    assert not any("does not say" in note for note in both_plain.notes)


def test_an_incomplete_header_may_not_contradict(write) -> None:
    incomplete = replace(HEADER, model="runs/b", data_sha256="", split="")
    one, two = write("one", 1), write("two", 2, provenance=incomplete)
    found = compare([two, one], **QUICK)
    assert list(found.protocols) == ["r2gen", "full"]
    assert found.protocols["full"].results[0].protocol.data == "d1"
    assert f"{two} does not say its data, split: " in " ".join(found.notes)
    with pytest.raises(UserError, match="header: cleaner differ"):
        compare([write("three", 3, provenance=replace(incomplete, cleaner="fixed")), one], **QUICK)


def test_systems_are_named_by_model_or_file(write, tmp_path: Path) -> None:
    other = replace(HEADER, model="runs/b")
    one, two, three = write("one", 1), write("two", 2, provenance=other), write("three", 3)
    assert list(compare([one, two], **QUICK).predictions) == ["a", "b"]
    assert list(compare([one, three], **QUICK).predictions) == ["one", "three"]
    assert list(compare([one, write("other/one", 4)], **QUICK).predictions) == ["one.jsonl", "other/one.jsonl"]
    with pytest.raises(UserError, match="given twice"):
        compare([one, one], **QUICK)
    with pytest.raises(UserError, match="give two or more"):
        compare([one], **QUICK)


def pairs_of(comparison: Comparison) -> list[tuple[str, str]]:
    return [(pair.first, pair.second) for pair in comparison.protocols["full"].pairs]


def test_which_pairs_are_tested(write, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [write(name, seed, protocols=("full",)) for seed, name in enumerate("abc", start=1)]
    every, first = [("a", "b"), ("a", "c"), ("b", "c")], [("a", "b"), ("a", "c")]
    assert pairs_of(compare(files, **QUICK)) == every
    assert pairs_of(compare(files, against="first", **QUICK)) == first
    monkeypatch.setattr(comparing, "ALL_PAIRS", 2)
    assert pairs_of(compare(files, **QUICK)) == first
    assert pairs_of(compare(files, against="all", **QUICK)) == every


def test_named_metrics_are_corrected_less(write) -> None:
    files = [write("one", 1, protocols=("full",)), write("two", 2, protocols=("full",))]
    everything = compare(files, **QUICK).protocols["full"]
    named = compare(files, metrics=["cider", "bleu1"], **QUICK).protocols["full"]
    assert (everything.comparisons, named.comparisons) == (6, 2)
    assert list(named.pairs[0].tests) == ["cider", "bleu1"]
    for name, test in named.pairs[0].tests.items():
        assert test.randomization_p == everything.pairs[0].tests[name].randomization_p
        assert test.corrected_p <= everything.pairs[0].tests[name].corrected_p
    assert named.results[0].scores.keys() == everything.results[0].scores.keys()
    with pytest.raises(UserError, match="'bleu5' is not computed; choose among bleu1"):
        compare(files, metrics=["bleu5"], **QUICK)


def test_too_few_resamples_are_told(write) -> None:
    files = [write("one", 1, protocols=("full",)), write("two", 2, protocols=("full",))]
    warning = "with 40 resamples and 6 tests no corrected p falls below 0.15; give more --resamples or fewer --metrics"
    assert warning in compare(files, **QUICK).notes
    assert not any("resamples" in note for note in compare(files, **{**QUICK, "resamples": 200}).notes)


def test_clinical_scores_are_tested(write) -> None:
    found = compare([write("one", 1), write("two", 2)], **{**QUICK, "labeler": LengthLabeler()})
    for part in found.protocols.values():
        assert part.results[0].protocol.labeler == "lengths 1"
        assert {"ce_precision", "ce_recall", "ce_f1"} < part.pairs[0].tests.keys()
        assert part.pairs[0].tests.keys() < part.results[0].scores.keys()  # the variants are there, and not tested


def test_tables_show_every_number(write) -> None:
    files = [write("one", 1, protocols=("full",)), write("two", 2, protocols=("full",))]
    found = compare(files, metrics=["cider", "ce_micro_f1"], **{**QUICK, "labeler": LengthLabeler()})
    terminal = Console(file=io.StringIO(), width=400)
    print_comparison(found, terminal)
    for text in (terminal.file.getvalue(), markdown_page(found)):
        part = found.protocols["full"]
        for result in part.results:
            score_ = result.scores["rouge_l"]
            assert f"{score_.value:.3f} [{score_.low:.3f}, {score_.high:.3f}]" in text
        for test in part.pairs[0].tests.values():
            change = test.difference
            assert f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]" in text
            assert f"{test.corrected_p:.4f}" in text
        assert "ce_micro_f1" in text
        assert "corrected (Holm) for the 2 tests" in text
        assert "document frequencies of the whole set" in text
        assert "one minus two" in text


def test_the_command_writes_what_it_prints(write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(write("one", 1, protocols=("full",))), str(write("two", 2, protocols=("full",)))]
    out, tables = tmp_path / "new" / "comparison.json", tmp_path / "tables.md"
    cli.main(["compare", *files, "--meteor", "no", "--resamples", "50", "--metrics", "cider", "bleu4",
              "--out", str(out), "--markdown", str(tables)])  # fmt: skip
    printed = capsys.readouterr().out
    written = json.loads(out.read_text())
    assert list(written["predictions"].values()) == files
    tests = written["protocols"]["full"]["pairs"][0]["tests"]
    assert list(tests) == ["cider", "bleu4"]
    for test in tests.values():
        assert f"{test['difference']['value']:+.3f}" in printed
        assert f"{test['difference']['value']:+.3f}" in tables.read_text()
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        "one.jsonl", "two.jsonl", "comparison.json", "tables.md",
    }  # fmt: skip
