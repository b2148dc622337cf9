"""Rebuilds the retrieval index of a model folder from a dataset, and queries it for the nearest reports."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from crossray.analysis.inputs import collator_of
from crossray.data.batches.batch import Inputs
from crossray.data.batches.transform import transform_inputs
from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.files.folders import model_folder
from crossray.files.write import write_whole
from crossray.generation.files import read_study, stack_studies, study_ids
from crossray.generation.generator import Generator
from crossray.models.retrieval.retrieving import DATABASE, RetrievingModel
from crossray.retrieval.database import ReportDatabase
from crossray.retrieval.index import NO_ROW


@dataclass(frozen=True)
class Neighbour:
    """A training study that was retrieved.

    Attributes:
        study: its identifier.
        distance: distance from the query in the model's space.
        report: its report; "" if the index does not keep reports.
    """

    study: str
    distance: float
    report: str


def build_index(folder: Path, dataset: Dataset, *, store_reports: bool = False, device: str = "cpu") -> int:
    """Replace the index of a model folder by an index of this dataset's training studies.

    Weights and class priors do not change, and `provenance.json` records the dataset of the index. A folder whose index
    belongs to another encoder can be read too.

    Args:
        folder: model folder, or the folder of a training run (its best model is taken).
        dataset: its training studies with reports become the index.
        store_reports: keep the text of the reports in the folder.
        device: "cpu" or "cuda".

    Returns:
        Number of studies in the index.

    Raises:
        UserError: the system does not retrieve, or the dataset has no training reports or different observations.
    """
    folder = model_folder(folder)
    with tempfile.TemporaryDirectory() as name:
        # the folder with an empty index, because the replaced index need not be readable
        bare = Path(name)
        for file in folder.glob("*"):
            if file.name != DATABASE:
                (bare / file.name).symlink_to(file.resolve())
        ReportDatabase.empty(0, 0, 0, 0).save(bare / DATABASE)
        generator = Generator.from_pretrained(bare if (bare / "config.json").exists() else folder, device=device)
    model = retrieving(generator, folder)
    if dataset.labels is not None and tuple(dataset.info.observations) != model.config.observations:
        raise UserError(
            f"{dataset.path}: field 'observations' differs from the model's; prepare the dataset with the same labeler."
        )
    model.config = replace(model.config, store_reports=store_reports)
    model.learn_from(dataset, generator.section)
    if not len(model.database):
        raise UserError(
            f"{dataset.path}: no training study has {generator.section}; prepare one with a training split."
        )
    model.database.save(folder / DATABASE)
    _note(folder / "provenance.json", dataset)
    return len(model.database)


def _note(path: Path, dataset: Dataset) -> None:
    """Record the dataset of the index in the provenance of the folder."""
    try:
        provenance = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        provenance = {}
    index = {"sha256": dataset.info.sha256, "source": dataset.info.source}
    whole = {**(provenance if isinstance(provenance, dict) else {}), "index": index}
    write_whole(path, (json.dumps(whole, indent=2) + "\n").encode())


def retrieving(generator: Generator, folder: Path | str) -> RetrievingModel:
    """The generator's model, if it retrieves; `folder` is its name in messages.

    Raises:
        UserError: the model does not retrieve.
    """
    if not isinstance(generator.model, RetrievingModel):
        raise UserError(
            f"{folder}: system '{generator.model.system}' keeps no training reports and has no index; give the folder "
            "of a model that retrieves, such as revtaf."
        )
    return generator.model


def query_files(
    generator: Generator, model: RetrievingModel, studies: Sequence[Sequence[Path]], k: int
) -> Iterator[tuple[str, list[Neighbour]]]:
    """Nearest reports of image files, study by study.

    Args:
        generator: generator of the model.
        model: see `retrieving`.
        studies: the views of each study, or its folder.
        k: number of neighbors.

    Yields:
        The study's name and its neighbors, nearest first.

    Raises:
        UserError: a file cannot be read.
    """
    views = model.config.views
    for name, paths in zip(study_ids(studies), studies, strict=True):
        inputs = stack_studies([read_study(paths, views, generator.stored)], views)
        yield name, nearest(generator, model, inputs, k)[0]


def query_dataset(
    generator: Generator, model: RetrievingModel, dataset: Dataset, split: str, k: int, batch_size: int = 16
) -> Iterator[tuple[str, list[Neighbour]]]:
    """Nearest reports of the studies of a split; see `query_files`."""
    rows, collator = dataset.rows(split), collator_of(model, dataset)
    for start in range(0, len(rows), batch_size):
        part: np.ndarray = rows[start : start + batch_size]
        names = dataset.ids(part)
        found = nearest(generator, model, collator.inputs(part), k, names if split == "train" else None)
        yield from zip(names, found, strict=True)


def nearest(
    generator: Generator, model: RetrievingModel, inputs: Inputs, k: int, known: Sequence[str] | None = None
) -> list[list[Neighbour]]:
    """The neighbors of each of B studies, nearest first.

    Args:
        generator: generator of the model.
        model: see `retrieving`.
        inputs: the studies as stored, before the transform.
        k: number of neighbors.
        known: (B,) identifiers of training studies, which find neither themselves nor other studies of their patient;
            None for new studies.
    """
    database = model.database
    exclude = None if known is None else database.groups_of(known)
    with torch.inference_mode():
        prepared = transform_inputs(inputs.to(generator.device), generator.transform, train=False)
        distances, rows = model.retrieve(prepared, k, exclude)
    return [
        [
            Neighbour(database.studies[row], distance, database.texts[row] if database.texts else "")
            for distance, row in zip(near, where, strict=True)
            if row != NO_ROW
        ]
        for near, where in zip(distances.tolist(), rows.tolist(), strict=True)
    ]
