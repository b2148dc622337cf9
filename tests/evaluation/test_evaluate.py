"""The whole evaluation of a file, and its tables."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from crossray.errors import UserError
from crossray.evaluation import tables
from crossray.evaluation.evaluate import evaluate
from crossray.evaluation.nlg import METRICS, score
from crossray.evaluation.predictions import Prediction, PredictionFile, Provenance
from crossray.evaluation.results import read_results
from crossray.evaluation.trivial import MOST_FREQUENT, NEAREST_IMAGE, TAG_ORACLE


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
        assert {metric: value.value for metric, value in part.result.scores.items()} == pytest.approx(expected)
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


def test_constant_predictions_are_headed_so(predictions: Path, tmp_path: Path) -> None:
    file = PredictionFile.load(predictions)
    report = file.rows[0].references["r2gen"]
    constant = PredictionFile(file.provenance, tuple(replace(row, prediction=report) for row in file.rows))
    constant.save(tmp_path / "constant.jsonl")
    part = evaluate(tmp_path / "constant.jsonl", meteor="no", resamples=100).protocols["full"]
    assert part.result.ignores_image
    assert tables.markdown([part.result, *part.baselines]).startswith("runs/a IGNORES THE IMAGE")
    assert "ignores the image" in " ".join(tables.findings(part))


def test_missing_java_leaves_the_other_scores(predictions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = evaluate(predictions, resamples=20)
    assert set(found.protocols["full"].result.scores) == set(METRICS)
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
    assert found.notes[0].startswith("trivial baselines not computed: no dataset is known")


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
    with pytest.raises(UserError, match="no study of"):
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
    (tmp_path / "broken.json").write_text('{"protocols": []}')
    for path in (predictions, tmp_path / "absent.json", tmp_path / "broken.json"):
        with pytest.raises(UserError, match="crossray evaluate wrote"):
            read_results(path)


def test_tables_refuse_to_mix_protocols(predictions: Path) -> None:
    found = evaluate(predictions, meteor="no", resamples=20)
    r2gen, full = (found.protocols[name].result for name in ("r2gen", "full"))
    group = found.protocols["full"].groups[0]
    for mixed in ([r2gen, full], [full, group], []):
        for make in (tables.rows, tables.markdown, tables.render):
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
    assert text.startswith("protocol r2gen: findings, cleaner none, cut at 59 tokens, all of 30 studies")
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    tables.print_evaluation(found, console)
    shown = console.export_text()
    for expected in (
        "runs/a",
        NEAREST_IMAGE,
        TAG_ORACLE,
        "shuffled",
        " normal studies: ",
        "not computed",
        f"{value.value:.3f}",
    ):
        assert expected in shown


@pytest.mark.java
@pytest.mark.slow
def test_meteor_stands_beside_the_others(predictions: Path) -> None:
    found = evaluate(predictions, meteor="yes", resamples=50)
    perfect = found.protocols["r2gen"].baselines[1].scores["meteor_1.5_jar"]
    ours = found.protocols["r2gen"].result.scores["meteor_1.5_jar"]
    assert (perfect.low, perfect.value, perfect.high) == pytest.approx((1, 1, 1))
    assert 0 < ours.low < ours.value < ours.high < 1
    assert found.meteor_jar_sha256
    assert found.protocols["full"].differences[NEAREST_IMAGE]["meteor_1.5_jar"].high < 0
