"""The Lightning data module for prepared datasets. No other module of `crossray.data` imports Lightning."""

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray

from crossray.data.batches.batch import Batch, Inputs
from crossray.data.batches.features import FeatureCache
from crossray.data.batches.loading import Collator, PlannedBatch, StudyLoader, reported_rows
from crossray.data.batches.sampler import StudySampler
from crossray.data.batches.transform import ImageTransform, transform_inputs
from crossray.data.store import Dataset
from crossray.text.tokenizer import Tokenizer


class StudyDataModule(lightning.LightningDataModule):
    """Provides batches for training, validation and, only on request, testing.

    The order of the studies and the augmentation depend only on the seed, the epoch and the position in the epoch.
    Therefore, a run can be resumed in the middle of an epoch, and several processes together see the same batches as
    one process.

    Args:
        dataset: the prepared dataset or its folder.
        tokenizer: encodes the reports; None if no text is needed.
        transform: applied to a whole batch on the device of the model.
        batch_size: number of studies per batch in one process.
        views: maximum number of views of a study.
        section: target section of the report; studies without it are skipped.
        max_length: maximum number of tokens in a report, including bos and eos.
        workers: number of processes that load batches in advance.
        seed: random seed of the order and the augmentation.
        features: cached features instead of images; training draws from all their variants.
        drop_last: drop the last training batch if it is not full.

    Raises:
        UserError: the dataset cannot be opened.
    """

    def __init__(
        self,
        dataset: Dataset | Path | str,
        tokenizer: Tokenizer | None,
        transform: ImageTransform,
        *,
        batch_size: int = 16,
        views: int = 2,
        section: str = "findings",
        max_length: int = 60,
        workers: int = 0,
        seed: int = 0,
        features: FeatureCache | None = None,
        drop_last: bool = False,
    ) -> None:
        super().__init__()
        self.dataset = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
        self.tokenizer, self.transform, self.features = tokenizer, transform, features
        self.batch_size, self.views, self.section, self.max_length = batch_size, views, section, max_length
        self.workers, self.seed, self.drop_last = workers, seed, drop_last
        self._evaluation = self._collator(train=False)

    def rows(self, split: str) -> NDArray[np.int64]:
        """Return the rows of the studies of a split that have the section, (N,) int64.

        Raises:
            UserError: the split does not exist, or none of its studies has the section.
        """
        cleaner = self.dataset.info.cleaner if self.tokenizer is None else self.tokenizer.cleaner
        return reported_rows(self.dataset, split, self.section, cleaner)

    def train_dataloader(self) -> StudyLoader:
        """Return the loader of shuffled, augmented batches of the training split, which can be resumed."""
        sampler = self._sampler(self.rows("train"), shuffle=True)
        return self._loader(sampler, train=True)

    def val_dataloader(self) -> StudyLoader:
        """Return the loader of the validation split; see `evaluation_loader`."""
        return self.evaluation_loader("val")

    def test_dataloader(self) -> StudyLoader:
        """Return the loader of the test split (`evaluation_loader`), which training never requests."""
        return self.evaluation_loader("test")

    def report_keys(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the keys of the studies' reports, (N,) int64, equal for equal cleaned reports."""
        keys: NDArray[np.int64] = self._evaluation.targets(rows).report_key.numpy()
        return keys

    def inputs(self, rows: NDArray[np.int64], device: torch.device | str) -> Inputs:
        """Return the inputs of some studies on `device`, after the evaluation transform."""
        return transform_inputs(self._evaluation.inputs(rows).to(device), self.transform, train=False)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Transform the images of a whole batch on the device of the model."""
        draws = batch.draws if isinstance(batch, PlannedBatch) else None
        inputs = transform_inputs(batch.inputs, self.transform, train=draws is not None, draws=draws)
        return Batch(inputs, batch.guide, batch.targets)

    def evaluation_loader(self, split: str) -> StudyLoader:
        """Return a loader of all studies of a split, once each, without augmentation, longest reports first."""
        rows = self.rows(split)
        words = np.array([len(report.split()) for report in self.dataset.reports(rows, self.section)])
        sampler = self._sampler(rows[np.argsort(-words, kind="stable")], shuffle=False)
        return self._loader(sampler, train=False)

    def _sampler(self, rows: NDArray[np.int64], *, shuffle: bool) -> StudySampler:
        trainer: Any = self.trainer
        return StudySampler(
            rows,
            self.batch_size,
            seed=self.seed,
            shuffle=shuffle,
            drop_last=self.drop_last,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )

    def _collator(self, *, train: bool) -> Collator:
        return Collator(
            self.dataset,
            self.tokenizer,
            section=self.section,
            max_length=self.max_length,
            views=self.views,
            features=self.features,
            variant="random" if train else 0,
        )

    def _loader(self, sampler: StudySampler, *, train: bool) -> StudyLoader:
        return StudyLoader(
            self._collator(train=True) if train else self._evaluation,
            sampler,
            seed=self.seed if train else None,
            workers=self.workers,
            pin_memory=torch.cuda.is_available(),
        )
