"""Attention laid out over views, the explain page, and the command."""

import base64
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.analysis.seer import Seer
from tests.models.tiny import tiny
from tests.pages.html_reader import Reader

from crossray import cli
from crossray.analysis.attention import attend_reports, on_grid
from crossray.data.batches.batch import Inputs
from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset, write_dataset
from crossray.decoding.config import DecodingConfig
from crossray.errors import UserError
from crossray.files.folders import short_names
from crossray.models.base import ModelConfig
from crossray.models.registry import list_models
from crossray.pages.explain import build_explanation, explain
from crossray.phantom.source import phantom_studies
from crossray.text.tokenizer import Tokenizer

GREEDY = DecodingConfig(method="greedy", max_length=12)


def test_positions_are_laid_out_over_their_cells() -> None:
    cells = torch.tensor([[-1, 0, 1, 2, 3, -1], [-1, 0, 1, 2, 3, 0]])
    weights = torch.tensor([[0.1, 0.2, 0.0, 0.0, 0.4, 0.3]])
    maps = on_grid(weights, cells)
    assert maps.shape == (1, 2, 2, 2)
    # shared positions give half to each view; the last one belongs to the second view alone
    torch.testing.assert_close(maps[0], torch.tensor([[[0.1, 0.0], [0.0, 0.2]], [[0.4, 0.0], [0.0, 0.2]]]))
    torch.testing.assert_close(maps.sum(), weights[0, 1:].sum())


def inputs_of(*sizes: tuple[int, int]) -> Inputs:
    """One study with random views of these sizes."""
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    images = torch.randint(0, 255, (1, len(sizes), 1, height, width), dtype=torch.uint8)
    mask = torch.tensor([[size != (0, 0) for size in sizes]])
    return Inputs(images, torch.tensor([sizes]), mask, torch.tensor([[2, 4][: len(sizes)]]))


@pytest.mark.parametrize("system", list_models())
def test_every_system_explains_its_report(system: str) -> None:
    model = tiny(system)
    model.tokenizer = Tokenizer(["<pad>", "<bos>", "<eos>", "<unk>", *(f"w{number:02}" for number in range(36))])
    model.transform = ImageTransform(size=64, resize=72)
    inputs = inputs_of((80, 64), (64, 64))
    (found,) = attend_reports(model, inputs, GREEDY, ["s"])
    words = found.text.split()
    assert [found.text[start:end] for start, end in found.words] == words
    assert found.weights.shape[0] == len(words) > 0
    total = found.weights.sum(axis=(2, 3, 4))
    assert (total > 0).all()
    assert (total < 1 + 1e-5).all()
    assert (found.windows == [0, 0, 1, 1]).all()  # the whole image is squashed into the square
    html = build_explanation("s", [explain(model, GREEDY, inputs, "s", "m")])
    assert len(Reader(html).named("canvas")) == 2


def test_a_view_that_is_missing_is_not_shown_and_gets_nothing() -> None:
    for system in ("baseline", "coacl"):
        model = tiny(system)
        model.tokenizer = Tokenizer(["<pad>", "<bos>", "<eos>", "<unk>", *(f"w{number:02}" for number in range(36))])
        model.transform = ImageTransform(size=64, resize=64)
        inputs = inputs_of((64, 64), (0, 0))
        (found,) = attend_reports(model, inputs, GREEDY, ["s"])
        assert (found.weights[:, :, 1] == 0).all()
        assert (found.weights[:, :, 0].sum(axis=(2, 3)) > 0).all()
        reader = Reader(build_explanation("s", [explain(model, GREEDY, inputs, "s", "m")]))
        assert len(reader.named("canvas")) == len(reader.named("img")) == 1


