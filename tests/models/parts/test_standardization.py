"""Standardized features of frozen backbones: the statistics, what a system sees, and that they travel."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.conftest import TINY, blob_study

from crossray.data.store import Dataset, write_dataset
from crossray.models.base import ReportModel
from crossray.models.parts.standardization import Moments, Standardization
from crossray.training.recipe import load
from crossray.training.run import train


def test_moments_are_those_of_all_parts_together() -> None:
    features = torch.randn(50, 7, 3) * torch.tensor([1.0, 0.05, 0.0]) + torch.tensor([0.0, 1e3, 5.0])
    moments = Moments(3)
    for part in features.split(8):
        moments.add(part)
    standardization = Standardization(3)
    standardization.learn(moments)
    flat = features.double().flatten(0, 1)
    assert standardization.mean.double() == pytest.approx(flat.mean(0), rel=1e-6)
    assert moments.squares / moments.count == pytest.approx(flat.var(0, correction=0), rel=1e-6)
    after = standardization(features).flatten(0, 1)
    assert after[:, 0].std(correction=0) == pytest.approx(1, rel=1e-3)
    assert after[:, 2].abs().max() == 0  # a channel that never changes says nothing, and stays finite


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "blobs"
    splits = ["train"] * 12 + ["val"] * 4
    studies = [blob_study(number, split) for number, split in enumerate(splits)]
    write_dataset(folder, studies, size=40, source={"name": "blobs"}, workers=1)
    return folder


@pytest.mark.parametrize("name", ["baseline/phantom", "uar/phantom"])
@pytest.mark.parametrize("cached", [True, False])
def test_a_system_sees_standardised_features(name: str, cached: bool, data: Path, tmp_path: Path) -> None:
    overrides: dict[str, Any] = {**TINY, "model.backbone.trainable": False, "data.cache_features": cached,
                                 "data.feature_dtype": "float32", "trainer.max_epochs": 1}  # fmt: skip
    if name == "uar/phantom":
        overrides |= {"model.visual": "resnet", "model.basis_size": 16}
    train(load(name, overrides), data, tmp_path / "run")
    model = ReportModel.from_pretrained(tmp_path / "run" / "best")  # the statistics travel with the weights
    backbone = (model.visual if name == "uar/phantom" else model).backbone  # type: ignore[union-attr]
    assert backbone.standardized["visual"].mean.abs().sum() > 0

    from crossray.data.batches.module import StudyDataModule

    dataset = Dataset.open(data)
    assert model.transform is not None
    module = StudyDataModule(dataset, model.tokenizer, model.transform)
    inputs = module.inputs(dataset.rows("train"), "cpu")
    with torch.inference_mode():
        visual, pooled = backbone.views(inputs)
        plain, _ = backbone(inputs.images[inputs.view_mask])
    for values in (visual[inputs.view_mask].flatten(0, 1), pooled[inputs.view_mask]):
        alive = values.std(dim=0) > 1e-3
        assert alive.any()
        torch.testing.assert_close(values[:, alive].mean(0), torch.zeros(int(alive.sum())), atol=1e-3, rtol=0)
        torch.testing.assert_close(
            values[:, alive].std(0, correction=0), torch.ones(int(alive.sum())), atol=1e-3, rtol=0
        )
    assert visual[~inputs.view_mask].abs().max() == 0
    spread = lambda x: float(x.mean((0, 1)).square().sum() / x.square().mean((0, 1)).sum())  # noqa: E731
    assert spread(plain) > 0.1  # what all images have in common: a good part of the plain features' power
    assert spread(visual[inputs.view_mask]) < 1e-6


def test_a_trained_backbone_has_no_statistics() -> None:
    from crossray.models.parts.backbones import BackboneConfig, build_backbone

    tiny = BackboneConfig(name="random:resnet_tiny")
    assert not build_backbone(tiny).standardized
    frozen = BackboneConfig(name="random:resnet_tiny", trainable=False, standardize=False)
    assert not build_backbone(frozen).standardized
