"""Predictions from elsewhere and for elsewhere: ReXrank, a language model's answers, chosen studies, other formats."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossray import cli
from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.evaluation.predictions import Prediction, PredictionFile, Provenance
from crossray.evaluation.predictions.exchange import choose, draw, export, open_predictions
from crossray.evaluation.predictions.rexrank import comparable, section_of
from crossray.evaluation.results import Evaluation
from crossray.text.cleaning import CLEANERS, clean

TRUE = ("The heart is normal. Lungs are clear.", "The heart is enlarged.", "There is a device.")


def submission(**changes: Any) -> dict[str, Any]:
    """Two studies as ReXrank gives them, with predictions."""
    return {
        name: {
            "image_path": [f"{name}/0.png", f"{name}/1.png"],
            "section_findings": finding,
            "section_impression": "Normal.",
            "context": "Indication: Pain.",
            "model_prediction": f"Findings: {finding} Impression: No change.",
            **changes,
        }
        for name, finding in zip(("a", "b"), TRUE, strict=False)
    }


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def dataset(make_dataset: Callable[..., Dataset]) -> Dataset:
    """Studies study-0 to study-2 in the test split, one more in training."""
    test = [("test", report, 40 * index, None, False) for index, report in enumerate(TRUE)]
    return make_dataset([*test, ("train", "The lungs are clear.", 200, None, True)])


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """A language model's answers: identifiers and ordinary writing."""
    rows = [
        ("study-1", "**Findings:**\nThe heart is enlarged.\n\n**Impression:** Cardiomegaly.", 2),
        ("study-0", "Heart normal.", 4.0),
    ]
    path = tmp_path / "answers.jsonl"
    names = ("id", "prediction", "seconds")
    path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        ("Heart normal.\nLungs clear.", "Heart normal. Lungs clear.", "Heart normal. Lungs clear."),
        ("Findings:Clear lungs. Old fracture.Impression:No change.", "Clear lungs. Old fracture.", "No change."),
        ("**Findings**: Clear.\n## Impression:\nNormal.", "Clear.", "Normal."),
        ("IMPRESSION: Normal.", "", "Normal."),
        ("Clear lungs.\nImpression: Normal.", "Clear lungs.", "Normal."),
        # No heading: it is inside a sentence.
        ("No other acute findings: clear.", "No other acute findings: clear.", "No other acute findings: clear."),
    ],
)
def test_sections_of_a_written_report(text: str, findings: str, impression: str) -> None:
    assert section_of(text, "findings") == findings
    assert section_of(text, "impression") == impression
    assert section_of(text, "report") == " ".join(text.split())


@pytest.mark.parametrize("cleaner", CLEANERS)
def test_a_true_report_compares_as_its_own_reference_and_cleaned_text_stays(cleaner: str) -> None:
    reference = clean(TRUE[0], cleaner)
    assert comparable(TRUE[0], "findings", cleaner) == reference
    assert comparable(reference, "findings", cleaner) == reference


def test_a_submission_to_rexrank_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "submission.json", submission())
    found = PredictionFile.load(path)
    assert [row.id for row in found.rows] == ["a", "b"]
    assert found.hypotheses()[0] == found.references("full")[0] == "the heart is normal . lungs are clear ."
    assert found.rows[0].images == ("a/0.png", "a/1.png")
    assert (found.provenance.section, found.provenance.cleaner) == ("findings", "legacy")
    assert found.protocols() == ("full",)

    impression = PredictionFile.load(path, section="impression", cleaner="fixed")
    assert impression.hypotheses() == ["no change ."] * 2
    assert impression.references("full") == ["normal ."] * 2
    whole = PredictionFile.load(path, section="report", cleaner="none")
    assert whole.references("full")[1] == "Findings: The heart is enlarged. Impression: Normal."


