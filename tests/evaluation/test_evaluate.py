"""The whole evaluation of a file, and its tables."""

import io
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tests.evaluation.keywords import KeywordLabeler

from crossray.errors import UserError
from crossray.evaluation import evaluate as evaluation
from crossray.evaluation.metrics import clinical
from crossray.evaluation.metrics.nlg import METRICS, score
from crossray.evaluation.predictions import Prediction, PredictionFile, Provenance
from crossray.evaluation.predictions.exchange import open_predictions
from crossray.evaluation.results import Evaluation, read_results
from crossray.evaluation.trivial import MOST_FREQUENT, NEAREST_IMAGE, TAG_ORACLE
from crossray.pages import tables
from crossray.pages.clinical_tables import class_grid, clinical_grid
from crossray.pages.printing import findings, markdown_page, print_evaluation
from crossray.text.cleaning import clean
from crossray.text.observations import CHEXPERT

evaluate = partial(evaluation.evaluate, labeler=KeywordLabeler())


@pytest.fixture
def studies(made_up, make_dataset):
    """A dataset of 60 training and 30 test studies whose image tells the report."""
    kinds = made_up(10, 1)
    described = [
        (split, kinds[index % 10], 25 * (index % 10), f"kind {index % 10}", index % 10 == 0)
        for split, count in (("train", 60), ("test", 30))
        for index in range(count)
    ]
    return make_dataset(described)


@pytest.fixture
def predictions(studies, tmp_path: Path) -> Path:
    """True reports as predictions for two studies of three, and a wrong one for the third."""
    rows = studies.rows("test")
    reports = studies.reports(rows)
    made = [
        Prediction(
            study, reports[index if index % 3 else 0], {"r2gen": reports[index], "full": f"{reports[index]} end"}
        )
        for index, study in enumerate(studies.ids(rows))
    ]
    provenance = Provenance(
        model="runs/a",
        data=str(studies.path),
        data_sha256=studies.info.sha256,
        split="test",
        cleaner="none",
        max_length=60,
    )
    path = tmp_path / "predictions.jsonl"
    PredictionFile(provenance, tuple(made)).save(path)
    return path


def test_everything_is_there_and_right(predictions: Path, studies) -> None:
    found = evaluate(predictions, meteor="no", resamples=100)
    file = PredictionFile.load(predictions)
    assert list(found.protocols) == ["r2gen", "full"]
    for name, part in found.protocols.items():
        expected = score(file.hypotheses(), file.references(name))
        assert {metric: part.result.scores[metric].value for metric in METRICS} == pytest.approx(expected)
        assert set(part.result.scores) == {*METRICS, *clinical.METRICS}
        # One report of three is wrong, and some of the wrong ones state the same observations.
        assert 2 / 3 < part.result.scores["ce_f1"].value < 1
        assert part.baselines[1].scores["ce_f1"].value == 1
        assert part.differences[MOST_FREQUENT]["ce_f1"].low > 0
        assert part.shuffle.differences["ce_f1"].low > 0
        # The image tells the report, so the baseline that copies from the nearest image is perfect.
        assert [alarm.name for alarm in part.alarms] == ["trivial CIDEr-D", "trivial CE F1"]
        assert part.result.protocol.labeler == "keywords 1"
        assert all(value.low <= value.value <= value.high for value in part.result.scores.values())
        assert [baseline.system for baseline in part.baselines] == [MOST_FREQUENT, NEAREST_IMAGE, TAG_ORACLE]
        assert part.result.protocol.name == name
        assert not part.result.ignores_image
        assert [(group.protocol.group, group.studies) for group in part.groups] == [("normal", 3), ("abnormal", 27)]
        # The image tells the report, so both baselines that look are perfect, and the predictions are not.
        assert part.differences[NEAREST_IMAGE]["cider"].high < 0
        assert part.differences[TAG_ORACLE]["cider"].high < 0
        assert part.differences[MOST_FREQUENT]["cider"].low > 0
    assert found.protocols["r2gen"].baselines[1].scores["bleu4"].value == pytest.approx(1)
    assert found.protocols["full"].baselines[1].scores["bleu4"].value < 1
    assert found.notes == ("meteor_1.5_jar not computed: left out on request",)


def replaced(file: PredictionFile, reports: list[str], path: Path) -> Path:
    rows = tuple(replace(row, prediction=report) for row, report in zip(file.rows, reports, strict=True))
    PredictionFile(file.provenance, rows).save(path)
    return path


