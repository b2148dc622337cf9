"""Inputs of a scorecard: predictions, their scores, and the training logs of their models."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.evaluation.evaluate import evaluate
from crossray.evaluation.metrics.degeneracy import variety
from crossray.evaluation.predictions import PredictionFile, scores_path
from crossray.evaluation.predictions.exchange import open_predictions
from crossray.evaluation.predictions.protocol import PROTOCOLS, require_same
from crossray.evaluation.results import Evaluation
from crossray.files.folders import BEST, short_names

#: File names in the folder of a run.
PREDICTIONS, SCORES, METRICS = "predictions.jsonl", "scores.json", "metrics.jsonl"


@dataclass(frozen=True)
class System:
    """One system of a scorecard.

    Attributes:
        name: name on the page, which is unique.
        predictions: its reports.
        evaluation: their scores.
        history: rows of the metrics.jsonl of its training; empty if it is not available.
    """

    name: str
    predictions: PredictionFile
    evaluation: Evaluation
    history: tuple[dict[str, Any], ...] = ()


def read_systems(
    runs: Sequence[Path | str],
    *,
    data: Dataset | Path | str | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> list[System]:
    """Read systems with reports of the same studies.

    Args:
        runs: predictions files, or folders with predictions.jsonl. Scores are read from the files that `crossray
            evaluate` writes next to them; if there are none, they are computed but not saved.
        data: prepared dataset for the baselines of computed scores, and with the true reports of files without
            references.
        say: called with a message before long computations.

    Raises:
        UserError: a file is missing or invalid, or the systems were not scored under the same protocol on the same
            studies.
    """
    if not runs:
        raise UserError("scorecard: name at least one predictions file or folder of a run")
    paths = [_predictions_path(Path(run)) for run in runs]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("scorecard: the same predictions are named twice; name each once")
    systems = []
    for path, name in zip(paths, short_names([_telling_path(path) for path in paths]), strict=True):
        file = open_predictions(path, dataset=data)
        systems.append(System(name, file, _scores(file, path, data, say), _history(file, path)))
    _require_same_studies(systems, common_protocols(systems)[0])
    return systems


def common_protocols(systems: Sequence[System]) -> tuple[list[str], list[str]]:
    """Names of the protocols under which all systems were scored, and reasons for omitting others.

    The references of `r2gen` depend on the model's tokenizer; if they differ, `full` can still be compared.

    Raises:
        UserError: no protocol is common to all.
    """
    names, left_out = [], []
    for name in PROTOCOLS:
        scored = [system.evaluation.protocols[name] for system in systems if name in system.evaluation.protocols]
        if len(scored) < len(systems):
            if scored:
                left_out.append(f"Protocol {name} is left out: {len(scored)} of {len(systems)} systems have it.")
            continue
        try:
            require_same(part.result.protocol for part in scored)
        except UserError as error:
            left_out.append(f"Protocol {name} is left out: {error}.")
            continue
        names.append(name)
    if not names:
        reasons = " ".join(left_out).rstrip(".") or "none of the files has one"
        raise UserError(
            f"scorecard: no protocol is common to all systems ({reasons}); run crossray evaluate on them again"
        )
    return names, left_out


def read_history(path: Path) -> tuple[dict[str, Any], ...]:
    """Rows of a metrics.jsonl, without an incomplete last line; empty if there is no file."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
    return tuple(row for row in rows if isinstance(row, dict) and "split" in row and "step" in row)


def _require_same_studies(systems: Sequence[System], protocols: Sequence[str]) -> None:
    first, *others = (
        {row.id: [row.references[name] for name in protocols] for row in system.predictions.rows} for system in systems
    )
    for system, references in zip(systems[1:], others, strict=True):
        if references != first:
            raise UserError(
                f"{system.predictions.path}: its studies or references differ from those of "
                f"{systems[0].predictions.path}; name predictions of the same studies"
            )


def _predictions_path(run: Path) -> Path:
    if not run.is_dir():
        return run
    if not (run / PREDICTIONS).is_file():
        raise UserError(
            f"{run}: {PREDICTIONS} is missing; write it with crossray generate --model {run} --data DATA "
            f"--out {run / PREDICTIONS}"
        )
    return run / PREDICTIONS


def _telling_path(path: Path) -> Path:
    """The path without ".jsonl", and without a file name common to all runs."""
    return path.parent if path.name == PREDICTIONS else path.with_name(path.name.removesuffix(".jsonl"))


def _scores(
    file: PredictionFile, path: Path, data: Dataset | Path | str | None, say: Callable[[str], None]
) -> Evaluation:
    """Scores from the file next to the predictions, or computed."""
    beside = [scores_path(path), *([path.with_name(SCORES)] if path.name == PREDICTIONS else [])]
    for scores in beside:
        if scores.is_file() and file.protocols():
            evaluation = Evaluation.load(scores)
            # a file without a header has the provenance of any other, but other reports than those that were scored
            written = variety(file.hypotheses())
            scored = {
                (part.result.studies, replace(part.result.variety, normal=None))
                for part in evaluation.protocols.values()
            }
            if evaluation.provenance != file.provenance or scored != {(len(file.rows), written)}:
                raise UserError(f"{scores}: these are the scores of other predictions; run crossray evaluate {path}")
            return evaluation
    if file.protocols():
        say(f"{beside[0]} does not exist: scoring {path} (run crossray evaluate to save the scores)")
    return evaluate(file, dataset=data)


def _history(file: PredictionFile, path: Path) -> tuple[dict[str, Any], ...]:
    """The training log in the folder of the predictions, or in that of their model."""
    folders = [path.parent] if path.name == PREDICTIONS else []
    if file.provenance.model:
        model = Path(file.provenance.model)
        folders += [model, *([model.parent] if model.name == BEST else [])]
    return next((rows for rows in (read_history(folder / METRICS) for folder in folders) if rows), ())