def test_studies_without_a_section_have_no_reference(tmp_path: Path) -> None:
    nan = submission()
    nan["b"]["section_findings"] = float("nan")
    found = PredictionFile.load(write(tmp_path / "nan.json", nan))
    assert found.rows[0].references
    assert not found.rows[1].references
    older = {name: {**fields, "findings": fields.pop("section_findings")} for name, fields in submission().items()}
    assert PredictionFile.load(write(tmp_path / "older.json", older)).references("full")[1] == "the heart is enlarged ."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON; give a file of JSON lines the suffix .jsonl"),
        ("3", "neither a list of rows nor"),
        ("[]", "it contains no prediction"),
        ('{"a": {"model_prediction": "b"}, "a": {"model_prediction": "secret"}}', "the key 'a' appears twice"),
        ("[3]", "entry 1: not a JSON object"),
        ('{"a": "secret"}', "study 'a': model_prediction: missing"),
        ('{"a": {"section_findings": "secret"}}', "study 'a': model_prediction: missing"),
        ('{"a": {"model_prediction": "secret", "image_path": "x.png"}}', "study 'a': images"),
        ('{"a": {"model_prediction": "secret", "seconds": -1}}', "study 'a': seconds"),
        ('[{"id": "a", "prediction": "secret"}, {"id": "a", "prediction": "secret"}]', "entry 2: id 'a' is in"),
    ],
)
def test_broken_json_files_are_refused_in_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        PredictionFile.load(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "secret" not in str(caught.value)


def test_unknown_section_and_cleaner_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "submission.json", submission())
    with pytest.raises(UserError, match="section: 'history' does not exist"):
        PredictionFile.load(path, section="history")
    with pytest.raises(UserError, match="cleaner: 'other' does not exist"):
        PredictionFile.load(path, cleaner="other")


def test_answers_without_references_take_them_from_the_dataset(answers: Path, dataset: Dataset) -> None:
    found = open_predictions(answers, dataset=dataset.path)
    assert [row.id for row in found.rows] == ["study-1", "study-0"]
    assert found.hypotheses() == ["the heart is enlarged .", "heart normal ."]
    assert found.references("full") == ["the heart is enlarged .", "the heart is normal . lungs are clear ."]
    assert found.protocols() == ("full",)
    assert found.seconds() == 3.0
    described = found.provenance
    assert (described.split, described.data_sha256, described.cleaner) == ("test", dataset.info.sha256, "legacy")

    with pytest.raises(UserError, match="study 'study-1' has no section 'impression'"):
        open_predictions(answers, dataset=dataset.path, section="impression")
    with pytest.raises(UserError, match="section 'report' does not exist in a dataset"):
        open_predictions(answers, dataset=dataset.path, section="report")
    assert not open_predictions(answers).protocols()
    answers.write_text('{"id": "elsewhere", "prediction": "a"}\n')
    with pytest.raises(UserError, match="id 'elsewhere' is not a study of"):
        open_predictions(answers, dataset=dataset.path)


def test_reports_of_files_are_compared_with_the_section_that_their_header_names(
    tmp_path: Path, make_dataset: Callable[..., Dataset]
) -> None:
    """`crossray generate` writes such a header, without references, for a model of impressions."""
    dataset = make_dataset([("test", "The heart is normal.", 0, None, True)])
    rows = (Prediction("study-0", "no acute disease ."),)
    PredictionFile(Provenance(model="m", section="impression"), rows).save(tmp_path / "p.jsonl")
    with pytest.raises(UserError, match="study 'study-0' has no section 'impression'"):
        open_predictions(tmp_path / "p.jsonl", dataset=dataset)
    chosen = open_predictions(tmp_path / "p.jsonl", dataset=dataset, section="findings")
    assert chosen.references("full") == ["the heart is normal ."]