def test_one_report_for_all_trips_the_alarms(predictions: Path, tmp_path: Path) -> None:
    file = PredictionFile.load(predictions)
    report = file.rows[0].references["r2gen"]
    constant = replaced(file, [report] * len(file.rows), tmp_path / "constant.jsonl")
    found = evaluate(constant, meteor="no", resamples=100)
    part = found.protocols["full"]
    assert part.result.ignores_image
    assert tables.markdown([part.result, *part.baselines]).startswith("runs/a IGNORES THE IMAGE")
    assert class_grid(part.result).title.startswith("runs/a IGNORES THE IMAGE")
    assert "ignores the image" in " ".join(findings(part))
    assert [alarm.name for alarm in part.alarms] == [
        "ignores the image",
        "clinically ignores the image",
        "trivial CIDEr-D",
        "trivial CE F1",
        "repeated reports",
    ]
    shown = printed(found, 200)
    assert shown.index("ALARM runs/a: ignores the image: CIDEr-D is no better") < shown.index("BLEU-1")
    assert "**ALARM** clinically ignores the image" in markdown_page(found)


def test_true_reports_of_other_studies_ignore_the_image(predictions: Path, tmp_path: Path) -> None:
    file = PredictionFile.load(predictions)
    reports = file.references("full")
    others = [reports[place] for place in np.random.default_rng(1).permutation(len(reports))]
    part = evaluate(replaced(file, others, tmp_path / "p.jsonl"), meteor="no", resamples=100).protocols["full"]
    assert part.result.ignores_image
    names = [alarm.name for alarm in part.alarms]
    assert names[:2] == ["ignores the image", "clinically ignores the image"]
    # What it writes looks like the true reports, so nothing but its scores is suspect.
    assert all(name.startswith("trivial") for name in names[2:])


def test_the_true_reports_trip_no_alarm(predictions: Path, tmp_path: Path) -> None:
    file = PredictionFile.load(predictions)
    # Without the dataset: here its baseline of the nearest image is perfect too.
    path = replaced(replace(file, provenance=Provenance()), file.references("full"), tmp_path / "p.jsonl")
    found = evaluate(path, meteor="no", resamples=100)
    assert [part.alarms for part in found.protocols.values()] == [(), ()]


@pytest.mark.real_data
def test_alarms_on_590_true_reports(real_data: Path, tmp_path: Path) -> None:
    annotation = json.loads((real_data / "iu_xray" / "annotation.json").read_text())
    true = [clean(study["report"], "legacy") for study in annotation["test"]]
    for name, reports, expected in (
        ("true", true, set()),
        ("permuted", [true[i] for i in np.random.default_rng(0).permutation(len(true))], {"ignores the image"}),
        ("constant", [true[0]] * len(true), {"ignores the image", "repeated reports", "repeated phrases"}),
    ):
        rows = [
            Prediction(str(i), ours, {"full": truth}) for i, (ours, truth) in enumerate(zip(reports, true, strict=True))
        ]
        PredictionFile(Provenance(), tuple(rows)).save(tmp_path / name)
        part = evaluate(tmp_path / name, labeler="rules", meteor="no", resamples=200).protocols["full"]
        found = {alarm.name for alarm in part.alarms}
        assert found >= expected, name
        assert part.result.ignores_image == (name != "true")
        if name == "true":
            assert found == set()
            assert part.result.scores["ce_f1"].value > 0.95


def test_missing_java_leaves_the_other_scores(predictions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = evaluate(predictions, resamples=20)
    assert set(found.protocols["full"].result.scores) == {*METRICS, *clinical.METRICS}
    assert found.notes[0].startswith("meteor_1.5_jar not computed: METEOR: no Java")
    assert found.meteor_jar_sha256 is None
    with pytest.raises(UserError, match="no Java"):
        evaluate(predictions, meteor="yes", resamples=20)


def test_files_of_others_are_scored(tmp_path: Path, made_up) -> None:
    path = tmp_path / "mine.jsonl"
    pairs = list(zip(made_up(20, 1), made_up(20, 2), strict=True))
    lines = [
        json.dumps({"id": str(i), "prediction": ours, "reference": truth}) for i, (ours, truth) in enumerate(pairs)
    ]
    path.write_text("\n".join(lines))
    found = evaluate(path, meteor="no", resamples=20)
    assert list(found.protocols) == ["full"]
    assert found.protocols["full"].result.system == "mine"
    assert found.protocols["full"].baselines == ()
    assert found.notes[0].startswith("protocol r2gen not computed: 20 of 20 studies have no reference of it")
    assert found.notes[1].startswith("trivial baselines not computed: no dataset is known")
    groups = found.protocols["full"].groups
    assert [group.protocol.group for group in groups] == ["normal by text", "abnormal by text"]
    assert sum(group.studies for group in groups) == 20


def test_a_dataset_that_has_moved_is_asked_for(tmp_path: Path) -> None:
    rows = tuple(Prediction(str(number), "a .", {"full": "a b ."}) for number in range(3))
    PredictionFile(Provenance(data=str(tmp_path / "moved")), rows).save(tmp_path / "mine.jsonl")
    found = evaluate(tmp_path / "mine.jsonl", meteor="no", resamples=20)
    assert any("moved: dataset.json is missing" in note and note.endswith("with --data") for note in found.notes)


def test_baselines_in_another_writing_are_left_out(tmp_path: Path, make_dataset) -> None:
    """They would score near zero, and every system would seem to beat them."""
    data = make_dataset([("train", "Lungs are Clear.", 0, "", True), *[("test", "Heart is Normal.", 9, "", True)] * 2])
    row = {"prediction": "heart is normal .", "reference": "heart is normal ."}
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"id": f"study-{number}", **row}) + "\n" for number in (1, 2)))
    found = evaluate(path, dataset=data, meteor="no", labeler=None, resamples=20)
    assert found.protocols["full"].baselines == ()
    assert any(note.startswith("trivial baselines not computed: references and reports of") for note in found.notes)
    cleaned = open_predictions(path, dataset=data, cleaner="legacy")
    assert (
        len(evaluate(cleaned, dataset=data, meteor="no", labeler=None, resamples=20).protocols["full"].baselines) == 3
    )


