"""Writes the reports of a prepared dataset on a Ray cluster (extra `ray`): `crossray generate --engine ray`.

Each worker loads the model once and writes one batch at a time; this process writes the predictions file in order. All
machines must share the disk with the model and the dataset, under the same paths.
"""

import logging
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from crossray.data.store.engines import ray_cluster
from crossray.decoding.config import DecodingConfig
from crossray.errors import UserError, counted
from crossray.evaluation.predictions import Prediction, write_predictions
from crossray.files.folders import model_folder
from crossray.generation.generator import Generator, Progress, check_batch_size
from crossray.generation.split import SplitReports


@dataclass(frozen=True)
class Job:
    """Settings that all workers share; picklable.

    Attributes:
        model: model folder, absolute.
        decoding: decoding settings.
        data: folder of the prepared dataset, absolute.
        split: split of the dataset.
        shuffle_images: see `generate_on_ray`, as for the next one.
        batch_size: number of studies per batch.
        device: "cuda" for the GPU that Ray assigned to the worker, or "cpu".
    """

    model: Path
    decoding: DecodingConfig
    data: Path
    split: str
    shuffle_images: int | None
    batch_size: int
    device: Literal["cuda", "cpu"]


class Worker:
    """Writes batches in a process of the cluster.

    The model is loaded with the first batch rather than here, so that an error of the user reaches the user as it is,
    and a process that dies while loading is replaced like any other.
    """

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self, row: Mapping[str, int]) -> dict[str, int | bytes]:
        """Write one batch.

        Args:
            row: index of its first study, as `item`.

        Returns:
            As `first`, the same index; as `batch`, a pickled list of its predictions, or the `UserError` that
            prevented them.
        """
        first, size = int(row["item"]), self.job.batch_size
        batch: list[Prediction] | UserError
        try:
            last = min(first + size, self.reports.studies)
            batch = list(self.reports.predictions(first, last, batch_size=size))
        except UserError as error:
            # returned instead of raised, because Ray would wrap it; subclasses may not be picklable
            batch = UserError(str(error))
        return {"first": first, "batch": pickle.dumps(batch)}

    @cached_property
    def reports(self) -> SplitReports:
        """The reports of the split; loads the model and opens the dataset."""
        job = self.job
        if job.device == "cpu":
            torch.set_num_threads(1)  # there is a worker for every core
        generator = Generator.from_pretrained(job.model, job.device, job.decoding, use_confidence=False)
        return SplitReports(generator, job.data, job.split, job.shuffle_images)


def generate_on_ray(
    generator: Generator,
    data: Path | str,
    split: str,
    out: Path | str,
    *,
    device: str = "auto",
    devices: int | None = None,
    batch_size: int = 64,
    shuffle_images: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Write the reports of one split of a prepared dataset on the cluster of `ray_cluster`.

    The file equals that of `Generator.generate_dataset` except for `seconds`, which are measured, if both use the same
    kind of device, the same number of threads and batches that fit into memory. A worker halves a batch that does not,
    and tries the next batch at full size again. If a worker or its machine is lost, Ray starts another and repeats its
    batch, as often as necessary.

    Args:
        generator: the model, loaded from a folder; it can be on the CPU, because only its settings are used here.
        data: folder of the dataset.
        split: see `Generator.generate_dataset`, as for the arguments that are not here.
        out: predictions file to write; a failed write leaves no partial file.
        device: "auto" for GPUs if the cluster has any, else CPUs; or "cuda", "cpu".
        devices: number of workers, with one GPU or CPU core each; None for all of the cluster.
        batch_size: number of studies per batch; each batch is written by one worker.
        shuffle_images: seed of a random order of the images.
        progress: called with the number of finished and of all studies.

    Returns:
        Number of reports.

    Raises:
        UserError: Ray is not installed, the cluster lacks the devices, a worker cannot read the model or the dataset,
            or as for `Generator.generate_dataset`.
    """
    check_batch_size(batch_size)
    work = SplitReports(generator, data, split, shuffle_images)
    with ray_cluster("leave out --engine ray", "ray.data") as ray:
        kind, available = _devices(ray.cluster_resources(), device, devices)
        job = Job(
            model=model_folder(generator.name).resolve(),
            decoding=generator.decoding,
            data=work.data.path.resolve(),
            split=split,
            shuffle_images=shuffle_images,
            batch_size=batch_size,
            device="cuda" if kind == "GPU" else "cpu",
        )
        # its progress would be drawn over ours
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        batches = range(0, work.studies, batch_size)
        dataset = ray.data.from_items(list(batches), override_num_blocks=len(batches))
        dataset.context.enable_progress_bars = dataset.context.print_on_execution_start = False
        # a process may also be lost while it starts, which by default would be the end
        dataset.context.max_consecutive_actor_init_deaths = 3
        # one batch per worker at a time, so that none waits for a slow worker while another is idle
        workers = ray.data.ActorPoolStrategy(size=min(available, len(batches)), max_tasks_in_flight_per_actor=1)
        resources = {"num_gpus": 1} if kind == "GPU" else {"num_cpus": 1}
        written = dataset.map(Worker, fn_constructor_args=[job], compute=workers, **resources)
        return write_predictions(out, work.provenance(), _in_order(ray, written, work.studies, progress))


def _in_order(ray: Any, written: Any, studies: int, progress: Progress | None) -> Iterator[Prediction]:
    """The predictions of all batches in order, each batch as soon as those before it are written.

    Batches that wait for an earlier one are kept here, because Ray's own `preserve_order` keeps them in the cluster's
    object store, whose limit could stop the other workers until a lost batch has been repeated.
    """
    waiting: dict[int, list[Prediction]] = {}
    finished = due = 0
    try:
        for row in written.iter_rows():
            batch: list[Prediction] | UserError = pickle.loads(row["batch"])
            if isinstance(batch, UserError):
                raise batch
            waiting[row["first"]] = batch
            finished += len(batch)
            if progress is not None:
                progress(finished, studies)
            while due in waiting:
                ready = waiting.pop(due)
                yield from ready
                due += len(ready)
    except (ray.exceptions.RayTaskError, ray.exceptions.UserCodeException):
        raise  # an error of the program, with the worker's traceback
    except ray.exceptions.RayError as error:
        raise UserError(f"Ray stopped ({type(error).__name__}); run the same command again.") from error


def _devices(resources: Mapping[str, float], device: str, devices: int | None) -> tuple[Literal["GPU", "CPU"], int]:
    """The kind and number of devices to use.

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
