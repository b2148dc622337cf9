"""Loads a trained model and generates reports for image files: `crossray.load`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossray.api.arguments import model_name, search_fields, study_paths, view_paths, whole_number
from crossray.api.report import Report
from crossray.confidence.check import InputCheck
from crossray.errors import UserError
from crossray.files.folders import CONFIG, MODEL_FILES, find_model, model_folder
from crossray.generation.files import study_ids
from crossray.generation.generator import Generator

if TYPE_CHECKING:
    from crossray.generation.files import FileStudy
    from crossray.generation.in_memory import WatchText

__all__ = ["Reporter", "Study", "load"]

#: One study as files: a path, the paths of its views, or the folder that contains them.
Study = str | Path | Sequence[str | Path]


class Reporter:
    """A trained model that generates reports for image files.

    Attributes:
        name: folder or hub name that the model was loaded from.
        system: name of its system, such as "rcan".
    """

    def __init__(self, generator: Generator, name: str = "", folder: Path | None = None) -> None:
        """Use `load` instead, or pass the `Generator` of a model that was just trained."""
        self.generator, self.name, self._folder = generator, name, folder
        self.system = generator.model.system

    @property
    def model(self) -> Any:
        """The PyTorch module in eval mode, on its device."""
        return self.generator.model

    def report(self, *views: str | Path) -> Report:
        """Generate the report of one study.

        Args:
            views: PNG, JPEG or DICOM files, or one folder that holds them.

        Raises:
            UserError: a file cannot be read, or there are more views than the model takes.
        """
        return next(self.reports([view_paths(views)]))

    def check(self, *views: str | Path) -> InputCheck:
        """Check whether the images of a study look like those the model was trained on and, if not, why.

        Args:
            views: PNG, JPEG or DICOM files, or one folder that holds them.

        Raises:
            UserError: the model folder has no check (run `crossray calibrate`), or a file cannot be read.
        """
        from crossray.generation.checks import check_study

        return check_study(self.generator, view_paths(views))

    def reports(
        self, studies: Iterable[Study], batch_size: int = 16, *, agreement: bool = False, strict: bool = False
    ) -> Iterator[Report]:
        """Generate the reports of many studies, in order; images are read only when their batch is due.

        Args:
            studies: an iterable; each study is a file, a list of views, or a folder.
            batch_size: number of studies per batch; halved automatically when memory runs out.
            agreement: also sample several reports of each study, unless the decoding already does. Their agreement
                makes the calibrated confidence more accurate, but sampling takes longer.
            strict: raise an error for a study whose images the input check flags.

        Raises:
            UserError: a file cannot be read, a study has more views than the model takes, or `strict` refuses one.
        """
        calibration = self.generator.calibration
        samples = calibration.samples if agreement and calibration is not None else 0
        whole_number("batch_size", batch_size, 1)
        views = study_paths(studies)
        names = study_ids(views)  # of all studies together: names and samples must not depend on the batches
        for first in range(0, len(views), batch_size):
            part = slice(first, first + batch_size)
            for written in self.generator.report_files(
                views[part], batch_size=batch_size, samples=samples, strict=strict, names=names[part]
            ):
                yield Report(written, self.generator)

    def write(
        self,
        studies: Sequence[FileStudy],
        names: Sequence[str],
        *,
        need_attention: bool = False,
        watch: WatchText | None = None,
    ) -> list[Report]:
        """Generate the reports of studies in memory, as one batch.

        Args:
            studies: pixels and positions of their views.
            names: names of the studies.
            need_attention: keep the cross-attention, so that `Report.maps` needs no further computation.
            watch: called after every token with the index of a study and its text so far, before formatting.

        Raises:
            UserError: the model's probabilities are NaN.
        """
        from crossray.generation.in_memory import write_studies

        written = write_studies(self.generator, studies, names, need_attention=need_attention, watch=watch)
        return [Report(one, self.generator) for one in written]

    def card(self) -> str:
        """A model card in Markdown: what the model is, how it was trained, and its validation scores."""
        from crossray.pages.card import model_card

        return model_card(self._model_folder(), self.system)

    def push_to_hub(self, repository: str, *, private: bool = True, token: str | None = None) -> str:
        """Upload the model folder and its card to the Hugging Face hub.

        The folder of a retrieval system contains the identifiers and labels of its training studies, and their reports
        if it stores them; they are uploaded as well.

        Args:
            repository: "user/name"; created if it does not exist.
            private: whether a new repository is private.
            token: access token of the hub; by default the one stored by `hf auth login`.

        Returns:
            URL of the commit.

        Raises:
            UserError: the hub rejects the upload.
        """
        from crossray.api.hub import upload

        return upload(self._model_folder(), self.card(), repository, private=private, token=token)

    def _model_folder(self) -> Path:
        if self._folder is None:
            raise UserError("this model has not been saved; save it to a folder first.")
        return self._folder

    def __repr__(self) -> str:
        return f"Reporter({self.name!r}, system={self.system!r}, device={str(self.generator.device)!r})"


def load(name: str | Path, *, device: str = "auto", decoding: Mapping[str, Any] | None = None) -> Reporter:
    """Load a trained model.

    Args:
        name: a model folder, the folder of a training run (its best model is loaded), or "user/name" on the hub.
        device: "auto" for a GPU if there is one, else the CPU; or "cpu", "cuda", "cuda:1".
        decoding: fields of `crossray.decoding.config.DecodingConfig` to change, such as {"method": "greedy"}.

    Raises:
        UserError: `name` is not a model that generates reports, or the device does not exist.

    Example:
        >>> model = crossray.load("runs/a")  # doctest: +SKIP
        >>> print(model.report("frontal.png"))  # doctest: +SKIP
    """
    folder = model_folder(model_name(name))
    if not (folder / CONFIG).exists():
        remedy = "name a model folder, the folder of a run, or a model on the hub"
        folder = find_model(str(name), "model", remedy, patterns=MODEL_FILES)
    return Reporter(
        Generator.from_pretrained(folder, device=device, decoding=search_fields(decoding)), str(name), folder
    )
