"""A generated report as an object: its text, its sentences with their confidence, and the evidence behind it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from crossray.confidence.calibration import Unit
from crossray.confidence.statements import Statement, observations, sentences
from crossray.generation.generator import Generator, StudyReport
from crossray.text.display import readable
from crossray.text.observations import OBSERVATIONS, Evidence, label_report

if TYPE_CHECKING:
    from crossray.analysis.attention import ReportAttention
    from crossray.generation.index import Neighbour

__all__ = ["Attention", "Report", "Sentence"]


@dataclass(frozen=True)
class Sentence:
    """A sentence of a generated report.

    Attributes:
        text: text of the sentence, formatted for reading.
        confidence: value from 0 to 1. If `calibrated`, the probability that a radiologist's report agrees with every
            observation in the sentence. Otherwise the geometric mean of the probabilities of its tokens, which is
            comparable between sentences of one model but not between models.
        calibrated: whether the model folder has a calibration for its decoding (`crossray calibrate`) and the sentence
            states an observation.
    """

    text: str
    confidence: float
    calibrated: bool = False

    def __str__(self) -> str:
        """The text."""
        return self.text


class Report:
    """The report that a model generated for one study.

    Attributes:
        id: name of the study, derived from its files.
        text: the report, formatted for reading.
        raw: the report as the tokenizer decodes it, before formatting; scores are computed on this text.
        sentences: its sentences with their confidence.
        calibrated: whether the confidence of sentences and observations is calibrated.
        check: result of the input check; None if the model folder has no check.
        confidence: geometric mean of the probabilities of all tokens, from 0 to 1; never calibrated.
    """

    def __init__(self, written: StudyReport, generator: Generator) -> None:
        """Use `Reporter.report` instead."""
        self._written, self._generator = written, generator
        self.id, self.raw, self.text = written.id, written.report.text, readable(written.report.text)
        self.confidence = math.exp(written.report.log_probability / max(len(written.report.token_log_probabilities), 1))
        self.calibrated, self.check = generator.calibration is not None, written.check
        self.sentences = tuple(
            Sentence(readable(one.text), one.probability if value is None else value, value is not None)
            for one, value in self._confidence("sentences", sentences(written.report, generator.tokenizer))
        )

    def _confidence(self, unit: Unit, statements: Sequence[Statement]) -> Iterator[tuple[Statement, float | None]]:
        """Pair each statement with its calibrated confidence; None without a calibration."""
        calibration = self._generator.calibration
        values: list[float | None] = [None] * len(statements)
        if calibration is not None:
            values = calibration.confidence(unit, statements, self._written.report.samples)
        return zip(statements, values, strict=True)

    @cached_property
    def observations(self) -> dict[str, str]:
        """Status of each observation that the rules find in the report: positive, negative or uncertain."""
        named = zip(OBSERVATIONS, label_report(self.raw).statuses, strict=True)
        return {name: status for name, status in named if status != "blank"}

    @cached_property
    def observation_confidence(self) -> dict[str, float]:
        """Confidence of each of `observations`, from 0 to 1.

        If `calibrated`, the probability that a radiologist's report agrees; otherwise the geometric mean of
        the probabilities of the tokens that state the observation.
        """
        stated = observations(self._written.report, self._generator.tokenizer)
        return {
            one.text: one.probability if value is None else value
            for one, value in self._confidence("observations", stated)
        }

    @property
    def evidence(self) -> tuple[Evidence, ...]:
        """Passages of `raw` that state the observations."""
        return label_report(self.raw).evidence

    @cached_property
    def attention(self) -> Attention:
        """Where the model looked for each word, as a page that a notebook displays.

        Raises:
            UserError: the system has no attention over the image.
        """
        return Attention(self._written, self._generator)

    @cached_property
    def maps(self) -> ReportAttention:
        """The attention weights behind `attention`.

        Raises:
            UserError: the system has no attention over the image.
        """
        if self._written.report.cross_attention is None:
            return self.attention.maps
        from crossray.analysis.attention import lay_out

        return lay_out(self._generator.model, [self._written.report], self._written.inputs)[0]

    def similar(self, k: int = 3) -> list[Neighbour]:
        """The most similar training studies, with their reports if the model folder contains them.

        Returns:
            At most `k` studies, most similar first; an empty list if the system does not retrieve reports.
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
    """The cross-attention of a report.

    Attributes:
        maps: for each word, a map over every view; see `crossray.analysis.attention.ReportAttention`.
    """

    def __init__(self, written: StudyReport, generator: Generator) -> None:
        """Use `Report.attention` instead."""
        from crossray.pages.explain import explain

        self._name = written.id
        model = generator.model
        self._explanation = explain(model, generator.decoding, written.inputs, written.id, model.system)

    @property
    def maps(self) -> ReportAttention:
        """The attention weights; see `crossray.analysis.attention.ReportAttention`."""
        return self._explanation.attention

    def html(self) -> str:
        """Return a self-contained interactive HTML page; pointing at a word shows its map."""
        from crossray.pages.explain import build_explanation

        return build_explanation(self._name, [self._explanation])

    def save(self, path: str | Path) -> None:
        """Save the page as an HTML file."""
        from crossray.files.write import write_whole

        write_whole(path, self.html())

    def _repr_html_(self) -> str:
        from markupsafe import Markup

        frame = Markup('<iframe style="width:100%;height:740px;border:0" sandbox="allow-scripts" srcdoc="{}"></iframe>')
        return frame.format(self.html())
