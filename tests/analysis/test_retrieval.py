"""Retrieval quality against a computation study by study, and the index of a folder: built, asked, replaced."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.models.tiny import tiny
from tests.training.conftest import blob_study

from crossray import cli
from crossray.analysis.inputs import collator_of
from crossray.analysis.retrieval import retrieval_quality
from crossray.data.batches.transform import ImageTransform, transform_inputs
from crossray.data.store import Dataset, write_dataset
from crossray.errors import UserError
from crossray.evaluation.metrics.nlg import score
from crossray.generation.generator import Generator
from crossray.generation.index import build_index
from crossray.models.base import ReportModel
from crossray.models.retrieval.retrieving import DATABASE
from crossray.models.revtaf import REVTAF
from crossray.pages.retrieval_table import grid
from crossray.phantom.source import phantom_studies
from crossray.retrieval.database import ReportDatabase
from crossray.text.tokenizer import Tokenizer


def phantom(folder: Path, seed: int) -> Dataset:
    source = {"kind": "phantom", "synthetic_images": True}
    return write_dataset(folder, phantom_studies(30, seed, "easy"), size=64, source=source, workers=0)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return phantom(tmp_path_factory.mktemp("phantom") / "data", 3)


def model_for(dataset: Dataset, **overrides: object) -> REVTAF:
    tokenizer = Tokenizer.train(dataset.reports(dataset.rows("train")), min_count=1, statuses=True)
    model = tiny(
        "revtaf", vocabulary_size=tokenizer.vocabulary_size, max_length=60,
        observations=tuple(dataset.info.observations), **overrides,
    )  # fmt: skip
    assert isinstance(model, REVTAF)
    model.tokenizer, model.transform = tokenizer, ImageTransform(size=64, resize=64)
    model.learn_from(dataset)
    return model.eval()


@pytest.fixture(scope="module")
def model(dataset: Dataset) -> REVTAF:
    return model_for(dataset)


@pytest.fixture
def folder(model: REVTAF, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_scores_are_those_of_the_retrieved_reports(dataset: Dataset, model: REVTAF) -> None:
    found = retrieval_quality(model, dataset, "test", resamples=20)
    assert list(found) == ["hyperbolic", "euclidean", "cosine", "random", "labels"]
    rows, trained = dataset.rows("test"), dataset.rows("train")
    inputs = transform_inputs(collator_of(model, dataset).inputs(rows), model.transform, train=False)
    with torch.no_grad():
        entities = model.entities(inputs)[0]
        chosen = {
            "hyperbolic": model.retrieve(inputs)[1][:, 0],
            "euclidean": (entities[:, None] - model.database.entities).norm(dim=2).argmin(1),
            "cosine": torch.nn.functional.cosine_similarity(entities[:, None], model.database.entities, dim=2).argmax(
                1
            ),
        }
    clean = model.tokenizer.clean
    truth = [clean(report) for report in dataset.reports(rows, "findings")]
    apart = (dataset.labels[rows][:, None] != dataset.labels[trained]).sum(2)
    for way, places in chosen.items():
        picked = trained[places.numpy()]
        reports = [clean(report) for report in dataset.reports(picked, "findings")]
        assert found[way].scores["cider"].value == pytest.approx(score(reports, truth)["cider"])
        differing = (dataset.labels[rows] != dataset.labels[picked]).sum(1).mean()
        assert found[way].scores["hamming"].value == pytest.approx(differing)
        assert found[way].reports == len(np.unique(picked))
        for metric in ("hamming", "cider"):
            expected = found["hyperbolic"].scores[metric].value - found[way].scores[metric].value
            assert way == "hyperbolic" or found[way].difference[metric].value == pytest.approx(expected)
    assert found["labels"].scores["hamming"].value == pytest.approx(apart.min(1).mean())
    assert found["labels"].scores["hamming"].value < found["random"].scores["hamming"].value


def test_studies_without_labels_have_no_nearest_labels_but_any_report(tmp_path: Path) -> None:
    studies = [
        study if study.split == "train" or not int(study.id[-6:]) % 2 else dataclasses.replace(study, labels=None)
        for study in phantom_studies(120, 3, "easy")
    ]
    dataset = write_dataset(tmp_path / "data", studies, size=64, source={"kind": "phantom"}, workers=0)
    found = retrieval_quality(model_for(dataset), dataset, "test", resamples=20)["labels"]
    without = (dataset.labels[dataset.rows("test")] < 0).any(1)
    assert without.sum() > 5
    assert found.reports > (~without).sum() + 1  # not one and the same report for all of them
    assert np.isfinite(found.scores["hamming"].value)


def test_training_studies_without_labels_are_drawn_at_random(tmp_path: Path) -> None:
    studies = [
        dataclasses.replace(study, labels=None) if study.split == "train" else study
        for study in phantom_studies(60, 3, "easy")
    ]
    dataset = write_dataset(tmp_path / "data", studies, size=64, source={"kind": "phantom"}, workers=0)
    found = retrieval_quality(model_for(dataset), dataset, "test", resamples=20)
    assert found["labels"].reports > 1  # not the first one for every study
    assert [line[1:4] for line in grid("", found).lines] == [["", "", ""]] * len(found)


def test_without_lre_the_own_way_is_the_euclidean(dataset: Dataset) -> None:
    found = retrieval_quality(model_for(dataset, lre=False), dataset, "test", resamples=20)
    assert list(found) == ["euclidean", "cosine", "random", "labels"]
    assert not found["euclidean"].difference


def test_an_index_of_another_dataset_is_refused(model: REVTAF, tmp_path: Path) -> None:
    other = write_dataset(
        tmp_path / "other", phantom_studies(9, 7, "easy"), size=64, source={"kind": "phantom"}, workers=0
    )
    with pytest.raises(UserError, match="other: the model's index was built from other studies"):
        retrieval_quality(model, other, "test")


def test_analyze_retrieval(dataset: Dataset, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "retrieval.json"
    cli.main(
        ["analyze", "retrieval", "--model", str(folder), "--data", str(dataset.path), "--out", str(out),
         "--resamples", "20"]
    )  # fmt: skip
    saved = json.loads(out.read_text())
    assert saved["split"] == "test" and saved["data_sha256"] == dataset.info.sha256
    assert list(saved["models"]["model"]) == ["hyperbolic", "euclidean", "cosine", "random", "labels"]
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split()[0] for line in lines if line.startswith(tuple(saved["models"]["model"]))]
    assert shown[-5:] == list(saved["models"]["model"])


class TestIndex:
    def test_a_new_dataset_replaces_the_index_and_nothing_else(self, folder: Path, tmp_path: Path) -> None:
        other = phantom(tmp_path / "other", 5)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert build_index(folder, other) == len(other.rows("train"))
        after = {path.name: path.read_bytes() for path in folder.iterdir()}
        changed = {name for name in before if before[name] != after[name]}
        assert changed == {DATABASE, "provenance.json"} and before.keys() == after.keys()
        noted, was = json.loads(after["provenance.json"]), json.loads(before["provenance.json"])
        assert noted.pop("index") == {"sha256": other.info.sha256, "source": other.info.source}
        assert noted == was
        assert list(ReportDatabase.load(folder / DATABASE).studies) == other.ids(other.rows("train"))
        assert isinstance(ReportModel.from_pretrained(folder), REVTAF)

    def test_a_dataset_without_labels_can_be_indexed_and_scored(self, folder: Path, tmp_path: Path) -> None:
        splits = ["train"] * 4 + ["val"] * 2
        studies = [dataclasses.replace(blob_study(number, split), labels=None) for number, split in enumerate(splits)]
        write_dataset(tmp_path / "blank", studies, size=40, source={"name": "blobs"}, workers=0)
        assert build_index(folder, Dataset.open(tmp_path / "blank")) == 4
        assert isinstance(Generator.from_pretrained(folder).model, REVTAF)
        out = tmp_path / "retrieval.json"
        cli.main(
            ["analyze", "retrieval", "--model", str(folder), "--data", str(tmp_path / "blank"), "--out", str(out),
             "--split", "val", "--resamples", "20"]
        )  # fmt: skip
        saved = json.loads(out.read_text(), parse_constant=pytest.fail)  # NaN is no JSON
        assert saved["models"]["model"]["random"]["scores"]["hamming"]["value"] is None

    def test_the_index_of_another_encoder_is_built_again(self, dataset: Dataset, folder: Path) -> None:
        """What the refusal of such a folder tells the user to run."""
        database = ReportDatabase.load(folder / DATABASE)
        database.encoder = "another"
        database.save(folder / DATABASE)
        with pytest.raises(UserError, match="crossray index build"):
            Generator.from_pretrained(folder)
        build_index(folder, dataset)
        assert isinstance(Generator.from_pretrained(folder).model, REVTAF)
        (folder / DATABASE).unlink()
        assert build_index(folder, dataset) == len(dataset.rows("train"))

    def test_wrong_folders_are_named(self, dataset: Dataset, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="nowhere"):
            build_index(tmp_path / "nowhere", dataset)
        cmn = tiny("cmn", vocabulary_size=model_for(dataset).config.vocabulary_size)
        cmn.tokenizer, cmn.transform = Tokenizer.load(folder / "tokenizer.json"), ImageTransform(size=64, resize=64)
        cmn.save_pretrained(tmp_path / "cmn")
        with pytest.raises(UserError, match=r"cmn: system 'cmn' keeps no training reports"):
            build_index(tmp_path / "cmn", dataset)

    def test_query_prints_studies_and_text_only_when_asked(
        self, dataset: Dataset, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        image = tmp_path / "new.png"
        Image.effect_noise((64, 64), 60).save(image)
        cli.main(["index", "query", str(image), "--model", str(folder), "--k", "2"])
        printed = capsys.readouterr().out
        names = dataset.ids(dataset.rows("train"))
        assert sum(name in printed for name in names) == 2
        assert "report" not in printed
        with pytest.raises(SystemExit):
            cli.main(["index", "query", str(image), "--model", str(folder), "--reports", "true"])
        assert "--store-reports" in capsys.readouterr().err
        cli.main(["index", "build", "--model", str(folder), "--data", str(dataset.path), "--store-reports"])
        cli.main(
            ["index", "query", "--data", str(dataset.path), "--model", str(folder), "--k", "1", "--reports", "true"]
        )
        printed = capsys.readouterr().out
        assert all(name in printed for name in dataset.ids(dataset.rows("test")))
        words = Generator.from_pretrained(folder).model.database.texts[0].split()
        assert words[0] in printed and "report" in printed
