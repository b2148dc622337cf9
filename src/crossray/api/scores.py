"""Scores generated reports: `crossray.evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from crossray.api.arguments import texts, whole_number
from crossray.errors import UserError, choose, counted
from crossray.evaluation.results import Evaluation
from crossray.text.cleaning import CLEANERS, clean

if TYPE_CHECKING:
    import pandas

__all__ = ["Scores", "evaluate"]

_Meteor = Literal["auto", "yes", "no"]


@dataclass(frozen=True)
class Scores(Mapping[str, float]):
    """Scores of generated reports: a mapping from metric to value, such as `scores["cider"]`.

    Attributes:
        evaluation: the full result of `crossray evaluate`: intervals, shuffle check, classes, alarms.
    """

    evaluation: Evaluation
    _values: dict[str, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Select the scores of the last protocol, whose references are not truncated."""
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
        """Warnings about the reports, one sentence each."""
        return tuple(alarm.sentence for part in self.evaluation.protocols.values() for alarm in part.alarms)

    def table(self) -> str:
        """Return the tables of `crossray evaluate` in Markdown."""
        from crossray.pages.printing import markdown_page

        return markdown_page(self.evaluation)

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat mapping per protocol and system: scores, bounds of their intervals, and variety."""
        from crossray.pages.tables import rows

        return [
            {"protocol": name, **row}
            for name, part in self.evaluation.protocols.items()
            for row in rows([part.result, *part.baselines])
        ]

    def to_pandas(self) -> pandas.DataFrame:
        """Return `rows` as a pandas DataFrame.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError:
            raise UserError("to_pandas() needs pandas; run `pip install pandas`, or use rows().") from None
        return pandas.DataFrame(self.rows())

    def _repr_markdown_(self) -> str:
        return self.table()


def evaluate(
    predictions: str | Path | Sequence[str] | Mapping[str, str],
    references: Sequence[str] | Mapping[str, str] | None = None,
    *,
    data: str | Path | None = None,
    labeler: str = "rules",
    meteor: _Meteor = "auto",
    cleaner: str = "legacy",
    resamples: int = 1000,
    seed: int = 0,
) -> Scores:
    """Score generated reports against the true ones.

    Args:
        predictions: a list of reports, a mapping from study to report, or a predictions file of `crossray generate`.
        references: the true reports, in the same order or for the same studies; leave out for a file, which has its
            own.
        data: prepared dataset for the trivial baselines, if predictions are a file.
        labeler: labeler of the clinical observations: "rules", or a folder with converted CheXbert weights.
        meteor: METEOR 1.5 needs Java and pycocoevalcap; "auto" computes it if both are installed.
        cleaner: cleaner for predictions and references given as texts: legacy (R2Gen's), legacy_mimic, fixed or
            none.
        resamples: number of bootstrap resamples for every interval.
        seed: seed of the resampling.

    Raises:
        UserError: the numbers of reports differ, a study is missing, or the file is invalid.

    Example:
        >>> scores = evaluate(["lungs are clear ."], ["the lungs are clear ."], meteor="no", resamples=10)
        >>> round(scores["bleu1"], 3)
        0.779
    """
    if meteor not in get_args(_Meteor):
        raise UserError(f"meteor is {meteor!r:.40}; {choose(meteor, get_args(_Meteor))}.")
    whole_number("resamples", resamples, 1)
    whole_number("seed", seed, 0)
    from crossray.evaluation.evaluate import evaluate as score
    from crossray.evaluation.predictions import Prediction, PredictionFile, Provenance
    from crossray.evaluation.predictions.exchange import open_predictions

    if isinstance(predictions, str | Path):
        if references is not None:
            raise UserError(
                "references: a predictions file contains its own references; give texts, or the file alone."
            )
        file = open_predictions(Path(predictions), dataset=None if data is None else Path(data))
    else:
        if cleaner not in CLEANERS:
            raise UserError(f"cleaner '{cleaner}' does not exist; {choose(cleaner, CLEANERS)}.")
        rows = tuple(
            Prediction(study, clean(text, cleaner), {"full": clean(reference, cleaner)})
            for study, text, reference in _paired(predictions, references)
        )
        file = PredictionFile(Provenance(cleaner=cleaner), rows)
    return Scores(score(file, dataset=data, meteor=meteor, labeler=labeler, resamples=resamples, seed=seed))


def _paired(
    predictions: Sequence[str] | Mapping[str, str], references: Sequence[str] | Mapping[str, str] | None
) -> Iterator[tuple[str, str, str]]:
    texts("predictions", predictions)
    if references is None or isinstance(references, str):
        raise UserError("references: give the true reports, one for each prediction.")
    if isinstance(predictions, Mapping) != isinstance(references, Mapping):
        raise UserError("references: give predictions and references both as lists, or both by study.")
    ours, true = texts("predictions", predictions), texts("references", references)
    if len(ours) != len(true):
        raise UserError(
            f"references: {len(true)} for {counted(len(ours), 'prediction')}; give one for each prediction."
        )
    if ours.keys() != true.keys():
        raise UserError("references: the studies are not those of the predictions; give both for the same studies.")
    for study, text in ours.items():
        yield study, text, true[study]