def test_the_attention_is_that_of_teacher_forcing_on_the_report() -> None:
    """The oracle calls the contract by hand."""
    model = tiny("cmn")
    model.tokenizer = Tokenizer(["<pad>", "<bos>", "<eos>", "<unk>", *(f"w{number:02}" for number in range(36))])
    model.transform = ImageTransform(size=64, resize=64)
    inputs = inputs_of((64, 64), (64, 64))
    (found,) = attend_reports(model, inputs, DecodingConfig(method="beam", beam=3, max_length=8), ["s"])
    tokens = torch.tensor([[1, *(model.tokenizer.id_of(word) or 3 for word in found.text.split())]])
    images = model.transform.apply(inputs.images.flatten(0, 1), inputs.image_size.flatten(0, 1), train=False)
    prepared = Inputs(images[None], inputs.image_size, inputs.view_mask, inputs.view_position)
    with torch.no_grad():
        step = model.step(tokens, model.encode(prepared), need_attention=True)
    assert step.cross_attention is not None
    by_hand = step.cross_attention[0].mean(dim=1).transpose(0, 1)[: len(found.words)]
    torch.testing.assert_close(torch.from_numpy(found.weights).flatten(2), by_hand, rtol=1e-4, atol=1e-6)


def test_a_word_of_several_pieces_has_their_mean() -> None:
    report = "cardiomegaly ."
    planted = torch.rand(1, 14, 2 * 4)
    model = Seer(report, torch.zeros(1), planted, ImageTransform(size=64, resize=64))
    pieces = ["card", "##io", "##megaly", "."]
    model.tokenizer = Tokenizer(["<pad>", "<bos>", "<eos>", "<unk>", *pieces], kind="wordpiece")
    model.written = torch.tensor([4, 5, 6, 7, 2])
    model.config = ModelConfig(vocabulary_size=8, max_length=60)
    (found,) = attend_reports(model, inputs_of((64, 64), (64, 64)), GREEDY, ["s"])
    assert found.text == report
    np.testing.assert_allclose(found.weights[0, 0].ravel(), planted[0, :3].mean(dim=0), rtol=1e-5)
    np.testing.assert_allclose(found.weights[1, 0].ravel(), planted[0, 3], rtol=1e-5)


def test_the_window_is_what_the_crop_shows() -> None:
    """The oracle is the transform: a picture of row numbers says which rows it shows."""
    transform = ImageTransform(size=64, resize=80, squash=False, mean=(0, 0, 0), std=(1, 1, 1))
    rows = torch.arange(200, dtype=torch.uint8)[:, None].expand(200, 160)
    size = torch.tensor([[200, 160]])
    shown = 255 * transform.apply(rows[None, None], size, train=False)[0, 0, :, 0]
    top, left, bottom, right = transform.window(size)[0].tolist()
    assert 200 * top == pytest.approx(float(shown[0]) - 0.75, abs=0.3)
    assert 200 * bottom == pytest.approx(float(shown[-1]) + 1.75, abs=0.3)
    assert (left, right) == (0.1, 0.9)
    assert ImageTransform(size=64).window(size).tolist() == [[0, 0, 1, 1]]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    source = {"kind": "phantom", "synthetic_images": True}
    folder = tmp_path_factory.mktemp("phantom") / "data"
    return write_dataset(folder, phantom_studies(20, 3, "easy"), size=64, source=source, workers=0)


