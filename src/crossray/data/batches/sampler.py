"""Assigns studies to batches; the result depends only on the seed and the epoch, not on the number of processes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crossray.errors import UserError, counted


@dataclass(frozen=True)
class BatchPlan:
    """The share of one process in one batch.

    Attributes:
        epoch: epoch of the batch.
        index: position of the batch in the epoch.
        rows: (B,) int64, study rows of this process.
        first: index of the first of these rows in the global batch.
        total: number of studies in the global batch.
    """

    epoch: int
    index: int
    rows: NDArray[np.int64]
    first: int
    total: int


class StudySampler:
    """Plans the batches of every epoch.

    A global batch has `batch_size` x `world_size` studies and is split into contiguous parts, one per process.
    Therefore, two processes with half the batch size together see the same batches as one process. All processes have
    the same number of batches.

    Args:
        rows: study rows.
        batch_size: number of studies per batch in one process.
        seed: random seed of the order; it has no effect without `shuffle`.
        shuffle: draw a new order for every epoch; otherwise, keep the order of `rows` and use batches of nearly equal
            size.
        drop_last: with `shuffle`, drop the last batch if it is not full, unless it is the only one. A last batch with
            fewer studies than processes is always dropped.
        rank: index of this process.
        world_size: number of processes.

    Raises:
        UserError: there are fewer studies than processes, or the batch size is not positive.
    """

    def __init__(
        self,
        rows: Sequence[int] | NDArray[np.int64],
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.rows = np.asarray(rows, np.int64)
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}; give at least 1.")
        if len(self.rows) < world_size:
            raise UserError(
                f"{counted(len(self.rows), 'study')} cannot be shared by {world_size} processes; use fewer devices."
            )
        self.seed, self.shuffle, self.rank, self.world_size = seed, shuffle, rank, world_size
        self.global_batch_size = batch_size * world_size
        self.epoch = 0
        self._start = 0
        self._bounds = self._make_bounds(drop_last)

    def _make_bounds(self, drop_last: bool) -> NDArray[np.int64]:
        """Compute the index of the first study of every global batch, and the end of the last batch."""
        count, size = len(self.rows), self.global_batch_size
        if not self.shuffle:
            # never so many that one has fewer studies than processes; a batch may then have one more per process
            batches = min(-(-count // size), count // self.world_size)
            return np.arange(batches + 1, dtype=np.int64) * count // batches
        bounds = np.append(np.arange(0, count, size, dtype=np.int64), count)
        left = int(bounds[-1] - bounds[-2])
        # with fewer remaining studies than processes, a process would have none
        if len(bounds) > 2 and left < size and (drop_last or left < self.world_size):
            bounds = bounds[:-1]
        return bounds

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def set_epoch(self, epoch: int) -> None:
        """Plan an epoch from its start; this has no effect for the current epoch."""
        if epoch != self.epoch:
            self.epoch, self._start = epoch, 0

    def resume(self, epoch: int, position: int) -> None:
        """Make the next iteration start at batch `position` of `epoch`."""
        self.epoch, self._start = epoch, position

    def __iter__(self) -> Iterator[BatchPlan]:
        start, self._start = self._start, 0
        order = self.rows
        if self.shuffle:
            order = order[np.random.default_rng((self.seed, self.epoch)).permutation(len(order))]
        for index in range(start, len(self)):
            first, end = int(self._bounds[index]), int(self._bounds[index + 1])
            shares = np.arange(self.world_size + 1) * (end - first) // self.world_size
            share = slice(int(shares[self.rank]), int(shares[self.rank + 1]))
            yield BatchPlan(self.epoch, index, order[first:end][share], share.start, end - first)

    @property
    def start(self) -> int:
        """Index of the batch at which the next iteration starts."""
        return self._start

    def identity(self) -> dict[str, Any]:
        """Return the values that must be equal when an epoch is resumed."""
        return {"seed": self.seed, "studies": len(self.rows), "global_batch_size": self.global_batch_size}
