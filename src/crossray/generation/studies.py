"""Reads one study from image files or from a prepared dataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossray.data.batches.batch import Guide, Inputs, guide_of
from crossray.data.batches.loading import Collator
from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.generation.files import read_study, stack_studies, study_ids
from crossray.generation.generator import Generator


@dataclass(frozen=True)
class OneStudy:
    """A study as input of a model.

    Attributes:
        name: name of the study.
        inputs: its views as stored, before the transform, on the model's device.
        reference: the true report; "" if unknown.
        synthetic: whether the images are drawn.
        guide: identifies a training study, so that a system that retrieves training reports does not read its own;
            None for any other study.
    """

    name: str
    inputs: Inputs
    reference: str = ""
    synthetic: bool = False
    guide: Guide | None = None


def file_study(paths: Sequence[Path], generator: Generator) -> OneStudy:
    """A study from image files, one per view, or from a folder of them.

    Raises:
        UserError: a file cannot be read, or there are too many views.
    """
    views = generator.model.config.views
    study = read_study(paths, views, generator.stored)
    return OneStudy(study_ids([paths])[0], stack_studies([study], views).to(generator.device))


def dataset_study(folder: Path, study: str | None, generator: Generator) -> OneStudy:
    """A study of a prepared dataset by its identifier; if None, the first test study.

    Raises:
        UserError: there is no such dataset or study.
    """
    dataset = Dataset.open(folder)
    row = int(dataset.rows("test")[0]) if study is None else _row(dataset, study)
    inputs = Collator(dataset, None, views=generator.model.config.views).inputs(np.array([row]))
    return OneStudy(
        name=dataset.ids([row])[0],
        inputs=inputs.to(generator.device),
        reference=dataset.reports([row], generator.section)[0],
        synthetic=bool(dataset.info.source.get("synthetic_images")),
        guide=guide_of(dataset.ids([row])) if dataset.record(row).split == "train" else None,
    )


def _row(dataset: Dataset, study: str) -> int:
    try:
        return dataset.ids(np.arange(dataset.studies)).index(study)
    except ValueError:
        raise UserError(
            f"--study {study}: {dataset.path} has no such study; take an identifier from its studies.parquet or from a "
            "predictions file."
        ) from None