def test_reports_of_files_are_compared_with_the_cleaner_that_their_header_names(
    tmp_path: Path, make_dataset: Callable[..., Dataset]
) -> None:
    report = "Nodule of 3.5 cm and/or scar."
    dataset = make_dataset([("test", report, 0, None, True)])
    rows = (Prediction("study-0", clean(report, "fixed")),)
    PredictionFile(Provenance(model="m", cleaner="fixed"), rows).save(tmp_path / "p.jsonl")
    found = open_predictions(tmp_path / "p.jsonl", dataset=dataset)
    assert found.hypotheses() == found.references("full") == ["nodule of 3.5 cm and or scar ."]
    assert found.provenance.cleaner == "fixed"
    chosen = open_predictions(tmp_path / "p.jsonl", dataset=dataset, cleaner="legacy")
    assert chosen.references("full") == ["nodule of 35 cm andor scar ."]


def test_a_dataset_in_a_folder_that_is_no_utf8(
    answers: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    Path(place).mkdir()
    dataset.path.rename(f"{place}/data")
    monkeypatch.chdir(place)
    open_predictions(answers, dataset="data").save(answers)
    assert PredictionFile.load(answers).provenance.data == f"{tmp_path}/caf\\xe9/data"


def test_answers_take_the_references_of_another_system(answers: Path, tmp_path: Path) -> None:
    ours = PredictionFile(
        Provenance(model="ours", cleaner="fixed", max_length=60, tokenizer="abc", split="test", views="2"),
        tuple(Prediction(f"study-{n}", "a .", {"r2gen": f"cut {n} .", "full": f"whole {n} ."}) for n in range(3)),
    )
    ours.save(tmp_path / "ours.jsonl")
    found = open_predictions(answers, references=tmp_path / "ours.jsonl")
    assert found.protocols() == ("r2gen", "full")
    assert found.references("r2gen") == ["cut 1 .", "cut 0 ."]
    # The same protocol, but for the views, which nobody said of the answers.
    protocol = found.provenance.protocol("r2gen", 2)
    assert protocol.differences(ours.provenance.protocol("r2gen", 2)) == ("views",)
    assert found.provenance.model == ""
    short = replace(ours, rows=ours.rows[:1])
    short.save(tmp_path / "short.jsonl")
    with pytest.raises(UserError, match=r"study 'study-1' of .* is missing"):
        open_predictions(answers, references=tmp_path / "short.jsonl")


@pytest.mark.parametrize("cleaner", ["legacy", "legacy_mimic", "fixed"])
def test_unknown_words_stay_unknown(tmp_path: Path, cleaner: str) -> None:
    row = Prediction("a", "<unk> is normal . <unk> .", {"r2gen": "the <unk> is normal .", "full": "heart normal ."})
    PredictionFile(Provenance(model="m", cleaner=cleaner), (row,)).save(tmp_path / "p.jsonl")
    assert open_predictions(tmp_path / "p.jsonl", references=tmp_path / "p.jsonl").rows == (row,)
    other = "fixed" if cleaner == "legacy" else "legacy"
    assert open_predictions(tmp_path / "p.jsonl", cleaner=other).rows == (row,)


@pytest.mark.parametrize("shuffled", [False, True])
def test_references_of_another_system_say_nothing_of_the_images(tmp_path: Path, shuffled: bool) -> None:
    for name, value in (("ours", shuffled), ("other", not shuffled)):
        row = Prediction("a", "b .", {"full": "c ."})
        PredictionFile(Provenance(model=name, shuffled_images=value), (row,)).save(tmp_path / f"{name}.jsonl")
    found = open_predictions(tmp_path / "ours.jsonl", references=tmp_path / "other.jsonl")
    assert found.provenance.shuffled_images is shuffled


def predictions(count: int) -> PredictionFile:
    rows = tuple(Prediction(str(number), "a .", {"full": "b ."}) for number in range(count))
    return PredictionFile(Provenance(model="m", split="test"), rows, Path("m.jsonl"))


def test_a_choice_of_studies_is_part_of_the_protocol(tmp_path: Path) -> None:
    file = predictions(20)
    chosen = choose(file, ["7", "3"])
    assert [row.id for row in chosen.rows] == ["3", "7"]
    protocol = chosen.provenance.protocol("full", 2)
    assert protocol.differences(file.provenance.protocol("full", 2)) == ("subset",)
    assert choose(predictions(10), ["3", "7"]).provenance == chosen.provenance
    assert choose(file, ["3", "8"]).provenance.subset != chosen.provenance.subset

    chosen.save(tmp_path / "chosen.jsonl")
    assert PredictionFile.load(tmp_path / "chosen.jsonl").provenance.subset == chosen.provenance.subset
    (tmp_path / "studies.txt").write_text("7\n\n 3 \n")
    file.save(tmp_path / "all.jsonl")
    assert open_predictions(tmp_path / "all.jsonl", studies=tmp_path / "studies.txt").rows == chosen.rows

    with pytest.raises(UserError, match="1 of 2 chosen ids are not in it, such as 'x'"):
        choose(file, ["x", "3"])
    with pytest.raises(UserError, match="no study is chosen"):
        choose(file, [])
    with pytest.raises(UserError, match=r"nowhere.txt: cannot be read"):
        open_predictions(tmp_path / "all.jsonl", studies=tmp_path / "nowhere.txt")


def test_a_drawn_sample_depends_on_the_studies_and_the_seed_alone() -> None:
    file = predictions(50)
    backwards = replace(file, rows=file.rows[::-1])
    drawn = draw(file, 16, seed=3)
    assert len(drawn.rows) == 16
    assert {row.id for row in drawn.rows} == {row.id for row in draw(backwards, 16, seed=3).rows}
    assert drawn.provenance == draw(backwards, 16, seed=3).provenance
    assert drawn.provenance.subset != draw(file, 16, seed=4).provenance.subset
    with pytest.raises(UserError, match="sample is 51, but it has 50 studies"):
        draw(file, 51, seed=0)


def test_a_submission_is_the_benchmarks_file_with_predictions(tmp_path: Path) -> None:
    benchmark = submission()
    for fields in benchmark.values():
        del fields["model_prediction"]
    studies = tmp_path / "benchmark.json"
    studies.write_text(json.dumps(benchmark), encoding="utf-8-sig")
    file = PredictionFile(Provenance(), (Prediction("b", "the heart is large .", seconds=0.5),), Path("ours.jsonl"))
    target = tmp_path / "new" / "submission.json"
    assert export(file, target, "rexrank", studies=studies) == 1
    assert json.loads(target.read_text()) == {
        "b": {**benchmark["b"], "model_prediction": "the heart is large .", "seconds": 0.5}
    }
    again = PredictionFile.load(target)
    assert (again.hypotheses(), again.seconds()) == (["the heart is large ."], 0.5)
    with pytest.raises(UserError, match="study 'c' has a prediction but is missing from the benchmark's file"):
        export(replace(file, rows=(Prediction("c", "a"),)), target, "rexrank", studies=studies)
    with pytest.raises(UserError, match="a submission holds the true sections"):
        export(file, target, "rexrank")
    with pytest.raises(UserError, match="not a JSON object of studies"):
        export(file, target, "rexrank", studies=write(tmp_path / "list.json", [1]))


def test_a_submission_from_a_dataset_scores_like_the_predictions(
    answers: Path, dataset: Dataset, tmp_path: Path
) -> None:
    file = open_predictions(answers, dataset=dataset.path)
    export(file, tmp_path / "submission.json", "rexrank")
    again = PredictionFile.load(tmp_path / "submission.json")
    assert [row.id for row in again.rows] == [row.id for row in file.rows]
    assert again.hypotheses() == file.hypotheses()
    assert again.references("full") == file.references("full")
    entry = json.loads((tmp_path / "submission.json").read_text())["study-0"]
    assert entry["frontal_lateral"] == ["Lateral", "Frontal"]
    assert entry["section_findings"] == TRUE[0]


def test_pairs_and_lines_for_other_programs(answers: Path, dataset: Dataset, tmp_path: Path) -> None:
    file = open_predictions(answers, dataset=dataset.path)
    export(file, tmp_path / "pairs.json", "pairs")
    pairs = json.loads((tmp_path / "pairs.json").read_text())
    assert pairs["ids"] == ["study-1", "study-0"]
    assert pairs["hypotheses"] == file.hypotheses()
    assert pairs["references"] == file.references("full")
    export(file, tmp_path / "lines.jsonl", "jsonl")
    assert PredictionFile.load(tmp_path / "lines.jsonl").rows == file.rows
    with pytest.raises(UserError, match="'references' has no 'r2gen'"):
        export(file, tmp_path / "pairs.json", "pairs", protocol="r2gen")


@pytest.mark.parametrize("format", ["jsonl", "pairs"])
def test_predictions_with_references_are_exported_as_they_are(tmp_path: Path, format: str) -> None:
    row = Prediction("a", "nodule of 3.5 cm .", {"full": "nodule of 3.5 cm and <unk> ."})
    PredictionFile(Provenance(model="m", cleaner="fixed"), (row,)).save(tmp_path / "p.jsonl")
    cli.main(["export", str(tmp_path / "p.jsonl"), "--format", format, "--out", str(tmp_path / "out")])
    text = (tmp_path / "out").read_text()
    assert row.prediction in text and row.references["full"] in text


def test_answers_are_scored_by_commands(
    answers: Path, dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ("--meteor", "no", "--resamples", "10")
    page = tmp_path / "page.md"
    cli.main(
        [
            "evaluate",
            str(answers),
            "--data",
            str(dataset.path),
            "--published",
            "mimic-cxr",
            "--markdown",
            str(page),
            *quick,
        ]
    )
    printed = capsys.readouterr().out
    assert "3.00 seconds per report" in printed
    assert "protocol r2gen not computed: 2 of 2 studies" in " ".join(printed.split())
    # Under REVTAF's table of language models, with our seconds in its first column.
    (line,) = [line for line in page.read_text().splitlines() if line.startswith("| ours, full | 3.00 |")]
    assert line.count("|") == 13
    whole = Evaluation.load(answers.with_suffix(".scores.json"))
    assert (whole.seconds, whole.protocols["full"].result.protocol.subset) == (3.0, "")

    # The chosen study alone, in a file of its own beside that of the whole.
    cli.main(["evaluate", str(answers), "--data", str(dataset.path), "--sample", "1", *quick])
    assert "1 chosen (" in " ".join(capsys.readouterr().out.split())
    (chosen,) = set(tmp_path.glob("answers*.scores.json")) - {answers.with_suffix(".scores.json")}
    assert Evaluation.load(chosen).protocols["full"].result.protocol.subset == chosen.suffixes[0][1:]

    target = tmp_path / "pairs.json"
    cli.main(["export", str(answers), "--data", str(dataset.path), "--format", "pairs", "--out", str(target)])
    assert f"2 studies in {target}" in capsys.readouterr().out.replace("\n", "")
    assert json.loads(target.read_text())["ids"] == ["study-1", "study-0"]


@pytest.mark.real_data
def test_the_benchmarks_own_file_goes_there_and_back(real_data: Path, tmp_path: Path) -> None:
    benchmark = real_data / "iu_xray" / "rexrank_test.json"
    studies = json.loads(benchmark.read_text())
    with pytest.raises(UserError, match="model_prediction: missing"):
        PredictionFile.load(benchmark)
    # The true report as prediction: every reference is met exactly, which no difference in cleaning would allow.
    truth = PredictionFile(
        Provenance(), tuple(Prediction(name, fields["section_findings"]) for name, fields in studies.items())
    )
    assert export(truth, tmp_path / "submission.json", "rexrank", studies=benchmark) == 590
    found = PredictionFile.load(tmp_path / "submission.json")
    pairs = list(zip(found.hypotheses(), found.references("full"), strict=True))
    assert len(pairs) == 590
    assert all(prediction == " ".join(reference.split()) for prediction, reference in pairs)
