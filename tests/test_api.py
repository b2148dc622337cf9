"""The library as a notebook uses it, on a small model of random weights."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.models.tiny import tiny, tiny_writer

import crossray
from crossray.data.batches.transform import ImageTransform
from crossray.decoding.config import DecodingConfig
from crossray.decoding.settings import GenerationSettings
from crossray.errors import UserError
from crossray.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    model = tiny_writer("the heart is normal . no effusion .", "lungs are clear .")
    model.save_pretrained(place)
    GenerationSettings(DecodingConfig(method="greedy", max_length=12), "impression", 1).save(place)
    return place


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("images")
    paths = [place / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(number).integers(0, 200, (80, 64)).astype(np.uint8)).save(path)
    return paths


def test_a_folder_becomes_a_model_that_knows_how_it_writes(folder: Path, images: list[Path]) -> None:
    model = crossray.load(folder, device="cpu")
    assert (model.system, model.generator.section, model.generator.decoding.method) == (
        "baseline",
        "impression",
        "greedy",
    )
    report = model.report(images[0], images[1])
    assert str(report) == report.text
    assert len(report.raw.split()) <= 12
    assert " ".join(sentence.text for sentence in report.sentences) == report.text
    assert all(0 < sentence.confidence <= 1 for sentence in report.sentences)


def test_many_reports_are_those_of_one_at_a_time(folder: Path, images: list[Path]) -> None:
    model = crossray.load(folder, device="cpu")
    many = list(model.reports(iter(images), batch_size=2))
    assert [report.raw for report in many] == [model.report(path).raw for path in images]
    assert [report.id for report in many] == [path.stem for path in images]


def test_names_and_samples_do_not_depend_on_the_batches(folder: Path, images: list[Path], tmp_path: Path) -> None:
    studies = []
    for name, path in zip("abc", images, strict=False):
        (tmp_path / name).mkdir()
        studies.append(shutil.copy(path, tmp_path / name / "0.png"))  # one name in several folders
    model = crossray.load(folder, device="cpu", decoding={"method": "sample", "temperature": 2.0})
    alone, together = (list(model.reports(studies, batch_size=size)) for size in (1, 3))
    assert [report.id for report in alone] == [report.id for report in together] == ["a/0", "b/0", "c/0"]
    assert [report.raw for report in alone] == [report.raw for report in together]


def test_files_are_read_as_they_are_needed(folder: Path, images: list[Path]) -> None:
    reports = crossray.load(folder, device="cpu").reports([images[0], Path("missing.png")], batch_size=1)
    assert next(reports).id == "0"
    with pytest.raises(UserError, match=r"missing\.png"):
        next(reports)


def test_the_confidence_is_that_of_the_tokens(folder: Path, images: list[Path]) -> None:
    model = crossray.load(folder, device="cpu")
    (written,) = model.generator.report_files([[images[0]]])
    values = [value for _, values in written.report.sentences(model.generator.tokenizer) for value in values]
    assert values == list(written.report.token_log_probabilities[: len(values)])
    expected = np.exp(np.mean(written.report.token_log_probabilities))
    assert model.report(images[0]).confidence == pytest.approx(expected)


def test_attention_shows_itself(folder: Path, images: list[Path]) -> None:
    attention = crossray.load(folder, device="cpu").report(images[0]).attention
    assert attention.maps.weights.ndim == 5
    assert "srcdoc" in attention._repr_html_()


@pytest.mark.parametrize("method", ["sample", "mbr"])
def test_attention_is_that_of_the_report_even_if_it_was_drawn(folder: Path, images: list[Path], method: str) -> None:
    model = crossray.load(folder, device="cpu", decoding={"method": method, "samples": 3})
    for path in images[:3]:
        report = model.report(path)
        assert report.attention.maps.text == report.raw


def test_fields_of_the_search_are_changed_and_misspelt_ones_named(folder: Path) -> None:
    assert crossray.load(folder, device="cpu", decoding={"method": "beam"}).generator.decoding.max_length == 12
    with pytest.raises(UserError, match=r"^decoding\.beams: there is no such field"):
        crossray.load(folder, device="cpu", decoding={"beams": 2})


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json there"):
        crossray.load(tmp_path)


def test_scores_are_a_mapping_with_tables() -> None:
    scores = crossray.evaluate(["lungs are clear ."], ["the lungs are clear ."], meteor="no", resamples=10)
    assert scores["bleu1"] == pytest.approx(np.exp(1 - 5 / 4))
    assert "BLEU-1" in scores.table()
    assert scores.rows()[0]["bleu1"] == scores["bleu1"]
    by_study = crossray.evaluate({"a": "x y", "b": "z"}, {"b": "z", "a": "x y"}, meteor="no", resamples=10)
    assert by_study["bleu1"] == pytest.approx(1)


@pytest.mark.parametrize("wrong", [None, 3, b"a.png", {"a": 1}, np.zeros(3)])
def test_what_is_no_model_or_study_is_refused(wrong: object, folder: Path, images: list[Path]) -> None:
    with pytest.raises(UserError, match="is not a model; give a model folder"):
        crossray.load(wrong)  # type: ignore[arg-type]
    model = crossray.load(folder, device="cpu")
    for call in (model.report, model.check):
        with pytest.raises(UserError, match="is not a view of a study; give paths"):
            call(wrong)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"is not a (list of studies|study)|studies: .* is not"):
        list(model.reports(wrong))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"is not a (study|view of a study); give paths"):
        list(model.reports([images[0], wrong]))  # type: ignore[list-item]


def test_one_path_is_no_list_of_studies(folder: Path, images: list[Path]) -> None:
    model = crossray.load(folder, device="cpu")
    with pytest.raises(UserError, match=r"use report\(\) for a single study"):
        list(model.reports(str(images[0])))
    with pytest.raises(UserError, match="is not a view of a study"):
        model.report([images[0], images[1]])  # type: ignore[arg-type]
    with pytest.raises(UserError, match="batch_size is 'two'; give a whole number of at least 1"):
        list(model.reports([images[0]], batch_size="two"))  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"decoding: .* is not a mapping"):
        crossray.load(folder, device="cpu", decoding="beam")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [None, 3, b"text", [None], [["a"]], [3], np.zeros(1)])
def test_what_is_no_report_is_refused(wrong: object) -> None:
    with pytest.raises(UserError, match=r"predictions: .* give"):
        crossray.evaluate(wrong, ["a"])  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"references: .*give"):
        crossray.evaluate(["a"], wrong)  # type: ignore[arg-type]


def test_options_of_scoring_are_checked_first() -> None:
    for name, wrong in (("meteor", "yess"), ("cleaner", "legcy"), ("resamples", 0), ("resamples", 2.5), ("seed", "x")):
        with pytest.raises(UserError, match=name):
            crossray.evaluate(["a"], ["a"], **{name: wrong})  # type: ignore[arg-type]


def test_an_array_of_texts_is_scored() -> None:
    scores = crossray.evaluate(np.array(["x y"]), np.array(["x y"]), meteor="no", resamples=10)  # type: ignore[arg-type]
    assert scores["bleu1"] == pytest.approx(1)


@pytest.mark.parametrize("references", [None, ["one"], {"a": "one", "b": "two"}])
def test_references_that_do_not_fit_are_refused(references: object) -> None:
    with pytest.raises(UserError, match="references"):
        crossray.evaluate(["one", "two"], references)  # type: ignore[arg-type]


def test_no_predictions_are_refused() -> None:
    with pytest.raises(UserError, match="predictions: contains no predictions"):
        crossray.evaluate({}, {})


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, crossray; dir(crossray); print([m for m in ('torch', 'numpy', 'rich') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_is_there() -> None:
    for name in crossray.__all__:
        assert getattr(crossray, name) is not None
    with pytest.raises(AttributeError):
        crossray.nothing  # noqa: B018


def test_a_retrieving_system_names_similar_studies(images: list[Path]) -> None:
    from crossray.api import Reporter
    from crossray.generation.generator import Generator

    tokenizer = Tokenizer.train(["the heart is normal . no effusion .", "lungs are clear ."], min_count=1)
    model = tiny("revtaf", vocabulary_size=tokenizer.vocabulary_size)
    model.tokenizer, model.transform = tokenizer, ImageTransform(size=64, resize=64)
    report = Reporter(Generator(model, DecodingConfig(method="greedy", max_length=6), device="cpu")).report(images[0])
    found = report.similar(2)
    assert len(found) == 2
    assert found[0].distance <= found[1].distance
    assert {neighbour.study for neighbour in found} <= set(model.database.studies)
    assert [neighbour.report for neighbour in found] == ["", ""]  # the folder stores no texts


def test_the_maps_of_a_batch_are_those_of_one_study(folder: Path, images: list[Path]) -> None:
    from crossray.generation.files import read_study

    model = crossray.load(folder, device="cpu")
    studies = [read_study([path], model.model.config.views, model.generator.stored) for path in images[:3]]
    written = model.write(studies, ["a", "b", "c"], need_attention=True)
    for path, report in zip(images, written, strict=False):
        alone = model.report(path)
        assert (report.raw, report.similar()) == (alone.raw, [])
        assert report.maps.words == alone.attention.maps.words
        np.testing.assert_allclose(report.maps.weights, alone.attention.maps.weights, atol=1e-5)
