"""Reconstructions of an image tokenizer: measured against the images, and drawn."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.noise_studies import noise_study

from crossray import cli
from crossray.analysis.reconstructions import Reconstructions, reconstruct
from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset, write_dataset
from crossray.models.pretraining.dvae import DVAE, DVAEConfig

SQUARE = ImageTransform(size=32, resize=36, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    studies = [noise_study(number, split="test") for number in range(4)]
    return write_dataset(
        tmp_path_factory.mktemp("noise") / "data", studies, size=36, source={"name": "noise"}, workers=1
    )


def test_every_image_of_the_split_is_compared_with_a_coarse_copy(dataset: Dataset) -> None:
    model = DVAE(DVAEConfig(width=8, blocks=1, codes=16)).eval()
    found = reconstruct(model, dataset, "test", SQUARE, batch_size=3)
    count = sum(len(dataset.views(int(row))) for row in dataset.rows("test"))
    assert found.images.shape == found.kept.shape == found.coarse.shape == (count, 1, 32, 32)
    assert found.codes.shape == (count, 4, 4)
    row = int(dataset.rows("test")[0])
    first = torch.from_numpy(dataset.image(dataset.views(row)[0]).copy())[None, None]
    expected = SQUARE.apply(first, torch.tensor([first.shape[2:]]), train=False)
    torch.testing.assert_close(found.images[:1], expected[:, :1])
    torch.testing.assert_close(found.kept[:1], model.reconstruct(expected))
    error = (found.kept[2] - found.images[2]).square().mean()
    assert float(found.psnr[2]) == pytest.approx(float(-10 * error.log10()), rel=1e-4)
    assert 1 <= found.perplexity <= 16


def test_a_coarse_copy_of_what_is_coarse_is_itself() -> None:
    flat = torch.full((1, 1, 32, 32), 0.4)
    found = Reconstructions(flat, flat, flat, torch.zeros(1, 4, 4, dtype=torch.long))
    assert found.perplexity == pytest.approx(1)
    assert float(found.psnr) == pytest.approx(100)


def test_the_figure_shows_originals_above_reconstructions_above_coarse_copies(tmp_path: Path) -> None:
    shades = [torch.full((3, 1, 8, 8), value) + torch.arange(3).view(3, 1, 1, 1) / 10 for value in (0.1, 0.3, 0.6)]
    found = Reconstructions(shades[0], shades[1], shades[2], torch.zeros(3, 1, 1, dtype=torch.long))
    found.save_figure([2, 0], tmp_path / "figures" / "rows.png")
    with Image.open(tmp_path / "figures" / "rows.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (3 * 8 + 2 * 4, 2 * 8 + 4)
    corners = pixels[::12, ::12] / 255
    np.testing.assert_allclose(corners, [[0.3, 0.1], [0.5, 0.3], [0.8, 0.6]], atol=0.003)
    assert pixels[8, 0] == 255
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["rows.png"]


def test_the_command_prints_and_draws(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = {"size": 32, "resize": 36, "mean": [0, 0, 0], "std": [1, 1, 1]}
    DVAE(DVAEConfig(width=8, blocks=1, codes=16)).save_pretrained(
        tmp_path / "run" / "best", {"recipe": {"data": {"image": image}}}
    )
    cli.main(
        ["reconstruct", "--model", str(tmp_path / "run"), "--data", str(dataset.path), "--out", str(tmp_path / "f.png")]
    )
    said = capsys.readouterr().out
    assert "images of split test" in said and "8 times down and up" in said
    assert (tmp_path / "f.png").exists()
