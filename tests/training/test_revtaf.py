"""REVTAF in training: its report database, the folder that it travels in, and a run that is continued."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.models.tiny import example_database
from tests.models.tiny import tiny as tiny_model

from crossray import cli
from crossray.analysis.grounding_targets import find_targets
from crossray.data.batches.batch import Batch
from crossray.data.batches.transform import ImageTransform
from crossray.data.store import Dataset
from crossray.generation.generator import Generator
from crossray.generation.split import SplitReports
from crossray.layers.diagnosis import POSITIVE
from crossray.models.revtaf import REVTAF
from crossray.text.tokenizer import Tokenizer
from crossray.training.module import TrainingModule
from crossray.training.reward import RewardObjective
from crossray.training.run import resume, train


def test_training_studies_become_the_database(blob_dataset: Dataset) -> None:
    model = tiny_model("revtaf", observations=blob_dataset.info.observations)
    rows = blob_dataset.rows("train")
    model.tokenizer = Tokenizer.train(blob_dataset.reports(rows), min_count=1, statuses=True)
    model.transform = ImageTransform(size=32, resize=36)
    model.learn_from(blob_dataset)
    database = model.database
    assert list(database.studies) == blob_dataset.ids(rows)
    assert torch.equal(database.labels, torch.from_numpy(blob_dataset.labels[rows]))
    assert len(database.groups.unique()) == len(rows)
    assert database.texts == ()
    # "the heart is normal" and one of three findings
    sentences, mask = database.sentences_of(torch.arange(len(rows)))
    assert len(database.sentences) == 4
    assert mask.sum(1).tolist() == [2] * len(rows)
    torch.testing.assert_close(
        sentences[0, 0], model.knowledge.encode_texts(["the heart is normal"])[0], atol=1e-2, rtol=1e-2
    )
    positive = (database.labels == POSITIVE).float().mean(0)
    torch.testing.assert_close(model.ala.priors, (positive / positive.amax()).clamp_min(1e-4))
    model.database = example_database(model)
    model.learn_from(blob_dataset)  # found in the dataset
    assert torch.equal(model.database.entities, database.entities)
    assert model.database.studies == database.studies


def small(tiny: Any, **overrides: Any) -> Any:
    values = {
        "model__knowledge__name": "random:tiny", "model__retrieval_width": 16, "model__fusion_width": 16,
        "model__diagnosis_width": 16, "model__diagnosis_heads": 2, "model__backbone__trainable": True,
    }  # fmt: skip
    return tiny("revtaf/phantom", **{**values, **overrides})


def test_a_run_writes_a_folder_that_reports_on_a_new_image(tiny: Any, blobs: Path, tmp_path: Path) -> None:
    from PIL import Image

    best = train(small(tiny), blobs, tmp_path / "run")
    image = tmp_path / "new.png"
    Image.effect_noise((48, 40), 60).save(image)
    generator = Generator.from_pretrained(best)
    assert isinstance(generator.model, REVTAF)
    assert len(generator.model.database) == 18
    assert generator.generate_files([[image]], tmp_path / "reports.jsonl") == 1


def test_learning_from_rewards_never_reads_the_own_report(
    tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewarded, search, excluded = RewardObjective.losses, REVTAF._search, []
    batches: list[Batch] = []

    def losses(self: RewardObjective, model: Any, batch: Batch, reference: Any = None) -> Any:
        batches.append(batch)
        try:
            return rewarded(self, model, batch, reference)
        finally:
            batches.pop()

    def searched(self: REVTAF, *values: Any, exclude: Any = None, **options: Any) -> Any:
        if batches:
            excluded.append(
                exclude is not None and torch.equal(exclude, self.database.groups_of(batches[0].guide.study))
            )
        return search(self, *values, exclude=exclude, **options)

    monkeypatch.setattr(RewardObjective, "losses", losses)
    monkeypatch.setattr(REVTAF, "_search", searched)
    train(small(tiny, stages=[{"epochs": 1, "objective": "reward"}]), blobs, tmp_path / "run")
    assert excluded
    assert all(excluded)


def test_reports_of_training_images_are_written_without_their_own(
    tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study whose images are seen does not read its own report, whoever gets the images; others read all."""
    generator = Generator.from_pretrained(train(small(tiny, trainer__max_epochs=1), blobs, tmp_path / "run"))
    model = generator.model
    assert isinstance(model, REVTAF)
    search, excluded = model._search, []

    def searched(*values: Any, exclude: Any = None, **options: Any) -> Any:
        excluded.append(exclude)
        return search(*values, exclude=exclude, **options)

    monkeypatch.setattr(model, "_search", searched)
    work = SplitReports(generator, blobs, "train", shuffle_images=1)
    generator.generate_dataset(blobs, "train", tmp_path / "train.jsonl", shuffle_images=1)
    assert excluded
    own = model.database.groups_of(work.data.ids(work.seen))
    assert (own >= 0).all()
    assert all(torch.equal(exclude, own) for exclude in excluded)
    excluded.clear()
    generator.generate_dataset(blobs, "val", tmp_path / "val.jsonl")
    assert set(excluded) == {None}


