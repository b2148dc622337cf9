"""Writes the reports of one split of a prepared dataset, or of a part of it."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crossray.data.batches.loading import Collator
from crossray.data.store import Dataset
from crossray.data.study import VIEW_POSITIONS
from crossray.errors import UserError, counted
from crossray.evaluation.metrics.degeneracy import derangement
from crossray.evaluation.predictions import Prediction, Provenance
from crossray.evaluation.predictions.protocol import references
from crossray.files.names import printable

if TYPE_CHECKING:
    from crossray.generation.generator import Generator, Progress


class SplitReports:
    """The reports of one split of a prepared dataset, of any part of its studies.

    Attributes:
        generator: writes the reports.
        data: the dataset.
        split: the split.
        rows: (n,) rows of its studies in the dataset.
        seen: (n,) rows of the studies whose images the model sees; differs from `rows` only if images are shuffled.
        shuffled: whether images are shuffled.
    """

    def __init__(
        self, generator: "Generator", dataset: Dataset | Path | str, split: str, shuffle_images: int | None = None
    ) -> None:
        """Find the studies; see `Generator.generate_dataset` for the arguments.

        Raises:
            UserError: there is no such dataset or split, or there is only a single study to shuffle.
        """
        self.generator, self.split = generator, split
        self.data = data = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
        self.rows = np.arange(data.studies) if split == "all" else data.rows(split)
        place = f"{data.path}: split {split!r}"
        self.seen = self.rows if shuffle_images is None else _shuffled(self.rows, shuffle_images, place)
        self.shuffled = shuffle_images is not None

    @property
    def studies(self) -> int:
        """Number of studies, n."""
        return len(self.rows)

    def provenance(self) -> Provenance:
        """The header of the predictions file."""
        return replace(
            self.generator.provenance(),
            data=printable(self.data.path.resolve()),
            data_sha256=self.data.info.sha256,
            split=self.split,
            shuffled_images=self.shuffled,
        )

    def predictions(
        self, first: int, last: int, *, batch_size: int, progress: "Progress | None" = None
    ) -> Iterator[Prediction]:
        """The predictions of the studies from `first` to before `last`, in order, in batches from `first` on.

        Args:
            first: index of the first study, below n.
            last: index after the last study; n at most.
            batch_size: number of studies per batch; halved when memory runs out.
            progress: called with the number of finished and of all studies between `first` and `last`.

        Raises:
            UserError: there is not enough memory for even one study.
        """
        data, generator, seen = self.data, self.generator, self.seen[first:last]
        views, max_length = generator.model.config.views, generator.model.config.max_length
        names = data.ids(self.rows[first:last])
        reports = data.reports(self.rows[first:last], generator.section)
        collator = self._collator
        known = data.ids(seen) if self.split in ("train", "all") else None
        places = generator.write(names, lambda chosen: collator.inputs(seen[chosen]), batch_size, progress, known=known)
        for place, (written, _), seconds in places:
            images = data.views(int(seen[place]))[:views]
            yield Prediction(
                id=names[place],
                prediction=written.text,
                references=references(reports[place], generator.tokenizer, max_length),
                images=tuple(VIEW_POSITIONS[data.image_positions[image]] for image in images),
                log_probability=written.log_probability,
                seconds=seconds,
            )

    @cached_property
    def _collator(self) -> Collator:
        """Reads the inputs; created once, because finding cached features reads the encoder's weights."""
        model = self.generator.model
        features = model.cached_features(self.data)
        return Collator(self.data, None, section=self.generator.section, views=model.config.views, features=features)


def _shuffled(rows: NDArray[np.int64], seed: int, place: str) -> NDArray[np.int64]:
    """A different row for each of the rows."""
    if len(rows) < 2:
        raise UserError(
            f"{place}: shuffle_images: it has {counted(len(rows), 'study')}; choose a split with at least two."
        )
    return rows[derangement(len(rows), np.random.default_rng(seed))]
