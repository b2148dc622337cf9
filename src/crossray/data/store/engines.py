"""Engines that write shards: processes on this machine, or a Ray cluster (extra `ray`)."""

import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from importlib import import_module
from multiprocessing import get_context
from typing import Any, Literal

from crossray.data.store.shards import Job, start_worker, write_shard
from crossray.data.study import Study
from crossray.errors import UserError

Engine = Literal["processes", "ray"]


class ShardWriter(ABC):
    """Accepts shards one at a time and limits the pending ones, so that sources are read only as fast as written.

    Args:
        limit: maximum number of pending shards.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pending: list[Any] = []

    def submit(self, job: Job, shard: int, members: Sequence[Study], repeated: frozenset[int]) -> Iterator[int]:
        """Submit a shard; yields the sizes of finished shards."""
        self._pending.append(self._begin(job, shard, members, repeated))
        while len(self._pending) > self._limit:
            yield self._result()

    def finish(self) -> Iterator[int]:
        """Wait for all shards; yields their sizes."""
        while self._pending:
            yield self._result()

    @abstractmethod
    def close(self) -> None:
        """Cancel shards that have not started and wait for the rest."""

    @abstractmethod
    def _begin(self, job: Job, shard: int, members: Sequence[Study], repeated: frozenset[int]) -> Any:
        """Start a shard."""

    @abstractmethod
    def _result(self) -> int:
        """Wait for a finished shard, remove it from the pending ones, and return its size.

        Raises:
            UserError: the shard was lost or cannot be written.
        """


def make_engine(engine: Engine, workers: int) -> ShardWriter:
    """Create the engine of this name.

    Args:
        engine: "processes" or "ray".
        workers: number of processes, 0 for this process only; Ray uses its whole cluster.

    Raises:
        UserError: Ray is not installed.
    """
    if engine == "ray":
        return RayTasks()
    return Processes(workers) if workers else ThisProcess()


@contextmanager
def ray_cluster(remedy: str, module: str = "ray") -> Iterator[Any]:
    """Connect to the Ray cluster at RAY_ADDRESS, else to one on this machine; a new one is shut down at the end.

    Unless Ray is imported already, this turns off its automatic connection: call `ray.init` before using it elsewhere.

    Args:
        remedy: what to do without Ray, for the error message.
        module: module that must be importable: "ray" or "ray.data".

    Yields:
        The package `ray`.

    Raises:
        UserError: a package is not installed, or nothing answers at RAY_ADDRESS.
    """
    # A thread of Ray Data can outlive its run by seconds; without this, its next call would connect again.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        ray: Any = import_module("ray")
        import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"the engine ray needs the package {error.name}; pip install 'crossray[ray]', or {remedy}."
        ) from None
    own = not ray.is_initialized()
    if own:
        address = os.environ.get("RAY_ADDRESS", "")
        _check_address(address)
        try:
            ray.init(log_to_driver=False)
        except ConnectionError as error:  # "auto" on a machine without a cluster
            raise _no_cluster(address, "no answer") from error
    try:
        yield ray
    finally:
        if own:
            ray.shutdown()


def _check_address(address: str) -> None:
    """Check that something answers, because Ray would wait for minutes and print warnings."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():  # such as "auto" and "local"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "no answer"
        raise _no_cluster(address, reason) from None


def _no_cluster(address: str, reason: str) -> UserError:
    return UserError(f"RAY_ADDRESS {address[:80]}: no cluster answers ({reason}); start it, or unset the variable.")


class ThisProcess(ShardWriter):
    """Writes each shard immediately."""

    def __init__(self) -> None:
        super().__init__(limit=0)

    def close(self) -> None:
        """Do nothing, because no shard is ever pending."""

    def _begin(self, job: Job, shard: int, members: Sequence[Study], repeated: frozenset[int]) -> int:
        return write_shard(job, shard, members, repeated)

    def _result(self) -> int:
        count: int = self._pending.pop()
        return count


class Processes(ShardWriter):
    """Writes shards in one or more worker processes."""

    def __init__(self, workers: int) -> None:
        super().__init__(limit=2 * workers)
        self._executor: ProcessPoolExecutor | None = None
        self._workers = workers

    def close(self) -> None:
        """Cancel shards that have not started and wait for the rest."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def _begin(self, job: Job, shard: int, members: Sequence[Study], repeated: frozenset[int]) -> Future[int]:
        if self._executor is None:  # started lazily: a finished dataset needs no processes
            # forked processes would inherit the locks of PyTorch's threads
            self._executor = ProcessPoolExecutor(self._workers, get_context("forkserver"), initializer=start_worker)
        return self._executor.submit(write_shard, job, shard, members, repeated)

    def _result(self) -> int:
        first: Future[int] = self._pending.pop(0)
        try:
            return first.result()
        except BrokenProcessPool as error:
            raise UserError("a worker process was killed, probably because memory ran out; run the same command again "
                            "with fewer --workers: it continues.") from error  # fmt: skip


class RayTasks(ShardWriter):
    """Writes shards as tasks on the cluster of `ray_cluster`.

    All machines must share the disk with the source and the dataset, under the same paths.
    """

    def __init__(self) -> None:
        """Connect to the cluster."""
        self._cluster = ExitStack()
        self._ray = ray = self._cluster.enter_context(ray_cluster("use --shard"))
        self._write: Any = ray.remote(write_shard)
        super().__init__(limit=2 * max(1, int(ray.cluster_resources().get("CPU", 1))))

    def _begin(self, job: Job, shard: int, members: Sequence[Study], repeated: frozenset[int]) -> Any:
        return self._write.remote(job, shard, members, repeated)

    def _result(self) -> int:
        ready, self._pending = self._ray.wait(self._pending, num_returns=1)
        try:
            count: int = self._ray.get(ready[0])
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, UserError):
                raise error.cause from None
            raise
        except self._ray.exceptions.RayError as error:
            raise UserError(
                f"Ray lost a task ({type(error).__name__}); run the same command again: it continues."
            ) from error
        return count

    def close(self) -> None:
        """Cancel shards that have not started."""
        for task in self._pending:
            self._ray.cancel(task)
        self._cluster.close()