def test_a_dataset_without_training_studies_has_no_baselines(tmp_path: Path, make_dataset) -> None:
    """Such as that of another hospital, which is only tested."""
    dataset = make_dataset([("test", f"kind {index} .", 25 * index, None, index == 0) for index in range(4)])
    rows = tuple(Prediction(f"study-{index}", f"kind {index} .") for index in range(4))
    PredictionFile(Provenance(), rows).save(tmp_path / "answers.jsonl")
    file = open_predictions(tmp_path / "answers.jsonl", dataset=dataset)
    found = evaluate(file, dataset=dataset, meteor="no", resamples=20)
    assert found.protocols["full"].baselines == ()
    assert any(note.startswith("trivial baselines not computed:") and "'train'" in note for note in found.notes)
    assert {group.protocol.group for group in found.protocols["full"].groups} == {"normal", "abnormal"}


def test_another_dataset_is_refused_only_on_demand(predictions: Path, make_dataset) -> None:
    other = make_dataset([("train", "a", 0, "", True), ("test", "b", 0, "", True)], name="other")
    with pytest.raises(UserError, match="sha256"):
        evaluate(predictions, dataset=other.path, meteor="no", resamples=20)
    file = PredictionFile.load(predictions)
    PredictionFile(replace(file.provenance, data="absent"), file.rows).save(predictions)
    found = evaluate(predictions, meteor="no", resamples=20)
    assert found.protocols["full"].baselines == ()
    assert "absent" in found.notes[0]
    PredictionFile(Provenance(), file.rows).save(predictions)
    with pytest.raises(UserError, match="not a study of"):
        evaluate(predictions, dataset=other.path, meteor="no", resamples=20)


def test_predictions_without_truth_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    PredictionFile(Provenance(), (Prediction("1", "a"),)).save(path)
    with pytest.raises(UserError, match="references"):
        evaluate(path)


def test_saved_scores_are_read_again(predictions: Path, tmp_path: Path) -> None:
    found = evaluate(predictions, meteor="no", resamples=20)
    found.save(tmp_path / "new" / "scores.json")
    assert read_results(tmp_path / "new" / "scores.json") == {
        name: (part.result, *part.baselines) for name, part in found.protocols.items()
    }
    assert Evaluation.load(tmp_path / "new" / "scores.json") == found
    (tmp_path / "broken.json").write_text('{"protocols": []}')
    for path in (predictions, tmp_path / "absent.json", tmp_path / "broken.json"):
        with pytest.raises(UserError, match="crossray evaluate wrote"):
            read_results(path)


def test_scores_of_the_older_format_are_refused_in_a_sentence(predictions: Path, tmp_path: Path) -> None:
    found = evaluate(predictions, meteor="no", resamples=20).as_dict()
    del found["format"]
    for part in found["protocols"].values():
        del part["alarms"], part["true_reports"], part["result"]["classes"], part["result"]["protocol"]["labeler"]
    old = tmp_path / "old.json"
    old.write_text(json.dumps(found))
    with pytest.raises(UserError, match=r"old.json: field 'format' is 1.* again$"):
        read_results(old)


def test_without_a_labeler_there_are_no_clinical_scores(predictions: Path, tmp_path: Path) -> None:
    found = evaluate(predictions, meteor="no", labeler=None, resamples=20)
    part = found.protocols["full"]
    assert set(part.result.scores) == set(METRICS)
    assert (part.result.classes, part.result.protocol.labeler, part.result.variety.normal) == ({}, "", None)
    assert "clinical efficacy not computed: left out on request" in found.notes
    assert "CE F1" not in printed(found, 200)
    found.save(tmp_path / "scores.json")
    assert Evaluation.load(tmp_path / "scores.json") == found


