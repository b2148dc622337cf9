"""The scorecard: what it takes, what it refuses, and what it says."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tests.browser.example import make_runs
from tests.pages.html_reader import Reader

from crossray.cli import main
from crossray.errors import UserError
from crossray.evaluation.evaluate import evaluate
from crossray.evaluation.predictions import Prediction, PredictionFile, Provenance
from crossray.pages.scorecard import runs as scorecard_runs
from crossray.pages.scorecard.build import build_scorecard
from crossray.pages.scorecard.runs import common_protocols, read_systems
from crossray.pages.scorecard.studies import StudyComparison, choose
from crossray.text.display import readable
from crossray.text.observations import label_report


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs on few phantom studies; tests copy what they change."""
    folder = tmp_path_factory.mktemp("example")
    make_runs(folder, studies=60, size=64)
    return folder


@pytest.fixture(autouse=True)
def _quick_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that a page has to compute are computed with few resamples, and without starting Java."""
    monkeypatch.setattr(scorecard_runs, "evaluate", partial(evaluate, meteor="no", resamples=20))


@pytest.fixture
def runs(example: Path, tmp_path: Path) -> list[Path]:
    """Copies of both runs; their dataset stays where it is."""
    return [Path(shutil.copytree(example / name, tmp_path / name)) for name in ("careful", "hasty")]


def rewrite(run: Path, change) -> None:  # type: ignore[no-untyped-def]
    """Replace the predictions of a run by changed ones, without scores."""
    path = run / "predictions.jsonl"
    change(PredictionFile.load(path)).save(path)
    path.with_suffix(".scores.json").unlink()


def page_of(runs: list[Path], **options: object) -> Reader:
    return Reader(build_scorecard(read_systems(runs), **options))  # type: ignore[arg-type]


class TestReading:
    def test_systems_are_named_by_what_tells_their_paths_apart(self, runs: list[Path], tmp_path: Path) -> None:
        assert [system.name for system in read_systems(runs)] == ["careful", "hasty"]
        again = shutil.copytree(runs[0], tmp_path / "again" / "careful")
        assert [system.name for system in read_systems([runs[0], again])] == [
            f"{tmp_path.name}/careful",
            "again/careful",
        ]
        alone = Path(shutil.copy(runs[1] / "predictions.jsonl", tmp_path / "mine.jsonl"))
        shutil.copy(runs[1] / "predictions.scores.json", tmp_path / "mine.scores.json")
        assert [system.name for system in read_systems([runs[0], alone])] == ["careful", "mine"]

    def test_reports_of_image_files_get_the_true_reports_of_a_dataset(self, runs: list[Path], tmp_path: Path) -> None:
        """`crossray evaluate --data` scores such a file, and the page reads its scores."""
        whole = PredictionFile.load(runs[0] / "predictions.jsonl")
        data, path = whole.provenance.data, tmp_path / "files.jsonl"
        assert data is not None
        rows = tuple(replace(row, references={}) for row in whole.rows)
        replace(whole, rows=rows, provenance=replace(whole.provenance, data=None, data_sha256="")).save(path)
        with pytest.raises(UserError, match="give the dataset with --data"):
            read_systems([path])
        (system,) = read_systems([path], data=data)
        arguments = ["evaluate", str(path), "--data", data, "--meteor", "no", "--resamples", "20"]
        main(arguments)
        (stored,) = read_systems([path], data=data, say=pytest.fail)
        assert stored.evaluation.protocols.keys() == system.evaluation.protocols.keys() == {"full"}
        assert stored.predictions == system.predictions

    def test_names_that_differ_after_a_dot_only_have_scores_and_names_of_their_own(
        self, runs: list[Path], tmp_path: Path
    ) -> None:
        files = [tmp_path / "preds.seed0", tmp_path / "preds.seed1"]
        for run, path in zip(runs, files, strict=True):
            shutil.copy(run / "predictions.jsonl", path)
            main(["evaluate", str(path), "--meteor", "no", "--resamples", "20"])
        said: list[str] = []
        assert [system.name for system in read_systems(files, say=said.append)] == ["preds.seed0", "preds.seed1"]
        assert said == []

    def test_scores_of_an_ablation_are_found(self, runs: list[Path]) -> None:
        (runs[0] / "predictions.scores.json").rename(runs[0] / "scores.json")
        said: list[str] = []
        read_systems(runs[:1], say=said.append)
        assert said == []

    def test_missing_scores_are_computed_and_not_kept(self, runs: list[Path]) -> None:
        scores = runs[0] / "predictions.scores.json"
        before = read_systems(runs[:1])[0].evaluation
        scores.unlink()
        said: list[str] = []
        after = read_systems(runs[:1], say=said.append)[0].evaluation
        assert "scoring" in said[0]
        assert (
            after.protocols["full"].result.scores["cider"].value
            == before.protocols["full"].result.scores["cider"].value
        )
        assert not scores.exists()

    def test_scores_of_other_predictions_are_refused(self, runs: list[Path]) -> None:
        shutil.copy(runs[0] / "predictions.scores.json", runs[1] / "predictions.scores.json")
        with pytest.raises(UserError, match="scores of other predictions"):
            read_systems(runs)

    def test_scores_of_reports_that_were_replaced_are_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "answers.jsonl"
        rows = [Prediction(name, f"{name} .", {"full": f"{name} ."}) for name in ("a", "b")]
        PredictionFile(Provenance(), tuple(rows)).save(path)
        main(["evaluate", str(path), "--meteor", "no", "--resamples", "20"])
        read_systems([path])
        PredictionFile(Provenance(), (rows[0], replace(rows[1], prediction="b c ."))).save(path)
        with pytest.raises(UserError, match="scores of other predictions"):
            read_systems([path])

    def test_the_training_log_is_found_through_the_model_and_may_be_cut(self, runs: list[Path], tmp_path: Path) -> None:
        log = runs[0] / "metrics.jsonl"
        log.write_text(log.read_text() + '{"split": "val", "st')
        best = tmp_path / "elsewhere" / "best"
        best.mkdir(parents=True)
        log.rename(best.parent / "metrics.jsonl")
        rewrite(runs[0], lambda file: replace(file, provenance=replace(file.provenance, model=str(best))))
        assert Counter(row["split"] for row in read_systems(runs[:1])[0].history) == {"train": 40, "val": 10}

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda file: replace(file, provenance=replace(file.provenance, data_sha256="other", data=None)), "data"),
            (lambda file: replace(file, rows=file.rows[1:]), "differ in studies"),
            (
                lambda file: replace(file, rows=(replace(file.rows[0], id="another"), *file.rows[1:])),
                "differ from those of",
            ),
            (
                lambda file: replace(
                    file, rows=(replace(file.rows[0], references={"full": "x", "r2gen": "x"}), *file.rows[1:])
                ),
                "differ from those of",
            ),
        ],
    )
    def test_other_protocols_and_studies_are_refused(self, runs: list[Path], change, words: str) -> None:  # type: ignore[no-untyped-def]
        rewrite(runs[1], change)
        with pytest.raises(UserError, match=words):
            read_systems(runs)

    def test_references_of_other_vocabularies_leave_the_full_protocol(self, runs: list[Path]) -> None:
        rewrite(runs[1], lambda file: replace(file, provenance=replace(file.provenance, max_length=30)))
        protocols, left_out = common_protocols(read_systems(runs))
        assert protocols == ["full"]
        assert "r2gen" in left_out[0] and "max_length" in left_out[0]
        html = build_scorecard(read_systems(runs), studies=1)
        assert html.count(left_out[0].split(":")[0]) == 1 and "protocol full" in html

    def test_mistakes_name_the_file(self, runs: list[Path]) -> None:
        with pytest.raises(UserError, match="named twice"):
            read_systems([runs[0], runs[0] / "predictions.jsonl"])
        (runs[0] / "predictions.jsonl").unlink()
        with pytest.raises(UserError, match=r"careful: predictions\.jsonl is missing; write it with crossray generate"):
            read_systems(runs)


def comparison(name: str, reference: str, report: str, cider: float = 0.0) -> StudyComparison:
    return StudyComparison(name, reference, label_report(reference), {"a": report}, {"a": label_report(report)}, cider)


class TestChoosing:
    STUDIES = (
        comparison("two agreed", "cardiomegaly and pulmonary edema .", "cardiomegaly . pulmonary edema ."),
        comparison("one agreed", "cardiomegaly .", "cardiomegaly .", 1.0),
        comparison("one agreed, other words", "cardiomegaly .", "the heart is enlarged .", 0.1),
        comparison("normal", "no effusion .", "no effusion ."),
        comparison("missed", "cardiomegaly .", "no effusion ."),
        comparison("missed and false", "cardiomegaly .", "large pleural effusion ."),
    )

    def test_the_best_and_the_worst_are_those(self) -> None:
        chosen = [(group, study.id) for group, study in choose(self.STUDIES, 6)]
        assert chosen[:4] == [
            ("best", "two agreed"), ("best", "one agreed"), ("worst", "missed and false"), ("worst", "missed"),
        ]  # fmt: skip
        assert sorted(chosen[4:]) == [("random", "normal"), ("random", "one agreed, other words")]

    @pytest.mark.parametrize("count", range(9))
    def test_none_is_chosen_twice(self, count: int) -> None:
        chosen = [study.id for _, study in choose(self.STUDIES, count)]
        assert len(chosen) == len(set(chosen)) == min(count, len(self.STUDIES))

    def test_the_draw_depends_on_the_seed_alone(self) -> None:
        studies = [comparison(str(number), "normal .", "normal .") for number in range(60)]
        first, again, other = ([study.id for _, study in choose(studies, 12, seed)] for seed in (1, 1, 2))
        assert first == again != other


class TestPage:
    def test_every_text_and_score_is_there(self, runs: list[Path]) -> None:
        systems = read_systems(runs)
        reader = Reader(build_scorecard(systems, studies=100))
        text = "".join(reader.text)
        for system in systems:
            for part in system.evaluation.protocols.values():
                for result in (part.result, *part.baselines):
                    for name in ("bleu1", "cider", "ce_f1", "ce_micro_f1_uncertain", "ce5_macro_f1"):
                        assert f"{result.scores[name].value:.3f}" in text
        assert text.count("among the best") == text.count("among the worst") == 4
        assert len(reader.named("article")) == len(systems[0].predictions.rows) == 12

    def test_reports_are_shown_word_for_word(self, runs: list[Path]) -> None:
        systems = read_systems(runs)
        html = build_scorecard(systems, studies=100)
        text = "".join(Reader(re.sub(r'<span class="(sign|unseen)".*?</span>', "", html)).text)
        for system in systems:
            for row in system.predictions.rows:
                assert readable(row.prediction) in text
                assert readable(row.references["full"]) in text

    def test_a_preface_stands_between_the_alarms_and_the_scores(self, runs: list[Path]) -> None:
        text = "".join(page_of(runs, title="Mine", template="demo.html", made="A word.", checks=[], studies=0).text)
        assert text.startswith("\nMine")
        assert text.index("Research software") < text.index("A word.") < text.index("BLEU-1")
        assert "Study by study" not in text

    def test_images_say_what_they_are(self, runs: list[Path]) -> None:
        reader = page_of(runs, studies=3)
        assert all("synthetic radiograph of study phantom-" in str(image["alt"]) for image in reader.named("img"))
        assert "All images here are synthetic" in "".join(reader.text)

    def test_a_system_that_writes_one_report_raises_the_alarm_before_its_scores(self, runs: list[Path]) -> None:
        constant = "the heart is normal . no effusion ."
        rewrite(runs[1], lambda file: replace(file, rows=tuple(replace(row, prediction=constant) for row in file.rows)))
        text = "".join(page_of(runs).text)
        assert text.index("hasty ignores the image") < text.index("BLEU-1")
        assert "careful ignores the image" not in text

    def test_a_hostile_report_stays_text(self, runs: list[Path]) -> None:
        hostile = "<script>alert(1)</script> <img src=x onerror=alert(2)> \"' cardiomegaly </p>"
        rewrite(runs[0], lambda file: replace(file, rows=tuple(replace(row, prediction=hostile) for row in file.rows)))
        hostile_name = runs[0].rename(runs[0].with_name('<b onclick="x">'))
        reader = page_of([hostile_name, runs[1]])
        assert len(reader.named("script")) == 1
        assert not reader.named("b")
        assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)
        assert "<script>alert(1)</script>" in "".join(reader.text)

    def test_without_images_and_logs_it_says_so(self, runs: list[Path]) -> None:
        for run in runs:
            (run / "metrics.jsonl").unlink()
            rewrite(run, lambda file: replace(file, provenance=replace(file.provenance, data=None)))
        reader = page_of(runs)
        text = "".join(reader.text)
        assert not reader.named("img")
        assert "No images: the predictions name no dataset; give it with --data" in text
        assert "No training log at hand for careful, hasty" in text

    def test_a_dataset_that_is_not_theirs_is_refused(self, runs: list[Path], example: Path, tmp_path: Path) -> None:
        other = Path(shutil.copytree(example / "data", tmp_path / "data"))
        description = json.loads((other / "dataset.json").read_text())
        (other / "dataset.json").write_text(json.dumps({**description, "sha256": "0" * 64}))
        with pytest.raises(UserError, match="sha256 is 000000000000"):
            page_of(runs, data=other)

    def test_foreign_predictions_need_only_a_reference(self, tmp_path: Path) -> None:
        path = tmp_path / "theirs.jsonl"
        rows = [
            {"id": str(number), "prediction": "Small effusion. " * number, "reference": "No effusion. Cardiomegaly."}
            for number in range(1, 5)
        ]
        path.write_text("\n".join(map(json.dumps, rows)))
        text = "".join(page_of([path]).text)
        assert "Protocol full" in text
        assert "Protocol r2gen" not in text
