"""Scores a predictions file under both protocols, beside what it has to beat (DESIGN 7)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossray.data.dataset import Dataset
from crossray.errors import UserError
from crossray.evaluation.degeneracy import shuffle_check, variety
from crossray.evaluation.nlg import ReportPairs
from crossray.evaluation.predictions import PredictionFile
from crossray.evaluation.protocol import Protocol
from crossray.evaluation.results import Evaluation, ProtocolEvaluation, Result
from crossray.evaluation.significance import bootstrap, paired_difference
from crossray.evaluation.statistics import MeteorChoice, StudyStatistics, measure
from crossray.evaluation.tags import normal_studies
from crossray.evaluation.trivial import trivial_reports


@dataclass(frozen=True)
class _Companions:
    """What the dataset adds to the predictions."""

    baselines: Mapping[str, list[str]]
    normal: NDArray[np.bool_] | None
    notes: tuple[str, ...]


def evaluate(
    predictions: Path | str,
    *,
    dataset: Path | str | None = None,
    meteor: MeteorChoice = "auto",
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Score a predictions file.

    Args:
        predictions: JSON lines (`crossray.evaluation.predictions`).
        dataset: prepared dataset for the baselines and labels; the one that the file names when None, if it is there.
        meteor: "auto", "yes" or "no".
        resamples: bootstrap resamples behind every interval.
        seed: of resamples and shuffles.

    Returns:
        Scores under every protocol that all studies have a reference for, with bootstrap intervals, trivial baselines,
        the check with shuffled images, and the normal and abnormal studies apart.

    Raises:
        UserError: the file is wrong or has no references, the dataset does not belong to it, or METEOR was demanded
            and cannot be computed.
    """
    file = PredictionFile.load(predictions)
    names = file.protocols()
    if not names:
        raise UserError(f"{file.path}: references: no protocol has one for every study; generate with --data")
    companions = _companions(file, dataset)
    systems = {_system_name(file): file.hypotheses(), **companions.baselines}
    measured = measure(systems, {name: file.references(name) for name in names}, meteor=meteor)

    evaluations = {}
    for name in names:
        protocol = file.provenance.protocol(name, len(file.rows))
        statistics = {system: measured.statistics[name, system] for system in systems}
        pairs = ReportPairs(file.hypotheses(), file.references(name))
        evaluations[name] = _evaluate_protocol(
            protocol, systems, pairs, statistics, companions.normal, resamples=resamples, seed=seed
        )
    return Evaluation(
        predictions=Path(predictions).name,
        provenance=file.provenance,
        protocols=evaluations,
        resamples=resamples,
        seed=seed,
        meteor_jar_sha256=measured.meteor_jar_sha256,
        notes=(*companions.notes, *measured.notes),
    )


def _evaluate_protocol(
    protocol: Protocol,
    systems: Mapping[str, Sequence[str]],
    pairs: ReportPairs,
    statistics: Mapping[str, StudyStatistics],
    normal: NDArray[np.bool_] | None,
    *,
    resamples: int,
    seed: int,
) -> ProtocolEvaluation:
    """Evaluate the first of `systems`, whose `pairs` are given; the others are its baselines."""
    ours, *baselines = systems
    results = {
        system: Result(
            system=system,
            protocol=protocol,
            studies=len(statistics[system]),
            scores=bootstrap(statistics[system], resamples=resamples, seed=seed),
            variety=variety(systems[system]),
        )
        for system in systems
    }
    shuffle = shuffle_check(pairs, resamples=resamples, seed=seed)
    groups = []
    if normal is not None:
        for group, mask in (("normal", normal), ("abnormal", ~normal)):
            if mask.any():
                scores = bootstrap(statistics[ours].part(mask), resamples=resamples, seed=seed)
                reports = [report for report, chosen in zip(systems[ours], mask, strict=True) if chosen]
                groups.append(Result(ours, replace(protocol, group=group), len(reports), scores, variety(reports)))
    return ProtocolEvaluation(
        result=replace(results[ours], ignores_image=None if shuffle is None else shuffle.ignores_image),
        baselines=tuple(results[system] for system in baselines),
        differences={
            system: paired_difference(statistics[ours], statistics[system], resamples=resamples, seed=seed)
            for system in baselines
        },
        shuffle=shuffle,
        groups=tuple(groups),
    )


def _system_name(file: PredictionFile) -> str:
    return file.provenance.model or (file.path.stem if file.path else "predictions")


def _companions(file: PredictionFile, folder: Path | str | None) -> _Companions:
    """Baselines and labels from the dataset. Only a dataset that was asked for must be there and fit."""
    if folder is None and not file.provenance.data:
        return _Companions({}, None, ("trivial baselines not computed: no dataset is known; give one with --data",))
    try:
        dataset = Dataset.open(folder if folder is not None else str(file.provenance.data))
        rows = _rows_of(file, dataset)
        baselines = trivial_reports(dataset, rows, section=file.provenance.section, cleaner=file.provenance.cleaner)
    except UserError as error:
        if folder is not None:
            raise
        return _Companions({}, None, (f"trivial baselines not computed: {error}",))
    return _Companions(baselines, normal_studies(dataset, rows), ())


def _rows_of(file: PredictionFile, dataset: Dataset) -> NDArray[np.int64]:
    expected, found = file.provenance.data_sha256, dataset.info.sha256
    if expected and expected != found:
        raise UserError(
            f"{dataset.path}: sha256 is {found[:12]}, the predictions come from {expected[:12]}; give that dataset"
        )
    row_of = {study: row for row, study in enumerate(dataset.ids(np.arange(dataset.studies)))}
    for prediction in file.rows:
        if prediction.id not in row_of:
            raise UserError(f"{file.path}: id {prediction.id!r} is no study of {dataset.path}; give its own dataset")
    return np.array([row_of[prediction.id] for prediction in file.rows], dtype=np.int64)
