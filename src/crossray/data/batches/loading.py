"""Builds batches from rows of a prepared dataset: `Collator` one at a time, `StudyLoader` as a resumable stream."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from crossray.data.batches.batch import Batch, Guide, Inputs, Targets
from crossray.data.batches.features import FeatureCache
from crossray.data.batches.sampler import BatchPlan, StudySampler
from crossray.data.batches.transform import DRAWS
from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.text.cleaning import clean
from crossray.text.observations import STATUSES
from crossray.text.tokenizer import Tokenizer


def report_key(report: str) -> int:
    """Return a number below 2^63 that is equal for equal texts, on every machine."""
    return int.from_bytes(hashlib.blake2b(report.encode(), digest_size=8).digest(), "little") >> 1


def reported_rows(dataset: Dataset, split: str, section: str, cleaner: str) -> NDArray[np.int64]:
    """Return the rows of the studies of a split that have a section, (N,) int64.

    Args:
        dataset: the prepared dataset.
        split: split of the dataset.
        section: section of the report: "findings" or "impression".
        cleaner: cleaner of the reports; a section of which it leaves nothing counts as missing.

    Raises:
        UserError: the split does not exist, or none of its studies has the section.
    """
    rows = dataset.rows(split)
    if section == "findings":
        return rows  # every study of the dataset has findings
    kept = rows[[clean(report, cleaner).strip(" .") != "" for report in dataset.reports(rows, section)]]
    if not len(kept):
        raise UserError(f"{dataset.path}: no study of split '{split}' has section '{section}'; choose another section.")
    return kept


class Collator:
    """Builds a `Batch` with untransformed images from study rows; instances can be pickled.

    Args:
        dataset: the prepared dataset.
        tokenizer: encodes the reports; None leaves the targets without tokens, (B, 0).
        section: target section of the report: "findings" or "impression".
        max_length: maximum number of tokens in a report, including bos and eos.
        views: maximum number of views of a study; the first ones are used, and `view_mask` marks those that exist.
        features: cached features instead of images.
        variant: variant of the cached features; "random" draws one of all variants for each image.

    Raises:
        UserError: `views` is not positive, or `features` does not have the variant.
    """

    def __init__(
        self,
        dataset: Dataset,
        tokenizer: Tokenizer | None,
        *,
        section: str = "findings",
        max_length: int = 60,
        views: int = 2,
        features: FeatureCache | None = None,
        variant: int | Literal["random"] = 0,
    ) -> None:
        if views < 1:
            raise UserError(f"views {views}: a study needs at least one view; use 1 or 2.")
        if features is not None and variant != "random" and not 0 <= variant < features.variants:
            raise UserError(f"{features.path}: there is no variant {variant}; give one below {features.variants}.")
        self.dataset, self.tokenizer, self.features = dataset, tokenizer, features
        self.section, self.max_length, self.views, self.variant = section, max_length, views, variant
        # tokens and report key by study row; each report is cleaned and encoded once
        self._encoded: dict[int, tuple[NDArray[np.int64], int]] = {}

    def __call__(self, rows: Sequence[int] | NDArray[np.int64], chances: NDArray[Any] | None = None) -> Batch:
        """Build the batch of some studies.

        Args:
            rows: (B,) study rows.
            chances: (B, V) numbers in [0, 1) that select the variant of cached features, for variant "random".

        Raises:
            ValueError: `chances` are missing for variant "random".
        """
        rows = np.asarray(rows, np.int64)
        return Batch(self.inputs(rows, chances), self.guide(rows), self.targets(rows))

    def inputs(self, rows: NDArray[np.int64], chances: NDArray[Any] | None = None) -> Inputs:
        """Return the inputs of some studies, with images or cached features."""
        data = self.dataset
        first = data.first_image[rows]
        count = np.minimum(data.first_image[rows + 1] - first, self.views)
        mask = np.arange(self.views) < count[:, None]
        images = np.where(mask, first[:, None] + np.arange(self.views), 0)
        sizes = np.where(mask[..., None], data.image_sizes[images], 0)
        features: dict[str, Tensor] = {}
        if self.features is None:
            pixels = self._pixels(images[mask], sizes, mask)
        else:
            pixels = torch.empty(*mask.shape, 1, 0, 0, dtype=torch.uint8)
            features = self._features(self.features, images, mask, chances)
        return Inputs(
            images=pixels,
            image_size=torch.from_numpy(sizes),
            view_mask=torch.from_numpy(mask),
            view_position=torch.from_numpy(np.where(mask, data.image_positions[images], 0)),
            features=features,
        )

    def guide(self, rows: NDArray[np.int64]) -> Guide:
        """Return additional information for training; all labels of a study without labels are zero."""
        labels = None
        if self.dataset.labels is not None:
            codes = self.dataset.labels[rows]
            labels = torch.from_numpy((codes[..., None] == np.arange(len(STATUSES))).astype(np.float32))
        return Guide(labels, tuple(self.dataset.ids(rows)), tuple(self.dataset.patients(rows)))

    def targets(self, rows: NDArray[np.int64]) -> Targets:
        """Return the tokens of the reports, padded to the longest report."""
        encoded = self._encode(rows)
        lengths = np.array([len(tokens) for tokens, _ in encoded])
        mask = np.arange(int(lengths.max(initial=0))) < lengths[:, None]
        tokens = np.full(mask.shape, 0 if self.tokenizer is None else self.tokenizer.pad_id, np.int64)
        tokens[mask] = np.concatenate([tokens for tokens, _ in encoded]) if len(encoded) else 0
        keys = torch.tensor([key for _, key in encoded], dtype=torch.int64)
        reports = tuple(self.dataset.reports(rows, self.section))
        return Targets(torch.from_numpy(tokens), torch.from_numpy(mask), keys, reports)

    def _pixels(self, images: NDArray[np.int64], sizes: NDArray[np.int64], mask: NDArray[np.bool_]) -> Tensor:
        """Copy the views from the memory map and pad them with zeros, (B, V, 1, H, W) uint8."""
        height, width = sizes.max(axis=(0, 1))
        whole = bool((sizes == (height, width)).all())
        padded = (np.empty if whole else np.zeros)((*mask.shape, height, width), np.uint8)
        for (study, view), image in zip(np.argwhere(mask).tolist(), images.tolist(), strict=True):
            stored = self.dataset.image(image)
            padded[study, view, : stored.shape[0], : stored.shape[1]] = stored
        return torch.from_numpy(padded).unsqueeze(2)

    def _features(
        self, cache: FeatureCache, images: NDArray[np.int64], mask: NDArray[np.bool_], chances: NDArray[Any] | None
    ) -> dict[str, Tensor]:
        if self.variant != "random":
            variants = np.full(images.shape, self.variant)
        elif cache.variants == 1:
            variants = np.zeros(images.shape, np.int64)
        elif chances is None:
            raise ValueError("variant 'random' needs `chances`")
        else:
            # includes the evaluation variant, because a small shift changes most tokens of an image tokenizer
            variants = np.minimum((chances * cache.variants).astype(np.int64), cache.variants - 1)
        read = cache.read(images.ravel(), variants.ravel())
        valid = torch.from_numpy(mask)
        result = {}
        for name, values in read.items():
            shaped = values.view(*mask.shape, *values.shape[1:])
            result[name] = shaped * valid.view(*mask.shape, *[1] * (shaped.dim() - 2)).to(shaped.dtype)
        return result

    def _encode(self, rows: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], int]]:
        new = [row for row in rows.tolist() if row not in self._encoded]
        for row, report in zip(new, self.dataset.reports(new, self.section), strict=True):
            if self.tokenizer is None:
                tokens, cleaned = [], clean(report, self.dataset.info.cleaner)
            else:
                tokens, cleaned = self.tokenizer.encode(report, self.max_length), self.tokenizer.clean(report)
            self._encoded[row] = np.array(tokens, np.int64), report_key(cleaned)
        return [self._encoded[row] for row in rows.tolist()]


@dataclass
class PlannedBatch(Batch):
    """A batch with the random numbers of its augmentation.

    Attributes:
        draws: (B, V, DRAWS) float32 in [0, 1), determined by seed, epoch and position in the epoch; None for a batch
            without augmentation.
    """

    draws: Tensor | None = None


class _PlannedBatches(TorchDataset[PlannedBatch]):
    """Builds a batch from a plan, usually in a worker process."""

    def __init__(self, collator: Collator, seed: int | None) -> None:
        self.collator, self.seed = collator, seed

    def __getitem__(self, plan: BatchPlan) -> PlannedBatch:
        draws = chances = None
        if self.seed is not None:
            # drawn for the global batch; each process uses its share
            generator = np.random.default_rng((self.seed, plan.epoch, plan.index))
            numbers = generator.random((plan.total, self.collator.views, DRAWS + 1), np.float32)
            numbers = numbers[plan.first : plan.first + len(plan.rows)]
            draws, chances = torch.from_numpy(numbers[..., :DRAWS].copy()), numbers[..., DRAWS]
        batch = self.collator(plan.rows, chances)
        return PlannedBatch(batch.inputs, batch.guide, batch.targets, draws)


class StudyLoader:
    """Iterates over the batches of successive epochs.

    It implements the protocol with which Lightning's fit loop saves and restores a loader in the middle of an epoch:
    `state_dict`, `load_state_dict`, and `sampler.set_epoch`.

    Args:
        collator: builds the batches.
        sampler: plans the batches.
        seed: random seed of the augmentation; None for no augmentation.
        workers: number of processes that build batches in advance; 0 builds them in this process.
        pin_memory: copy batches to pinned memory.
    """

    def __init__(
        self,
        collator: Collator,
        sampler: StudySampler,
        *,
        seed: int | None = None,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.sampler = sampler
        self.batch_sampler = None  # Lightning expects it next to `sampler`
        self._epoch, self._position = -1, 0
        self._loader: DataLoader[PlannedBatch] = DataLoader(
            _PlannedBatches(collator, seed),
            sampler=sampler,
            batch_size=None,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            # without its own generator, the loader would draw from the global state in every epoch, and a resumed run
            # would differ
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        """Return the number of batches in a whole epoch, even if the next iteration starts in the middle of one."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[PlannedBatch]:
        # runs only when the first batch is requested; by then, the epoch has been set
        self._epoch, self._position = self.sampler.epoch, self.sampler.start
        for batch in self._loader:
            self._position += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the number of batches yielded in it, without those that workers built in advance."""
        position = self._position if self._epoch == self.sampler.epoch else self.sampler.start
        return {"epoch": self.sampler.epoch, "position": position, **self.sampler.identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration start at the position of `state`.

        Raises:
            UserError: the state was saved with another seed, batch size or number of studies.
        """
        for field, value in self.sampler.identity().items():
            if state.get(field) != value:
                raise UserError(f"checkpoint: field '{field}' was {state.get(field)} and is now {value}; resume with "
                                "the dataset, seed and batch size of the run.")  # fmt: skip
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self.sampler.resume(self._epoch, self._position)
