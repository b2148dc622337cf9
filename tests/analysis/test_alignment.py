"""Alignment: scores, ranks and chance against their definitions, and the command's files."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.models.tiny import tiny
from tests.pages.html_reader import Reader

from crossray.analysis.alignment import (
    align,
    alignment_scores,
    best_ranks,
    chance,
    cosines,
    embed,
    retrieval,
)
from crossray.analysis.gram import gram, random_cosine
from crossray.data.batches.batch import Batch
from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset, write_dataset
from crossray.errors import UserError
from crossray.models.base import ReportModel
from crossray.pages import alignment_page
from crossray.pages.alignment_page import grids, write_alignments
from crossray.phantom.source import phantom_studies
from crossray.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("phantom") / "data"
    source = {"kind": "phantom", "synthetic_images": True}
    return write_dataset(folder, phantom_studies(60, 3, "easy"), size=64, source=source, workers=0)


def model_for(dataset: Dataset, system: str = "cmn") -> ReportModel:
    tokenizer = Tokenizer.train(dataset.reports(dataset.rows("train")), min_count=1)
    model = tiny(system, vocabulary_size=tokenizer.vocabulary_size, max_length=60)
    model.tokenizer, model.transform = tokenizer, ImageTransform(size=64, resize=64)
    return model


def planted(images: np.ndarray, texts: np.ndarray) -> Callable[[Batch], tuple[torch.Tensor, torch.Tensor]]:
    """Embeddings that are handed out in the order of the calls."""
    place = itertools.count()

    def embeddings(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [next(place) for _ in range(batch.inputs.size)]
        return torch.from_numpy(images[rows]), torch.from_numpy(texts[rows])

    return embeddings


def test_a_study_without_the_section_has_no_report_to_align(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = Dataset.open(dataset.path), model_for(dataset)
    whole = dataset.reports(np.arange(dataset.studies))
    monkeypatch.setattr(data, "reports", lambda rows, section: ["" if row % 2 else whole[row] for row in rows])
    found = align(model, data, "val", name="m", section="impression")
    assert found.ids == tuple(data.ids([row for row in data.rows("val") if row % 2 == 0]))
    assert len(found.similarity) == len(found.ids) == len(found.reports) > 1


class TestScores:
    def test_the_score_is_the_share_above_the_middle_of_the_range(self) -> None:
        similarity = np.array([[0.9, 0.1, 0.0], [0.1, 0.2, 0.3], [-0.5, 0.0, 0.6]])
        scores = alignment_scores(similarity, np.eye(3, dtype=bool))
        # own: 0.9, 0.2, 0.6 -> 1, 0, 0.571...
        assert scores.aligned == pytest.approx(2 / 3)
        # of all: from -0.5 to 0.9, the middle is 0.2: 0.2 itself is not above it
        assert scores.aligned_common == pytest.approx(2 / 3)
        assert scores.aligned_any == pytest.approx(3 / 9)
        assert scores.own == pytest.approx(1.7 / 3)
        assert scores.other == pytest.approx(0.0)
        assert scores.spread == pytest.approx(1.4)

    def test_equal_similarities_are_not_aligned(self) -> None:
        assert alignment_scores(np.full((4, 4), 0.9), np.eye(4, dtype=bool)).aligned == 0

    def test_cosines_do_not_depend_on_length(self) -> None:
        draw = np.random.default_rng(0)
        images, texts = draw.normal(size=(2, 5, 7))
        np.testing.assert_allclose(cosines(3 * images, texts / 2), cosines(images, texts))
        np.testing.assert_allclose(np.diag(cosines(images, images)), 1)
        assert (cosines(np.zeros((5, 7)), texts) == 0).all()


class TestRetrieval:
    def test_ranks(self) -> None:
        similarity = np.array([[0.5, 0.9, 0.7], [0.1, 0.9, 0.7], [0.2, 0.2, 0.2]])
        alone = np.eye(3, dtype=bool)
        assert best_ranks(similarity, alone).tolist() == [3, 1, 3]  # ties count against the hit
        twins = alone.copy()
        twins[0, 1] = twins[1, 0] = True
        assert best_ranks(similarity, twins).tolist() == [1, 1, 3]

    def test_a_model_that_tells_nothing_apart_retrieves_nothing(self) -> None:
        found = retrieval(np.ones((20, 20)), np.eye(20, dtype=bool))
        assert found.recall["recall@10"].value == 0
        assert found.median_rank == 20

    def test_a_perfect_model(self) -> None:
        found = retrieval(np.eye(20), np.eye(20, dtype=bool))
        assert [interval.value for interval in found.recall.values()] == [1, 1, 1]
        assert found.median_rank == 1

    def test_chance_is_that_of_all_orders(self) -> None:
        """The oracle counts through every order of six columns, of which two queries share one report."""
        keys = np.array([0, 0, 1, 2, 3, 4])
        same = keys[:, None] == keys
        ranks = [
            1 + min(order.index(column) for column in np.flatnonzero(same[row]))
            for order in itertools.permutations(range(6))
            for row in range(6)
        ]
        expected = chance(same.sum(axis=1))
        assert expected["recall@1"] == pytest.approx(np.mean(np.array(ranks) <= 1))
        assert expected["recall@5"] == pytest.approx(np.mean(np.array(ranks) <= 5))
        assert expected["recall@10"] == 1
        assert expected["median_rank"] == np.quantile(ranks, 0.5, method="inverted_cdf")

    def test_random_embeddings_retrieve_by_chance(self) -> None:
        draw = np.random.default_rng(1)
        keys = draw.integers(60, size=160)
        same = keys[:, None] == keys
        found = [retrieval(draw.normal(size=(160, 160)), same) for _ in range(12)]
        for name, expected in found[0].chance.items():
            if name.startswith("recall"):
                values = [one.recall[name].value for one in found]
                assert np.mean(values) == pytest.approx(expected, abs=3 * np.sqrt(expected / (12 * 160)))
        medians = [one.median_rank for one in found]
        assert np.mean(medians) == pytest.approx(found[0].chance["median_rank"], rel=0.1)


class TestGram:
    def test_orthonormal_rows(self) -> None:
        basis = np.linalg.qr(np.random.default_rng(0).normal(size=(32, 32)))[0][:20]
        found = gram(basis)
        assert found.cosine == pytest.approx(0, abs=1e-12)
        assert found.lengths == pytest.approx(1)
        assert found.effective_rank == pytest.approx(20)
        assert found.least == 0

    def test_orthonormal_columns_reach_the_smallest_mean_square(self) -> None:
        columns = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 16)))[0]
        # scaled to rows of length 1 it is only nearly a tight frame; a doubled basis is one
        doubled = np.concatenate([np.eye(16), np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0]])
        assert gram(doubled).rms == pytest.approx(gram(doubled).least)
        assert gram(columns).rms > gram(columns).least > 0

    def test_random_rows_are_as_orthogonal_as_said(self) -> None:
        rows = np.random.default_rng(0).normal(size=(500, 24))
        assert gram(rows).cosine == pytest.approx(random_cosine(24), rel=0.02)

    def test_short_rows_have_small_products_and_the_same_cosines(self) -> None:
        rows = np.random.default_rng(0).normal(size=(50, 8))
        long, short = gram(rows), gram(rows / 1000)
        assert np.abs(short.products).max() < 1e-4
        np.testing.assert_allclose(long.cosines, short.cosines)


def test_planted_embeddings_come_out(dataset: Dataset) -> None:
    rows = dataset.rows("test")
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(len(rows), 12))
    model = model_for(dataset)
    keys = embed(model, dataset, rows, section="findings")[2]
    # equal reports have equal vectors, as a text encoder would give them
    vectors = vectors[np.unique(keys, return_inverse=True)[1]]
    model.embeddings = planted(vectors, vectors)  # type: ignore[method-assign]
    perfect = align(model, dataset, "test", name="perfect", batch_size=5)
    assert [found.recall["recall@1"].value for found in perfect.retrieval.values()] == [1, 1]
    assert perfect.scores.own == pytest.approx(1)
    model.embeddings = planted(vectors, np.roll(vectors, 3, axis=0))  # type: ignore[method-assign]
    wrong = align(model, dataset, "test", name="wrong", batch_size=5)
    assert wrong.retrieval["report"].recall["recall@1"].value < 0.3
    assert wrong.scores.own < 0.5


def test_page_and_files(dataset: Dataset, tmp_path: Path) -> None:
    found = [align(model_for(dataset, system), dataset, "test", name=f"a/{system}") for system in ("cmn", "rcan")]
    page_name = write_alignments(found, dataset, tmp_path / "out", examples=2)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "index.html", "alignment.json", "alignment-score.png", "similarity-a-cmn.png", "similarity-a-rcan.png",
        "gram-a-cmn-memory.png", "gram-a-rcan-memory.png",
    }  # fmt: skip
    saved = json.loads((tmp_path / "out" / "alignment.json").read_text())
    assert saved["models"]["a/cmn"]["retrieval"]["report"]["recall"]["recall@5"]["value"] == pytest.approx(
        found[0].retrieval["report"].recall["recall@5"].value
    )
    reader = Reader((tmp_path / "out" / page_name).read_text())
    text = "".join(reader.text)
    assert "All images here are synthetic" in text
    assert len(reader.named("article")) == 2
    assert all(str(image["src"]).startswith("data:") and image["alt"] for image in reader.named("img"))
    for grid in grids(found):
        for line in grid.lines:
            assert all(cell in text for cell in line)


def test_vectors_that_are_all_alike_are_named(dataset: Dataset, tmp_path: Path) -> None:
    model = model_for(dataset)
    vectors = np.ones((len(dataset.rows("test")), 4)) + 1e-7 * np.random.default_rng(0).normal(size=(1, 4))
    model.embeddings = planted(vectors, vectors)  # type: ignore[method-assign]
    write_alignments([align(model, dataset, "test", name="dull")], dataset, tmp_path, examples=0)
    assert "dull: all cosines are equal up to" in (tmp_path / "index.html").read_text()


def test_without_matplotlib_the_page_says_so(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment_page, "available", lambda: False)
    found = [align(model_for(dataset), dataset, "test", name="cmn")]
    write_alignments(found, dataset, tmp_path, examples=0)
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "alignment.json"}
    assert "crossray[figures]" in (tmp_path / "index.html").read_text()


def test_hostile_reports_stay_text(dataset: Dataset, tmp_path: Path) -> None:
    one = align(model_for(dataset), dataset, "test", name="<b>")
    hostile = ("<script>alert(1)</script> cardiomegaly",) * len(one.reports)
    write_alignments([replace(one, reports=hostile)], dataset, tmp_path, examples=1)
    reader = Reader((tmp_path / "index.html").read_text())
    assert not reader.named("b")
    assert len(reader.named("script")) == 0


def test_a_system_without_embeddings_is_refused(dataset: Dataset) -> None:
    with pytest.raises(UserError, match="system 'baseline' in this configuration does not map images"):
        align(model_for(dataset, "baseline"), dataset, "test", name="x")
