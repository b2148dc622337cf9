"""The images of studies on a page, from the prepared dataset that the predictions come from."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.evaluation.predictions import Provenance
from crossray.pages import page

if TYPE_CHECKING:
    from markupsafe import Markup

#: How many views of a study are shown.
MOST_VIEWS = 2


class StudyImages:
    """Images by the name of their study.

    Args:
        dataset: where they are.
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
            folder: the dataset; the one that the predictions name when None.

        Raises:
            UserError: there is none, or it is not the one of the predictions.
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
        """Markup of the first views of a study; empty when the dataset does not have it."""
        if study not in self._rows:
            return []
        row = self._rows[study]
        positions = self._dataset.record(row).positions
        made = "synthetic radiograph" if self.synthetic else "radiograph"
        return [
            page.image(self._dataset.image(image), f"{position} {made} of study {study}")
            for image, position in list(zip(self._dataset.views(row), positions, strict=True))[:MOST_VIEWS]
        ]
