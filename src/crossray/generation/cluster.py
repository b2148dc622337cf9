"""Writes the reports of a prepared dataset on a Ray cluster (extra `ray`): `crossray generate --engine ray`.

Each worker loads the model once and writes one batch at a time; this process writes the predictions file in order.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crossray.data.store.cluster import connected
from crossray.decoding.config import DecodingConfig
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
        device: see `crossray.data.store.cluster.Cluster`.
    """

    model: Path
    decoding: DecodingConfig
    data: Path
    split: str
    shuffle_images: int | None
    batch_size: int
    device: Literal["cuda", "cpu"]


class Worker:
    """Writes batches in a process of the cluster."""

    def __init__(self, job: Job) -> None:
        """Load the model and open the dataset."""
        generator = Generator.from_pretrained(job.model, job.device, job.decoding, use_confidence=False)
        self.reports = SplitReports(generator, job.data, job.split, job.shuffle_images)
        self.batch_size = job.batch_size

    def __call__(self, first: int) -> list[Prediction]:
        """Write the batch whose first study has this index."""
        last = min(first + self.batch_size, self.reports.studies)
        return list(self.reports.predictions(first, last, batch_size=self.batch_size))


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
    and tries the next batch at full size again. The batch of a lost worker is repeated by another.

    Args:
        generator: the model, loaded from a folder; it can be on the CPU, because only its settings are used here.
        data: folder of the dataset.
        split: see `Generator.generate_dataset`, as for the arguments that are not here.
        out: predictions file to write; a failed write leaves no partial file.
        device: see `crossray.data.store.cluster.connected`, as for the next one.
        devices: number of workers.
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
    with connected("leave out --engine ray", device, devices) as cluster:
        job = Job(
            model=model_folder(generator.name).resolve(),
            decoding=generator.decoding,
            data=work.data.path.resolve(),
            split=split,
            shuffle_images=shuffle_images,
            batch_size=batch_size,
            device=cluster.device,
        )
        written = cluster.run(Worker, job, range(0, work.studies, batch_size))
        return write_predictions(out, work.provenance(), _in_order(written, work.studies, progress))


def _in_order(
    written: Iterable[tuple[int, list[Prediction]]], studies: int, progress: Progress | None
) -> Iterator[Prediction]:
    """The predictions of all batches in order, each batch as soon as those before it are written.

    Batches that wait for an earlier one are kept here, because Ray's own `preserve_order` keeps them in the cluster's
    object store, whose limit could stop the other workers until a lost batch has been repeated.
    """
    waiting: dict[int, list[Prediction]] = {}
    finished = due = 0
    for first, batch in written:
        waiting[first] = batch
        finished += len(batch)
        if progress is not None:
            progress(finished, studies)
        while due in waiting:
            ready = waiting.pop(due)
            yield from ready
            due += len(ready)
