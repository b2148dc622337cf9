import lightning
import numpy as np
import pytest
import torch

from crossray.data.batches.batch import Batch
from crossray.data.batches.features import build_features
from crossray.data.batches.loading import PlannedBatch
from crossray.data.batches.module import StudyDataModule
from crossray.data.batches.transform import ImageTransform, transform_inputs
from crossray.errors import UserError

TRANSFORM = ImageTransform(size=12, resize=14, flip=0.5)


class Recorder(lightning.LightningModule):
    """Notes which studies and pixels every step sees; can stop the training and store it."""

    def __init__(self, stop_at=None, checkpoint=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.stop_at, self.checkpoint = stop_at, checkpoint
        self.seen, self.validated = [], []

    def training_step(self, batch, index):
        assert type(batch) is Batch and batch.inputs.images.shape[2:] == (3, 12, 12)
        self.seen.append((self.current_epoch, batch.guide.study, batch.inputs.images.sum().item()))
        return self.weight**2

    def on_train_batch_end(self, outputs, batch, index):
        if len(self.seen) == self.stop_at:
            self.trainer.save_checkpoint(self.checkpoint)
            raise KeyboardInterrupt

    def on_validation_epoch_start(self):
        self.validated.clear()

    def validation_step(self, batch, index):
        self.validated += batch.guide.study

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(folder):
    return lightning.Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )


@pytest.fixture
def data(noise_dataset, noise_tokenizer):
    def make(**options):
        return StudyDataModule(noise_dataset, noise_tokenizer, TRANSFORM, **({"batch_size": 5, "seed": 3} | options))

    return make


@pytest.mark.parametrize(
    "workers, stop_at", [(0, 3), (0, 8), (0, 12), *(pytest.param(2, at, marks=pytest.mark.slow) for at in (3, 8, 12))]
)
def test_a_stopped_run_goes_on_with_the_next_batch(data, tmp_path, stop_at, workers):
    whole = Recorder()
    trainer(tmp_path).fit(whole, datamodule=data())
    assert len(whole.seen) == 3 * 8  # 36 studies in batches of 5
    first = Recorder(stop_at, tmp_path / "run.ckpt")
    with pytest.raises(SystemExit):
        trainer(tmp_path).fit(first, datamodule=data(workers=workers))
    second = Recorder()
    trainer(tmp_path).fit(second, datamodule=data(workers=workers), ckpt_path=tmp_path / "run.ckpt")
    assert first.seen + second.seen == whole.seen


def test_fitting_sees_training_and_validation_studies_only(data, noise_dataset, tmp_path):
    model = Recorder()
    trainer(tmp_path).fit(model, datamodule=data())
    for epoch in range(3):
        trained = sorted(study for number, studies, _ in model.seen if number == epoch for study in studies)
        assert trained == sorted(noise_dataset.ids(noise_dataset.rows("train")))
    assert sorted(model.validated) == sorted(noise_dataset.ids(noise_dataset.rows("val")))


def test_validation_is_sorted_by_length_and_never_augmented(data, noise_dataset):
    module = data()
    lengths = []
    for batch in module.val_dataloader():
        assert batch.draws is None
        lengths += batch.targets.mask.sum(1).tolist()
        seen = module.on_after_batch_transfer(batch, 0)
        expected = transform_inputs(batch.inputs, TRANSFORM, train=False)
        assert torch.equal(seen.inputs.images, expected.images)
    assert lengths == sorted(lengths, reverse=True) and len(lengths) == len(noise_dataset.rows("val"))


def test_test_studies_come_on_demand(data, noise_dataset):
    studies = [study for batch in data().test_dataloader() for study in batch.guide.study]
    assert sorted(studies) == sorted(noise_dataset.ids(noise_dataset.rows("test")))


def test_augmentation_uses_the_numbers_that_travel_with_the_batch(data):
    module = data()
    batch = next(iter(module.train_dataloader()))
    assert isinstance(batch, PlannedBatch)
    torch.manual_seed(1)
    first = module.on_after_batch_transfer(batch, 0).inputs.images
    torch.manual_seed(2)
    assert torch.equal(module.on_after_batch_transfer(batch, 0).inputs.images, first)
    again = next(iter(data().train_dataloader()))
    assert torch.equal(module.on_after_batch_transfer(again, 0).inputs.images, first)
    other = next(iter(data(seed=4).train_dataloader()))
    assert other.guide.study != batch.guide.study and not torch.equal(other.draws, batch.draws)


def test_studies_without_the_section_are_left_out(data, noise_dataset):
    rows = data(section="impression").rows("train")
    texts = noise_dataset.reports(rows, "impression")
    assert all(texts)
    assert len(rows) == sum(map(bool, noise_dataset.reports(noise_dataset.rows("train"), "impression")))


def test_a_section_that_no_study_has_is_refused(noise, noise_tokenizer, tmp_path):
    from crossray.data.store import write_dataset

    studies = [noise.noise_study(number, impression="") for number in range(5)]
    write_dataset(tmp_path / "set", studies, size=14, source={"name": "noise"}, workers=0)
    module = StudyDataModule(tmp_path / "set", noise_tokenizer, TRANSFORM, section="impression")
    with pytest.raises(UserError, match="no study of split 'train' has section 'impression'"):
        module.train_dataloader()


def test_cached_features_train_on_their_random_variants(noise, noise_tokenizer, tmp_path):
    from crossray.data.store import write_dataset

    studies = noise.noise_studies(20)
    dataset = write_dataset(tmp_path / "set", studies, size=14, source={"name": "noise"}, workers=0)
    numbered = {"number": 0}

    def prepare(images):
        numbered["number"] += len(images)
        return {"place": torch.arange(numbered["number"] - len(images), numbered["number"])}

    cache = build_features(dataset, prepare, TRANSFORM, "weights", variants=3)
    module = StudyDataModule(dataset, noise_tokenizer, TRANSFORM, batch_size=4, features=cache)
    places = []
    for batch in module.train_dataloader():
        inputs = module.on_after_batch_transfer(batch, 0).inputs
        places += inputs.features["place"][inputs.view_mask].tolist()
    assert {place // dataset.images for place in places} == {0, 1, 2}  # those of the evaluation are trained on, too
    for batch in module.val_dataloader():
        assert (batch.inputs.features["place"] < dataset.images).all()
    again = [batch.inputs.features["place"] for batch in module.train_dataloader()]
    assert np.concatenate([one.numpy() for one in again]).size and torch.equal(
        again[0], next(iter(module.train_dataloader())).inputs.features["place"]
    )