def test_references_that_all_state_the_same_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    words = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    rows = tuple(Prediction(word, f"report {word} .", {"full": f"report {word} ."}) for word in words)
    PredictionFile(Provenance(), rows).save(path)
    found = evaluate(path, meteor="no", resamples=100)
    assert any(note.startswith("clinical scores say nothing here: to keywords 1 all") for note in found.notes)
    assert found.protocols["full"].alarms == ()


def test_tables_refuse_to_mix_protocols(predictions: Path) -> None:
    found = evaluate(predictions, meteor="no", resamples=20)
    r2gen, full = (found.protocols[name].result for name in ("r2gen", "full"))
    group = found.protocols["full"].groups[0]
    other_labeler = replace(full, protocol=replace(full.protocol, labeler="chexbert"))
    for mixed in ([r2gen, full], [full, group], [full, other_labeler], []):
        for make in (tables.rows, tables.markdown, tables.render, clinical_grid):
            with pytest.raises(UserError):
                make(mixed)


def test_tables_show_the_numbers(predictions: Path) -> None:
    found = evaluate(predictions, meteor="no", resamples=50)
    part = found.protocols["r2gen"]
    value = part.result.scores["cider"]
    (row, *_) = tables.rows([part.result, *part.baselines])
    assert (row["system"], row["cider"], row["cider_low"]) == ("runs/a", value.value, value.low)
    text = tables.markdown([part.result, *part.baselines])
    assert f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]" in text
    assert text.startswith("protocol r2gen: findings, cleaner none, truncated to 59 tokens, all of 30 studies")
    shown = printed(found, 200)
    for expected in (
        "runs/a",
        NEAREST_IMAGE,
        TAG_ORACLE,
        "shuffled",
        "3 studies, normal: ",
        "not computed",
        f"{value.value:.3f}",
    ):
        assert expected in shown


def printed(found: Evaluation, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    print_evaluation(found, console)
    return console.file.getvalue()


def test_tables_fit_and_lose_no_digit(predictions: Path) -> None:
    found = evaluate(predictions, meteor="no", resamples=20)
    assert max(len(line.rstrip()) for line in printed(found, 100).splitlines()) <= 100
    narrow = printed(found, 40)
    assert "\u2026" not in narrow
    for part in found.protocols.values():
        for name in ("bleu1", "ce_macro_f1_uncertain"):
            score = part.result.scores[name]
            assert f"{score.value:.3f}  [{score.low:.3f}, {score.high:.3f}]" in narrow


def test_every_observation_has_a_line_with_its_numbers(predictions: Path) -> None:
    part = evaluate(predictions, meteor="no", resamples=20).protocols["full"]
    lines = {line[0]: line[1:] for line in class_grid(part.result).lines}
    assert list(lines) == [name.replace("_", " ") for name in CHEXPERT]
    positive = {score.observation: score for score in part.result.classes["positive"]}
    uncertain = {score.observation: score for score in part.result.classes["positive or uncertain"]}
    opacity = positive["lung_opacity"]
    assert lines["lung opacity"][:3] == [str(opacity.support), str(opacity.written), f"{opacity.precision:.3f}"]
    assert 0 < opacity.f1.low <= opacity.f1.value
    assert lines["fracture"] == ["0", "0", "-", "-", "-", "-", "0", "-"]
    # Only the second convention counts what the labeler calls uncertain.
    assert positive["edema"].support == 0
    assert lines["edema"] == ["0", "0", "-", "-", "-", "-", str(uncertain["edema"].support), lines["edema"][-1]]
    assert uncertain["edema"].support > 0
    text = clinical_grid([part.result, *part.baselines]).markdown()
    assert f"| macro, 5 | {part.result.scores['ce5_macro_precision'].value:.3f} |" in text


@pytest.mark.java
@pytest.mark.slow
def test_meteor_stands_beside_the_others(predictions: Path) -> None:
    found = evaluate(predictions, meteor="yes", resamples=50)
    perfect = found.protocols["r2gen"].baselines[1].scores["meteor_1.5_jar"]
    ours = found.protocols["r2gen"].result.scores["meteor_1.5_jar"]
    assert (perfect.low, perfect.value, perfect.high) == pytest.approx((1, 1, 1))
    assert 0 < ours.low < ours.value < ours.high < 1
    assert found.meteor_jar_sha256
    scores = found.protocols["full"].result.scores
    nine = ("bleu1", "bleu2", "bleu3", "bleu4", "meteor_1.5_jar", "rouge_l", "ce_precision", "ce_recall", "ce_f1")
    assert scores["avg"].value == pytest.approx(np.mean([scores[name].value for name in nine]))
    assert scores["avg"].low < scores["avg"].value < scores["avg"].high
    assert "Avg (REVTAF)" in printed(found, 100)
    assert found.protocols["full"].differences[NEAREST_IMAGE]["meteor_1.5_jar"].high < 0
