"""CrossRay as a library: load a model, write reports, look at what they rest on, score them.

import crossray

model = crossray.load("runs/a")
report = model.report("frontal.png", "lateral.dcm")
print(report)
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crossray.confidence.calibration import Unit
from crossray.confidence.check import InputCheck
from crossray.confidence.statements import Statement, observations, sentences
from crossray.errors import UserError
from crossray.evaluation.results import Evaluation
from crossray.files.folders import CONFIG, find_model, model_folder
from crossray.generation.generator import Generator, StudyReport
from crossray.text.cleaning import CLEANERS, clean
from crossray.text.display import readable
from crossray.text.observations import OBSERVATIONS, Evidence, label_report

if TYPE_CHECKING:
    import pandas

    from crossray.analysis.attention import ReportAttention
    from crossray.generation.files import FileStudy
    from crossray.generation.in_memory import WatchText
    from crossray.generation.index import Neighbour

__all__ = ["InputCheck", "Report", "Reporter", "Scores", "Sentence", "evaluate", "load"]

#: One study as files: a path, or the paths of its views, or the folder that holds them.
Study = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Sentence:
    """A sentence of a generated report.

    Attributes:
        text: as a person reads it.
        confidence: 0 to 1. Where `calibrated`, the probability that a radiologist's report agrees with every
            observation that the sentence states. Otherwise the geometric mean of the probabilities that the model gave
            to its tokens: compare the sentences of one model by it, not models.
        calibrated: whether the model's folder has a calibration of its search (`crossray calibrate`) and the sentence
            states an observation.
    """

    text: str
    confidence: float
    calibrated: bool = False

    def __str__(self) -> str:
        """The text."""
        return self.text


class Report:
    """The report that a model wrote of one study.

    Attributes:
        id: name of the study, from its files.
        text: the report as a person reads it.
        raw: the report in the tokenizer's form, which is what scores are computed on.
        sentences: its sentences with their confidence.
        calibrated: whether there is a calibration for the confidence of its sentences and observations.
        check: what the input check says of the images; None where the model's folder has no check.
        confidence: geometric mean of the probabilities of all its tokens, 0 to 1, not calibrated.
    """

    def __init__(self, written: StudyReport, generator: Generator) -> None:
        """Made by `Reporter`."""
        self._written, self._generator = written, generator
        self.id, self.raw, self.text = written.id, written.report.text, readable(written.report.text)
        self.confidence = math.exp(written.report.log_probability / max(len(written.report.token_log_probabilities), 1))
        self.calibrated, self.check = generator.calibration is not None, written.check
        self.sentences = tuple(
            Sentence(readable(one.text), one.probability if value is None else value, value is not None)
            for one, value in self._confidence("sentences", sentences(written.report, generator.tokenizer))
        )

    def _confidence(self, unit: Unit, statements: Sequence[Statement]) -> Iterator[tuple[Statement, float | None]]:
        """Each statement with its calibrated confidence; None without."""
        calibration = self._generator.calibration
        values: list[float | None] = [None] * len(statements)
        if calibration is not None:
            values = calibration.confidence(unit, statements, self._written.report.samples)
        return zip(statements, values, strict=True)

    @cached_property
    def observations(self) -> dict[str, str]:
        """Observations that the report states, by the embedded rules: name to positive, negative or uncertain."""
        named = zip(OBSERVATIONS, label_report(self.raw).statuses, strict=True)
        return {name: status for name, status in named if status != "blank"}

    @cached_property
    def observation_confidence(self) -> dict[str, float]:
        """Confidence of each of `observations`: where `calibrated`, the probability that a radiologist's report agrees.

        Otherwise the geometric mean of the probabilities of the tokens that the observation rests on.
        """
        stated = observations(self._written.report, self._generator.tokenizer)
        return {
            one.text: one.probability if value is None else value
            for one, value in self._confidence("observations", stated)
        }

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """The places in `raw` that the observations rest on."""
        return label_report(self.raw).evidence

    @cached_property
    def attention(self) -> Attention:
        """Where the model looked for each word; it shows itself in a notebook.

        Raises:
            UserError: the system does not tell where in the image it looks.
        """
        return Attention(self._written, self._generator)

    @cached_property
    def maps(self) -> ReportAttention:
        """The numbers behind `attention`.

        Raises:
            UserError: the system does not tell where in the image it looks.
        """
        if self._written.report.cross_attention is None:
            return self.attention.maps
        from crossray.analysis.attention import lay_out

        return lay_out(self._generator.model, [self._written.report], self._written.inputs)[0]

    def similar(self, k: int = 3) -> list[Neighbour]:
        """The training studies that lie nearest, with their reports where the model's folder keeps them.

        Returns:
            At most `k`, nearest first; none where the system does not retrieve.
        """
        from crossray.generation.index import nearest
        from crossray.models.retrieval.retrieving import RetrievingModel

        if not isinstance(self._generator.model, RetrievingModel):
            return []
        return nearest(self._generator, self._generator.model, self._written.inputs, k)[0]

    def __str__(self) -> str:
        """The text."""
        return self.text

    def __repr__(self) -> str:
        return f"Report({self.id!r}, {self.text!r})"


class Attention:
    """The cross-attention behind a report.

    Attributes:
        maps: words, and for each a map over every view; see `crossray.analysis.attention.ReportAttention`.
    """

    def __init__(self, written: StudyReport, generator: Generator) -> None:
        """Made by `Report.attention`."""
        from crossray.pages.explain import explain

        self._name = written.id
        self._explanation = explain(generator.model, generator.decoding, written.inputs, generator.model.system)

    @property
    def maps(self) -> ReportAttention:
        """The numbers."""
        return self._explanation.attention

    def html(self) -> str:
        """A page to point at the words of the report; it loads nothing."""
        from crossray.pages.explain import build_explanation

        return build_explanation(self._name, [self._explanation])

    def save(self, path: str | Path) -> None:
        """Write the page to an HTML file."""
        from crossray.files.write import write_whole

        write_whole(path, self.html())

    def _repr_html_(self) -> str:
        from markupsafe import Markup

        frame = Markup('<iframe style="width:100%;height:640px;border:0" sandbox="allow-scripts" srcdoc="{}"></iframe>')
        return frame.format(self.html())


class Reporter:
    """A trained model that writes reports of image files.

    Attributes:
        name: the folder or hub name it was loaded from.
        system: name of its system, such as "rcan".
    """

    def __init__(self, generator: Generator, name: str = "", folder: Path | None = None) -> None:
        """Made by `load`; or from a `Generator`, for a model that was just trained."""
        self.generator, self.name, self._folder = generator, name, folder
        self.system = generator.model.system

    @property
    def model(self) -> Any:
        """The PyTorch module, in eval mode on its device."""
        return self.generator.model

    def report(self, *views: str | Path) -> Report:
        """Write the report of one study.

        Args:
            views: PNG, JPEG or DICOM files, or one folder that holds them.

        Raises:
            UserError: a file cannot be read, or there are more views than the model takes.
        """
        return next(self.reports([views]))

    def check(self, *views: str | Path) -> InputCheck:
        """Whether the images of a study look like those that the model was trained on, and if not, why.

        Args:
            views: PNG, JPEG or DICOM files, or one folder that holds them.

        Raises:
            UserError: the model's folder has no check (`crossray calibrate` makes it), or a file cannot be read.
        """
        from crossray.generation.checks import check_study

        return check_study(self.generator, _views(views))

    def reports(
        self, studies: Iterable[Study], batch_size: int = 16, *, agreement: bool = False, strict: bool = False
    ) -> Iterator[Report]:
        """Write the reports of many studies, one after the other, in their order; files are read as they are needed.

        Args:
            studies: each a file, several views, or a folder.
            batch_size: studies per batch; halved automatically when memory runs out.
            agreement: draw more reports of each study, where the search draws none: how many of them say the same makes
                calibrated confidence better, and writing slower.
            strict: refuse a study whose images the input check flags.

        Raises:
            UserError: a file cannot be read, a study has more views than the model takes, or `strict` refuses one.
        """
        calibration = self.generator.calibration
        samples = calibration.samples if agreement and calibration is not None else 0
        if batch_size < 1:
            raise UserError(f"batch_size {batch_size}: give 1 or more.")
        given = iter(studies)
        while chunk := [_views(study) for study in islice(given, batch_size)]:
            for written in self.generator.report_files(chunk, batch_size=batch_size, samples=samples, strict=strict):
                yield Report(written, self.generator)

    def write(
        self,
        studies: Sequence[FileStudy],
        names: Sequence[str],
        *,
        need_attention: bool = False,
        watch: WatchText | None = None,
    ) -> list[Report]:
        """Write the reports of studies that are in memory, as one batch.

        Args:
            studies: pixels and positions of their views.
            names: of the studies.
            need_attention: keep what `Report.maps` is made of, so that it costs nothing more.
            watch: called with a study's place and its text so far, in the tokenizer's form, after every token.

        Raises:
            UserError: the model has diverged.
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

        Args:
            repository: "user/name"; it is made when it does not exist.
            private: of a new repository.
            token: of the hub; by default the one that `hf auth login` stored.

        Returns:
            Address of the commit.

        Raises:
            UserError: the hub refuses.
        """
        from huggingface_hub import HfApi

        folder = self._model_folder()
        api = HfApi(token=token)
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            with tempfile.TemporaryDirectory() as name:
                card = Path(name) / "README.md"
                card.write_text(self.card(), encoding="utf-8")
                api.upload_file(path_or_fileobj=str(card), path_in_repo="README.md", repo_id=repository)
            return str(api.upload_folder(folder_path=str(folder), repo_id=repository))
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{repository}: cannot be uploaded ({reason}); see `hf auth login`.") from error

    def _model_folder(self) -> Path:
        if self._folder is None:
            raise UserError("this model comes from no folder; save it first.")
        return self._folder

    def __repr__(self) -> str:
        return f"Reporter({self.name!r}, system={self.system!r}, device={str(self.generator.device)!r})"


def load(name: str | Path, *, device: str = "auto", decoding: Mapping[str, Any] | None = None) -> Reporter:
    """Load a trained model.

    Args:
        name: a model folder, the folder of a training run (its best model is taken), or "user/name" on the hub.
        device: "auto" for a GPU where there is one, "cpu", "cuda" or "cuda:1".
        decoding: fields of `crossray.decoding.config.DecodingConfig` to change, such as {"method": "greedy"}.

    Raises:
        UserError: there is no model that writes reports, or the device does not exist.

    Example:
        >>> model = crossray.load("runs/a")  # doctest: +SKIP
        >>> print(model.report("frontal.png"))  # doctest: +SKIP
    """
    folder = model_folder(name)
    if not (folder / CONFIG).exists():
        remedy = "name a model folder, the folder of a run, or a model on the hub"
        folder = find_model(str(name), "model", remedy, patterns=("*.json", "*.safetensors"))
    return Reporter(Generator.from_pretrained(folder, device=device, decoding=decoding), str(name), folder)


@dataclass(frozen=True)
class Scores(Mapping[str, float]):
    """Scores of some reports: a mapping from metric to value, such as `scores["cider"]`.

    Attributes:
        evaluation: everything that `crossray evaluate` computes: intervals, shuffle check, classes, alarms.
    """

    evaluation: Evaluation
    _values: dict[str, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Take the scores of the last protocol, in which nothing is cut."""
        result = list(self.evaluation.protocols.values())[-1].result
        object.__setattr__(self, "_values", {name: score.value for name, score in result.scores.items()})

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def alarms(self) -> tuple[str, ...]:
        """What is wrong with the reports, a sentence each."""
        return tuple(alarm.sentence for part in self.evaluation.protocols.values() for alarm in part.alarms)

    def table(self) -> str:
        """The tables of `crossray evaluate` in Markdown."""
        from crossray.pages.printing import markdown_page

        return markdown_page(self.evaluation)

    def rows(self) -> list[dict[str, Any]]:
        """A flat mapping for each protocol and system: scores, ends of their intervals, variety."""
        from crossray.pages.tables import rows

        return [
            {"protocol": name, **row}
            for name, part in self.evaluation.protocols.items()
            for row in rows([part.result, *part.baselines])
        ]

    def to_pandas(self) -> pandas.DataFrame:
        """`rows` as a table of pandas.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError:
            raise UserError("to_pandas needs pandas; pip install pandas, or use rows().") from None
        return pandas.DataFrame(self.rows())

    def _repr_markdown_(self) -> str:
        return self.table()


def evaluate(
    predictions: str | Path | Sequence[str] | Mapping[str, str],
    references: Sequence[str] | Mapping[str, str] | None = None,
    *,
    data: str | Path | None = None,
    labeler: str = "rules",
    meteor: Literal["auto", "yes", "no"] = "auto",
    cleaner: str = "legacy",
    resamples: int = 1000,
    seed: int = 0,
) -> Scores:
    """Score generated reports against the true ones.

    Args:
        predictions: reports in a list; or by study; or a predictions file of `crossray generate`.
        references: the true reports, in the same order or by the same studies; a file has its own.
        data: prepared dataset for trivial baselines, where predictions are a file.
        labeler: who reads the clinical observations: "rules", or a folder with converted CheXbert weights.
        meteor: METEOR 1.5 needs Java and pycocoevalcap: "auto" computes it when both are there.
        cleaner: how both sides are cleaned, where they are texts: legacy (R2Gen's), legacy_mimic, fixed or none.
        resamples: bootstrap resamples behind every interval.
        seed: of the resampling.

    Raises:
        UserError: the numbers of reports differ, a study is missing, or the file is wrong.

    Example:
        >>> scores = evaluate(["lungs are clear ."], ["the lungs are clear ."], meteor="no", resamples=10)
        >>> round(scores["bleu1"], 3)
        0.717
    """
    from crossray.evaluation.evaluate import evaluate as score
    from crossray.evaluation.predictions import Prediction, PredictionFile, Provenance
    from crossray.evaluation.predictions.exchange import open_predictions

    if isinstance(predictions, str | Path):
        if references is not None:
            raise UserError("references: a predictions file has its own; give texts, or the file alone.")
        file = open_predictions(Path(predictions), dataset=None if data is None else Path(data))
    else:
        if cleaner not in CLEANERS:
            raise UserError(f"cleaner '{cleaner}' does not exist; choose one of {', '.join(CLEANERS)}.")
        rows = tuple(
            Prediction(study, clean(text, cleaner), {"full": clean(reference, cleaner)})
            for study, text, reference in _paired(predictions, references)
        )
        file = PredictionFile(Provenance(cleaner=cleaner), rows)
    return Scores(score(file, dataset=data, meteor=meteor, labeler=labeler, resamples=resamples, seed=seed))


def _paired(
    predictions: Sequence[str] | Mapping[str, str], references: Sequence[str] | Mapping[str, str] | None
) -> Iterator[tuple[str, str, str]]:
    if references is None or isinstance(references, str):
        raise UserError("references: give the true reports, one for each prediction.")
    if isinstance(predictions, Mapping) != isinstance(references, Mapping):
        raise UserError("references: give both sides as lists, or both by study.")
    ours = predictions if isinstance(predictions, Mapping) else {str(i): text for i, text in enumerate(predictions)}
    true = references if isinstance(references, Mapping) else {str(i): text for i, text in enumerate(references)}
    if ours.keys() != true.keys():
        raise UserError(
            f"references: {len(true)} of them, but {len(ours)} predictions of other studies; give one each."
        )
    for study, text in ours.items():
        yield study, text, true[study]


def _views(study: Study) -> list[Path]:
    return [Path(study)] if isinstance(study, str | Path) else [Path(view) for view in study]
