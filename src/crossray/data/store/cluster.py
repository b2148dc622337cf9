"""Runs batches on the workers of a Ray cluster (extra `ray`), each of which loads a model once.

All machines must share the disk with the model and the dataset, under the same paths.
"""

import logging
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch

from crossray.data.store.engines import ray_cluster
from crossray.errors import UserError, counted


@dataclass(frozen=True)
class Cluster:
    """A connected cluster.

    Attributes:
        ray: the package `ray`.
        kind: what each worker has one of: a "GPU", or a "CPU" core.
        workers: number of workers to use.
    """

    ray: Any
    kind: Literal["GPU", "CPU"]
    workers: int

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        """Device of each worker: "cuda" is the GPU that Ray assigned to it."""
        return "cuda" if self.kind == "GPU" else "cpu"

    def run(
        self, load: Callable[[Any], Callable[[int], Any]], job: Any, firsts: Sequence[int]
    ) -> Iterator[tuple[int, Any]]:
        """Run batches, one at a time per worker.

        If a worker or its machine is lost, Ray starts another and repeats its batch, as often as necessary.

        Args:
            load: called with `job` in each worker before its first batch; returns what is called with the index of the
                first element of each batch. Both can raise a `UserError`.
            job: picklable argument of `load`.
            firsts: index of the first element of each batch.

        Yields:
            That index and the result of each batch, in the order in which they finish.

        Raises:
            UserError: a worker raised it, or the cluster is lost.
        """
        ray = self.ray
        # its progress would be drawn over ours
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        dataset = ray.data.from_items(list(firsts), override_num_blocks=len(firsts))
        dataset.context.enable_progress_bars = dataset.context.print_on_execution_start = False
        # a process may also be lost while it starts, which by default would be the end
        dataset.context.max_consecutive_actor_init_deaths = 3
        # one batch per worker at a time, so that none waits for a slow worker while another is idle
        pool = ray.data.ActorPoolStrategy(size=min(self.workers, len(firsts)), max_tasks_in_flight_per_actor=1)
        resources = {"num_gpus": 1} if self.kind == "GPU" else {"num_cpus": 1}
        done = dataset.map(_Worker, fn_constructor_args=[load, job, self.kind], compute=pool, **resources)
        try:
            for row in done.iter_rows():
                result = pickle.loads(row["result"])
                if isinstance(result, UserError):
                    raise result
                yield row["first"], result
        except (ray.exceptions.RayTaskError, ray.exceptions.UserCodeException):
            raise  # an error of the program, with the worker's traceback
        except ray.exceptions.RayError as error:
            raise UserError(f"Ray stopped ({type(error).__name__}); run the same command again.") from error


@contextmanager
def connected(remedy: str, device: str = "auto", devices: int | None = None) -> Iterator[Cluster]:
    """Connect to the cluster of `ray_cluster`.

    Args:
        remedy: see `ray_cluster`.
        device: "auto" for GPUs if the cluster has any, else CPUs; or "cuda", "cpu".
        devices: number of workers, with one GPU or CPU core each; None for all of the cluster.

    Raises:
        UserError: Ray is not installed, no cluster answers, or it lacks the devices.
    """
    with ray_cluster(remedy, "ray.data") as ray:
        yield Cluster(ray, *choose_devices(ray.cluster_resources(), device, devices))


def choose_devices(
    resources: Mapping[str, float], device: str, devices: int | None
) -> tuple[Literal["GPU", "CPU"], int]:
    """Choose the kind and number of devices to use.

    Raises:
        UserError: the cluster does not have them, or `device` names a single GPU.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"--device {device[:40]}: with --engine ray, Ray chooses the GPUs; give auto, cpu or cuda.")
    kind: Literal["GPU", "CPU"] = "GPU" if device == "cuda" or (device == "auto" and resources.get("GPU")) else "CPU"
    available = int(resources.get(kind, 0))
    if not available:
        raise UserError(f"--device {device}: the Ray cluster has no {kind}; give auto, or start it with some.")
    if devices is not None and devices > available:
        raise UserError(f"--devices {devices}: the Ray cluster has {counted(available, kind)}; give at most as many.")
    return kind, devices or available


class _Worker:
    """Runs batches in a process of the cluster.

    The model is loaded with the first batch rather than here, so that an error of the user reaches the user as it is,
    and a process that dies while loading is replaced like any other.
    """

    def __init__(self, load: Callable[[Any], Callable[[int], Any]], job: Any, kind: str) -> None:
        self._load, self._job = load, job
        if kind == "CPU":
            torch.set_num_threads(1)  # there is a worker for every core

    @cached_property
    def _run(self) -> Callable[[int], Any]:
        return self._load(self._job)

    def __call__(self, row: Mapping[str, int]) -> dict[str, int | bytes]:
        """Run the batch that begins at `item`; returns the same index, and the pickled result or `UserError`."""
        first = int(row["item"])
        try:
            result = self._run(first)
        except UserError as error:
            # returned instead of raised, because Ray would wrap it; subclasses may not be picklable
            result = UserError(str(error))
        return {"first": first, "result": pickle.dumps(result)}