def test_analyses_of_training_studies_do_not_read_their_reports(
    tiny: Any, blobs: Path, blob_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`explain` and `analyze grounding` show the report that `generate --split train` writes."""
    best = train(small(tiny, trainer__max_epochs=1), blobs, tmp_path / "run")
    search, excluded = REVTAF._search, []

    def searched(self: REVTAF, *values: Any, exclude: Any = None, **options: Any) -> Any:
        excluded.append(exclude)
        return search(self, *values, exclude=exclude, **options)

    monkeypatch.setattr(REVTAF, "_search", searched)
    monkeypatch.setattr("crossray.analysis.grounding_targets.DrawnFindings", lambda *_: SimpleNamespace(mask=print))
    monkeypatch.setattr("crossray.analysis.grounding_targets.targets_of", lambda *_: [])
    generator = Generator.from_pretrained(best)
    for split in ("train", "val"):
        names = blob_dataset.ids(blob_dataset.rows(split))
        cli.main([
            "explain", "--model", str(best), "--data", str(blobs), "--study", names[0], "--out",
            str(tmp_path / "page.html"),
        ])  # fmt: skip
        find_targets(generator.model, generator.decoding, blob_dataset, split, batch_size=64)
        assert excluded
        if split == "train":
            own = generator.model.database.groups_of(names)
            assert (own >= 0).all()
            assert all(exclude is not None and set(exclude.tolist()) <= set(own.tolist()) for exclude in excluded)
        else:
            assert set(excluded) == {None}
        excluded.clear()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_validation_searches_with_the_current_weights(
    share: float, tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fused optimizers change weights without raising their versions."""
    plain, apart = TrainingModule.on_validation_epoch_end, []

    def ended(self: TrainingModule) -> None:
        model = self.model
        assert isinstance(model, REVTAF)
        assert model.lre is not None
        index = model._index("hyperbolic")
        apart.append(float((index.vectors - model.lre(model.database.entities.float())).abs().max()))
        plain(self)

    monkeypatch.setattr(TrainingModule, "on_validation_epoch_end", ended)
    options = {"model.retrieval_share": share, "optimizer.learning_rate": 1e-2}
    train(small(tiny, trainer__max_epochs=3, **options), blobs, tmp_path / "run")
    assert len(apart) >= 2
    assert max(apart) < 1e-5


def test_a_run_killed_within_an_epoch_continues_bit_for_bit(
    tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(tiny, trainer__max_epochs=3, trainer__checkpoint_steps=1, trainer__threads=1)
    train(recipe, blobs, tmp_path / "whole")
    plain = TrainingModule.training_step

    def training_step(self: TrainingModule, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.step == 8:  # of five steps an epoch: retrieval with the steady weights has begun
            raise RuntimeError("killed")
        return plain(self, batch, batch_idx)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(TrainingModule, "training_step", training_step)
        train(recipe, blobs, tmp_path / "killed")
    resume(tmp_path / "killed")
    expected, found = (torch.load(tmp_path / n / "last.ckpt", weights_only=True) for n in ("whole", "killed"))
    for name, tensor in expected["state_dict"].items():
        assert torch.equal(tensor, found["state_dict"][name]), name