@pytest.fixture(scope="module")
def models(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Folders of two untrained models."""
    folders = []
    for system in ("baseline", "cmn"):
        tokenizer = Tokenizer.train(dataset.reports(dataset.rows("train")), min_count=1)
        model = tiny(system, vocabulary_size=tokenizer.vocabulary_size, max_length=20)
        model.tokenizer, model.transform = tokenizer, ImageTransform(size=64, resize=64)
        folders.append(str(tmp_path_factory.mktemp("models") / system))
        model.save_pretrained(folders[-1])
    return folders


def test_models_side_by_side_from_a_dataset(dataset: Dataset, models: list[str], tmp_path: Path) -> None:
    study = dataset.ids(dataset.rows("val"))[0]
    arguments = ["--model", models[0], "--model", models[1], "--data", str(dataset.path), "--study", study]
    cli.main(["explain", *arguments, "--out", str(tmp_path / "page.html")])
    html = (tmp_path / "page.html").read_text()
    reader = Reader(html)
    text = "".join(reader.text)
    articles = reader.named("article")
    assert len(articles) == 2
    assert "All images here are synthetic" in text
    assert dataset.reports(dataset.rows("val"))[0] in text
    for article in articles:
        values = np.frombuffer(base64.b64decode(str(article["data-weights"])), "<u2")
        shape = [int(str(article[f"data-{name}"])) for name in ("layers", "views", "side")]
        per_word = shape[0] * shape[1] * shape[2] ** 2
        assert len(values) % per_word == 0
        words = len(values) // per_word
        # these systems have no position outside the images
        np.testing.assert_allclose(values.reshape(words * shape[0], -1).sum(axis=1) / 65535, 1, atol=1e-3)
    assert len(re.findall('class="word"', html)) > 0


def test_a_dataset_without_training_studies(models: list[str], tmp_path: Path) -> None:
    """Such as that of another hospital, which is only tested."""
    studies = [dataclasses.replace(study, split="test") for study in phantom_studies(4, 3, "easy")]
    external = write_dataset(tmp_path / "data", studies, size=64, source={"kind": "phantom"}, workers=0)
    cli.main(["explain", "--model", models[0], "--data", str(external.path), "--out", str(tmp_path / "page.html")])
    assert external.ids([0])[0] in (tmp_path / "page.html").read_text()


def test_image_files(models: list[str], tmp_path: Path) -> None:
    for name in ("front", "side"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 70), np.uint8)).save(tmp_path / f"{name}.png")
    files = f"{tmp_path / 'front.png'},{tmp_path / 'side.png'}"
    cli.main(["explain", "--model", models[1], files, "--out", str(tmp_path / "page.html")])
    reader = Reader((tmp_path / "page.html").read_text())
    assert [str(canvas["data-name"]) for canvas in reader.named("canvas")] == ["view 1", "view 2"]
    assert "synthetic" not in "".join(reader.text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--data"]),
        (["a.png", "--data", "DATA"], ["either"]),
        (["nowhere.png"], ["nowhere.png"]),
        (["--data", "DATA", "--study", "nobody"], ["--study nobody"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_end_in_one_sentence(
    arguments: list[str], words: list[str], dataset: Dataset, models: list[str], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = [str(dataset.path) if argument == "DATA" else argument for argument in arguments]
    with pytest.raises(SystemExit) as stop:
        cli.main(["explain", *given, "--model", models[0], "--out", str(tmp_path / "page.html")])
    assert stop.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    for word in words:
        assert word in line
    assert list(tmp_path.iterdir()) == []


def test_hostile_names_and_reports_stay_text() -> None:
    model = Seer(
        "cardiomegaly <script>alert(1)</script> .", torch.zeros(1), torch.ones(1, 3, 8) / 8, ImageTransform(64, 64)
    )
    explanation = explain(model, GREEDY, inputs_of((64, 64), (64, 64)), "s", '<b onclick="x">')
    reader = Reader(build_explanation("<i>", [explanation], reference="<u>"))
    assert len(reader.named("script")) == 1
    assert not any(reader.named(name) for name in ("i", "u"))
    assert not any(name.startswith("on") for _, attributes in reader.tags for name in attributes)


def test_a_system_that_shows_nothing_is_refused() -> None:
    model = Seer("cardiomegaly .", torch.zeros(1), torch.ones(1, 2, 8) / 8, ImageTransform(64, 64))
    model.memory_cells = lambda views, positions: None  # type: ignore[assignment, method-assign]
    with pytest.raises(UserError, match="system 'seer' has no attention over"):
        attend_reports(model, inputs_of((64, 64), (64, 64)), GREEDY, ["s"])


def test_names_of_folders() -> None:
    assert short_names(["runs/a", "runs/b"]) == ["a", "b"]
    assert short_names(["one/best", "two/best"]) == ["one/best", "two/best"]
    assert short_names(["one/v1.2"]) == ["v1.2"]
