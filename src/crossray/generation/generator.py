"""Writes the reports of image files or of a prepared dataset with a trained model, as a predictions file."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import crossray
from crossray.confidence.calibration import Calibration
from crossray.confidence.check import InputCheck, InputChecker
from crossray.confidence.folder import load_check
from crossray.data.batches.batch import Guide, Inputs, guide_of
from crossray.data.batches.transform import ImageTransform, transform_inputs
from crossray.data.store import Dataset
from crossray.decoding.config import DecodingConfig
from crossray.decoding.reports import WrittenReport, special_ids, study_seed, with_samples, write_reports
from crossray.decoding.settings import GenerationSettings
from crossray.errors import UserError, choose, counted
from crossray.evaluation.predictions import Prediction, Provenance, write_predictions
from crossray.evaluation.utilities import utility_of
from crossray.files.digest import sha256
from crossray.files.folders import model_folder
from crossray.files.names import printable
from crossray.generation.checks import checks_of, heed, no_check
from crossray.generation.files import read_study, stack_studies, study_ids
from crossray.generation.split import SplitReports
from crossray.models.base import ReportModel, config_from_dict
from crossray.text.tokenizer import Tokenizer

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class StudyReport:
    """The report of one study from files.

    Attributes:
        id: name of the study, derived from its files.
        report: the generated report.
        inputs: the study's views as stored, before the transform, on the model's device.
        paths: the files of its views, in the order in which the model used them.
        seconds: time to generate the report; in a batch, the time of the batch divided by its studies.
        check: result of the input check; None if the model folder has no check.
    """

    id: str
    report: WrittenReport
    inputs: Inputs
    paths: tuple[Path, ...]
    seconds: float
    check: InputCheck | None = None


class Generator:
    """A model with everything needed to write reports.

    Attributes:
        model: the system, in eval mode on its device.
        decoding: the search.
        name: folder of the model, as recorded in predictions files.
        section: section of the report that the model learned to write.
        min_count: threshold of its vocabulary; None when unknown.
        fingerprint: SHA-256 of its weights; "" if they were not loaded from a folder.
        calibration: calibration of its confidence; None if its folder has none, or if it was learned with other
            decoding settings.
        checker: check of its inputs; None if its folder has none.
        stored: short side of the images in its training dataset, in pixels, to which files are first resized.
        seconds: time that it has spent on reports so far, without loading the model.
    """

    def __init__(
        self,
        model: ReportModel,
        decoding: DecodingConfig | None = None,
        *,
        device: str = "auto",
        name: str = "",
        section: str = "findings",
        min_count: int | None = None,
        fingerprint: str = "",
        calibration: Calibration | None = None,
        checker: InputChecker | None = None,
    ) -> None:
        """Prepare a model for generation.

        Args:
            model: model with tokenizer and image transform.
            decoding: decoding settings; by default, beam search with 3 hypotheses up to the model's maximum length.
            device: "auto" for a GPU if there is one, else the CPU; or "cpu", "cuda", "cuda:1".
            name: name in predictions files.
            section: section of the report that it writes.
            min_count: threshold of its vocabulary, if known.
            fingerprint: SHA-256 of its weights, if known.
            calibration: calibration of its confidence, if there is one.
            checker: check of its inputs, if there is one.

        Raises:
            UserError: the model lacks tokenizer or transform, the device does not exist, or a forbidden word is not in
                the vocabulary.
        """
        self.decoding = decoding or DecodingConfig(max_length=model.config.max_length)
        self.name, self.section, self.min_count, self.fingerprint = name, section, min_count, fingerprint
        self.calibration = calibration if calibration is not None and calibration.fits(self.decoding) else None
        self.checker = checker
        self.tokenizer: Tokenizer = _present(model.tokenizer, name, "tokenizer.json")
        self.transform: ImageTransform = _present(model.transform, name, "preprocess.json")
        special_ids(self.tokenizer, self.decoding)
        # a folder of an earlier version does not record the size of its training images
        self.stored = model.stored or self.transform.resize or self.transform.size
        self.seconds = 0.0
        self.device = _device(device)
        self.model = model.to(self.device).eval()

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        device: str = "auto",
        decoding: DecodingConfig | Mapping[str, Any] | None = None,
        *,
        use_confidence: bool = True,
    ) -> "Generator":
        """Load a model folder, or the best model of a training run's folder.

        Args:
            folder: folder from `ReportModel.save_pretrained` or `crossray train`.
            device: "auto" for a GPU if there is one, else the CPU; or "cpu", "cuda", "cuda:1".
            decoding: decoding settings, or only the fields to change; the others come from the model's
                `generation.json`.
            use_confidence: load the calibration and the input check, if the folder has them.

        Raises:
            UserError: the folder has no model that writes reports, the device does not exist, or the calibration or the
                input check is damaged or belongs to other weights.
        """
        folder = model_folder(folder)
        model = ReportModel.from_pretrained(folder)
        settings = GenerationSettings.load(folder, model.config.max_length)
        fingerprint = sha256(folder / "model.safetensors")
        return cls(
            model,
            settings.decoding if decoding is None else _changed(settings.decoding, decoding),
            device=device,
            name=str(folder),
            section=settings.section,
            min_count=settings.min_count,
            fingerprint=fingerprint,
            calibration=Calibration.load(folder, fingerprint) if use_confidence else None,
            checker=load_check(folder, fingerprint) if use_confidence else None,
        )

    def generate_files(
        self,
        studies: Sequence[Sequence[Path]],
        out: Path | str,
        *,
        batch_size: int = 64,
        strict: bool = False,
        names: Sequence[str] | None = None,
        positions: Sequence[Sequence[str]] | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Write the reports of radiographs in PNG, JPEG or DICOM files.

        Every file is read before the model runs; a view takes about 80 kB of memory.

        Args:
            studies: the views of each study, or its folder.
            out: predictions file to write; a failed write leaves no partial file.
            batch_size: number of studies per batch; halved when memory runs out.
            strict: see `report_files`.
            names: see `report_files`.
            positions: see `report_files`.
            progress: called with the number of finished and of all studies.

        Returns:
            Number of reports.

        Raises:
            UserError: a file cannot be read, a study has no view or more than the model takes, or `strict` refuses one.
        """
        reports = self.report_files(
            studies, batch_size=batch_size, strict=strict, names=names, positions=positions, progress=progress
        )

        def predictions() -> Iterator[Prediction]:
            for written in reports:
                images = tuple(map(printable, written.paths))
                report = written.report
                yield Prediction(written.id, report.text, {}, images, report.log_probability, written.seconds)

        return write_predictions(out, self.provenance(), predictions())

    def report_files(
        self,
        studies: Sequence[Sequence[Path]],
        *,
        batch_size: int = 16,
        samples: int = 0,
        strict: bool = False,
        names: Sequence[str] | None = None,
        positions: Sequence[Sequence[str]] | None = None,
        progress: Progress | None = None,
    ) -> "Iterator[StudyReport]":
        """The reports of radiographs in files, one after the other; every file is read before the first.

        Args:
            studies: see `generate_files`, as for the other arguments.
            batch_size: number of studies per batch.
            samples: number of additional reports to sample for each study, unless the decoding already samples.
            strict: raise an error for a study whose images the input check flags, instead of logging a warning.
            names: names of the studies, which determine their random numbers; if None, they are derived from the file
                names.
            positions: positions of each study's files; an empty one, and those of DICOM files by default, are read
                from the headers.
            progress: called with the number of finished and of all studies.

        Raises:
            UserError: as for `generate_files`, at the call; for `strict`, at the study, or if there is no input check.
        """
        if strict and self.checker is None:
            raise no_check(self.name)
        stated = positions or [()] * len(studies)
        files = [
            read_study(views, self.model.config.views, self.stored, given)
            for views, given in zip(studies, stated, strict=True)
        ]
        if not files:
            raise UserError("images: none are given; name at least one image file.")
        names = study_ids(studies) if names is None else names
        if len(names) != len(files):
            raise UserError(f"names: {len(names)} for {counted(len(files), 'study')}; give one for each.")

        def inputs_of(rows: NDArray[np.int64]) -> Inputs:
            return stack_studies([files[row] for row in rows.tolist()], self.model.config.views)

        def reports() -> Iterator[StudyReport]:
            for row, written, seconds in self.write(names, inputs_of, batch_size, progress, samples):
                heed(names[row], written.check, strict=strict)
                one = inputs_of(np.array([row])).to(self.device)
                yield StudyReport(names[row], written.report, one, files[row].paths, seconds, written.check)

        return reports()

    def generate_dataset(
        self,
        dataset: Dataset | Path | str,
        split: str,
        out: Path | str,
        *,
        batch_size: int = 64,
        shuffle_images: int | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Write the reports of one split of a prepared dataset, with the references of both protocols.

        Args:
            dataset: the dataset or its folder; features that training cached are used if they match the model.
            split: "train", "val", "test", or "all" for a model that was trained on another dataset.
            out: predictions file to write; a failed write leaves no partial file.
            batch_size: number of studies per batch; halved when memory runs out.
            shuffle_images: seed of a random order in which every study gets the views of another one, as recorded in
                the header. If a system uses the image, its reports become worse. None for no shuffling.
            progress: called with the number of finished and of all studies.

        Returns:
            Number of reports.

        Raises:
            UserError: there is no such dataset or split, or there is only a single study to shuffle.
        """
        work = SplitReports(self, dataset, split, shuffle_images)
        return write_predictions(
            out, work.provenance(), work.predictions(0, work.studies, batch_size=batch_size, progress=progress)
        )

    def write(
        self,
        names: Sequence[str],
        inputs_of: Callable[[NDArray[np.int64]], Inputs],
        batch_size: int,
        progress: Progress | None,
        samples: int = 0,
        known: Sequence[str] | None = None,
    ) -> Iterator[tuple[int, "Written", float]]:
        """Write the reports of n studies in batches, in order.

        Args:
            names: (n,) names of the studies, which seed their random numbers.
            inputs_of: the inputs of the studies at some indices.
            batch_size: number of studies per batch; halved when memory runs out.
            progress: called with the number of finished and of all studies.
            samples: number of reports to sample for each study in addition.
            known: (n,) the training studies whose images these are, so that a system that retrieves training reports
                does not read their own; None if they are new.

        Yields:
            Index, result and seconds of a study: those of its batch, divided by its studies, with reading the images of
            a dataset.

        Raises:
            UserError: there is not enough memory for even one study.
        """
        check_batch_size(batch_size)
        first = 0
        while first < len(names):
            rows = np.arange(first, min(first + batch_size, len(names)))
            written: list[Written] | None = None
            started = time.perf_counter()
            try:
                guide = None if known is None else guide_of([known[row] for row in rows.tolist()])
                written = self._write_batch([names[row] for row in rows.tolist()], inputs_of(rows), samples, guide)
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error):
                    raise
                if len(rows) == 1:
                    raise UserError(
                        f"study '{names[first]}': there is not enough memory for even one study; use another device."
                    ) from None
                batch_size = len(rows) // 2
            if written is None:
                # only here have the error and all tensors of the failed batch been released
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            taken = time.perf_counter() - started
            self.seconds += taken
            seconds = taken / len(rows)
            for row, report in zip(rows.tolist(), written, strict=True):
                yield row, report, seconds
            first += len(rows)
            if progress is not None:
                progress(first, len(names))

    def _write_batch(
        self, names: Sequence[str], inputs: Inputs, samples: int, guide: Guide | None = None
    ) -> "list[Written]":
        prepared = transform_inputs(inputs.to(self.device), self.transform, train=False)
        seeds = [study_seed(self.decoding.seed, name) for name in names]
        with torch.inference_mode():
            encoded = self.model.encode(prepared, guide)
        utility = utility_of(self.decoding)
        reports = write_reports(self.model, prepared, self.decoding, seeds=seeds, encoded=encoded, utility=utility)
        if samples:
            reports = with_samples(self.model, encoded, self.decoding, samples, seeds, reports)
        checks = checks_of(self.checker, encoded.pooled, inputs)
        return [Written(report, check) for report, check in zip(reports, checks, strict=True)]

    def provenance(self) -> Provenance:
        """The header of a predictions file, as far as the model determines it."""
        return Provenance(
            model=self.name,
            system=self.model.system,
            section=self.section,
            cleaner=self.tokenizer.cleaner,
            max_length=self.model.config.max_length,
            min_count=self.min_count,
            tokenizer=self.tokenizer.fingerprint(),
            views=str(self.model.config.views),
            decoding=asdict(self.decoding),
            versions={
                "crossray": crossray.__version__,
                "torch": str(torch.__version__),
                "weights_sha256": self.fingerprint,
            },
        )


class Written(NamedTuple):
    """The result for one study of a batch."""

    report: WrittenReport
    check: InputCheck | None


def check_batch_size(batch_size: int) -> None:
    """Check the number of studies per batch.

    Raises:
        UserError: it is not positive.
    """
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; it must be at least 1.")


def _present(part: Any, folder: str, file: str) -> Any:
    if part is None:
        raise UserError(f"{folder or 'model'}: {file} is missing; copy the whole model folder.")
    return part


def _device(name: str) -> torch.device:
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"device '{name[:40]}': PyTorch cannot use it; give auto or cpu.") from None
    return device


def _changed(decoding: DecodingConfig, fields: DecodingConfig | Mapping[str, Any]) -> DecodingConfig:
    if isinstance(fields, DecodingConfig):
        return fields
    known = asdict(decoding)
    for name in fields:
        if name not in known:
            raise UserError(f"decoding.{name}: there is no such field; {choose(name, known)}.")
    return config_from_dict(DecodingConfig, {**known, **fields}, "decoding")


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)
