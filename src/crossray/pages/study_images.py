"""Loads the images of studies for a page from the prepared dataset of the predictions."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.evaluation.predictions import Provenance
from crossray.pages import page

if TYPE_CHECKING:
    from markupsafe import Markup

#: Maximum number of views shown per study.
MOST_VIEWS = 2


class StudyImages:
    """Images by the name of their study.

    Args:
        dataset: dataset with the images.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.synthetic = bool(dataset.info.source.get("synthetic_images"))
        self._dataset = dataset
        self._rows = {study: row for row, study in enumerate(dataset.ids(np.arange(dataset.studies)))}

    @classmethod
    def open(cls, source: Provenance, folder: Dataset | Path | str | None = None) -> "StudyImages":
        """Open a dataset.

        Args:
            source: provenance of the predictions.
            folder: the dataset; by default, the one named in the predictions.

        Raises:
            UserError: the dataset does not exist, or is not the one of the predictions.
        """
        if folder is None and not source.data:
            raise UserError("the predictions name no dataset; give it with --data")
        dataset = Dataset.open(folder if folder is not None else str(source.data))
        if source.data_sha256 and dataset.info.sha256 != source.data_sha256:
            raise UserError(
                f"{dataset.path}: sha256 is {dataset.info.sha256[:12]}, but the predictions were made from "
                f"{source.data_sha256[:12]}; give their dataset"
            )
        return cls(dataset)

    def views(self, study: str) -> list["Markup"]:
        """Markup of the first views of a study; empty if the dataset does not contain it."""
        if study not in self._rows:
            return []
        row = self._rows[study]
        positions = self._dataset.record(row).positions
        made = "synthetic radiograph" if self.synthetic else "radiograph"
        return [
            page.image(self._dataset.image(image), f"{position} {made} of study {study}")
            for image, position in list(zip(self._dataset.views(row), positions, strict=True))[:MOST_VIEWS]
        ]
