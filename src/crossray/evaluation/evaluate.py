"""Scores a predictions file under both protocols, next to the baselines it has to beat (docs/evaluation.md)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crossray.data.store import Dataset
from crossray.errors import UserError
from crossray.evaluation.alarms import alarms
from crossray.evaluation.labelers import RULES, Labeler, open_labeler
from crossray.evaluation.labelers.tags import normal_studies
from crossray.evaluation.metrics.clinical import ClinicalStatistics, clinical_statistics
from crossray.evaluation.metrics.degeneracy import shuffle_check, template, variety
from crossray.evaluation.metrics.family import MeteorChoice
from crossray.evaluation.metrics.statistics import Pairings, StudyStatistics, measure
from crossray.evaluation.predictions import SHUFFLED, PredictionFile
from crossray.evaluation.predictions.protocol import PROTOCOLS, Protocol
from crossray.evaluation.predictions.writing import clinical_notes, differences, writing_notes
from crossray.evaluation.results import Evaluation, ProtocolEvaluation, Result
from crossray.evaluation.statistics.significance import bootstrap, paired_difference
from crossray.evaluation.trivial import NEAREST_IMAGE, trivial_reports


@dataclass(frozen=True)
class _Companions:
    """Baselines and labels from the dataset."""

    baselines: Mapping[str, list[str]]
    normal: NDArray[np.bool_] | None
    notes: tuple[str, ...]


def evaluate(
    predictions: Path | str | PredictionFile,
    *,
    dataset: Dataset | Path | str | None = None,
    meteor: MeteorChoice = "auto",
    labeler: Labeler | str | None = RULES,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Score a predictions file.

    Args:
        predictions: a file that `PredictionFile.load` can read, or the result of `exchange.open_predictions`.
        dataset: prepared dataset for the baselines and labels; if None, the one that the file names, if it exists.
        meteor: "auto", "yes" or "no".
        labeler: labels both reports for clinical efficacy: a labeler, or the name of one for `open_labeler`; None skips
            the clinical scores.
        resamples: number of bootstrap resamples for every interval.
        seed: seed of resamples and shuffles.

    Returns:
        Scores under every protocol for which all studies have a reference, with bootstrap intervals, trivial baselines,
        the check with shuffled images, separate scores of normal and abnormal studies, and alarms.

    Raises:
        UserError: the file is invalid or has no references, the dataset does not belong to it, or METEOR is required
            and cannot be computed.
    """
    labeler = open_labeler(labeler) if isinstance(labeler, str) else labeler
    file = predictions if isinstance(predictions, PredictionFile) else PredictionFile.load(predictions)
    names = file.protocols()
    if not file.rows:
        raise UserError(f"{file.path or 'predictions'}: contains no predictions; give at least one study.")
    if not names:
        raise UserError(
            f"{file.path}: references: no protocol has one for every study; give the dataset with --data, or leave out "
            "studies that have none with --studies"
        )
    companions = _companions(file, file.references(names[-1]), dataset)
    ours = _system_name(file)
    systems = {ours: file.hypotheses(), **companions.baselines}
    references = {name: file.references(name) for name in names}
    writing = writing_notes(file.hypotheses(), references[names[-1]])
    readable, languages = clinical_notes(references[names[-1]], labeler) if labeler is not None else (True, [])
    if not readable:
        labeler = None
    measured = measure(systems, references, meteor=meteor, labeler=labeler)
    # from `full` if available, whose references are not cut
    clinical = clinical_statistics(measured.statistics[names[-1], ours].families)
    others = dict(measured.implementations)
    overused = template(file.hypotheses(), references[names[-1]])

    evaluations = {}
    for name in names:
        evaluations[name] = _evaluate_protocol(
            replace(file.provenance.protocol(name, len(file.rows)), labeler=measured.labeler),
            systems,
            references[name],
            {system: measured.statistics[name, system] for system in systems},
            _groups(companions.normal, clinical),
            overused,
            resamples=resamples,
            seed=seed,
        )
    return Evaluation(
        predictions=file.path.name if file.path else _system_name(file),
        provenance=file.provenance,
        protocols=evaluations,
        resamples=resamples,
        seed=seed,
        meteor_jar_sha256=others.pop("meteor", None),
        implementations=others,
        seconds=file.seconds(),
        notes=(
            *([SHUFFLED] if file.provenance.shuffled_images else ()),
            *_missing_protocols(file),
            *companions.notes,
            *writing,
            *languages,
            *_clinical_notes(clinical, labeler),
            *measured.notes,
        ),
    )


def _evaluate_protocol(
    protocol: Protocol,
    systems: Mapping[str, Sequence[str]],
    references: Sequence[str],
    statistics: Mapping[str, StudyStatistics],
    groups: Mapping[str, NDArray[np.bool_]],
    overused: tuple[float, float] | None,
    *,
    resamples: int,
    seed: int,
) -> ProtocolEvaluation:
    """Evaluate the first of `systems`; the others are its baselines."""
    ours, *baselines = systems
    drawn = {"resamples": resamples, "seed": seed}
    results = {system: _result(system, protocol, systems[system], statistics[system], **drawn) for system in systems}
    clinical = clinical_statistics(statistics[ours].families)
    true_reports = variety(references, None if clinical is None else clinical.without_findings[1])
    differences = {system: paired_difference(statistics[ours], statistics[system], **drawn) for system in baselines}
    shuffle = shuffle_check(Pairings.of((systems[ours], references), statistics[ours]), **drawn)
    groups_of_ours = []
    for group, mask in groups.items():
        reports = [report for report, chosen in zip(systems[ours], mask, strict=True) if chosen]
        narrowed = replace(protocol, group=group)
        groups_of_ours.append(_result(ours, narrowed, reports, statistics[ours].part(mask), **drawn))
    return ProtocolEvaluation(
        result=replace(results[ours], ignores_image=None if shuffle is None else shuffle.ignores_image),
        true_reports=true_reports,
        baselines=tuple(results[system] for system in baselines),
        differences=differences,
        shuffle=shuffle,
        groups=tuple(groups_of_ours),
        alarms=alarms(
            results[ours].variety,
            true_reports,
            differences,
            shuffle,
            labels_vary=clinical is not None and clinical.references_differ,
            template=overused,
        ),
    )


def _result(
    system: str,
    protocol: Protocol,
    reports: Sequence[str],
    statistics: StudyStatistics,
    *,
    resamples: int,
    seed: int,
) -> Result:
    clinical = clinical_statistics(statistics.families)
    return Result(
        system=system,
        protocol=protocol,
        studies=len(statistics),
        scores=bootstrap(statistics, resamples=resamples, seed=seed),
        variety=variety(reports, None if clinical is None else clinical.without_findings[0]),
        classes={} if clinical is None else clinical.class_scores(resamples=resamples, seed=seed),
    )


def _groups(labelled: NDArray[np.bool_] | None, clinical: ClinicalStatistics | None) -> dict[str, NDArray[np.bool_]]:
    """The normal and the abnormal studies, by the labels of the dataset or, without them, of the true reports."""
    if labelled is not None:
        groups = {"normal": labelled, "abnormal": ~labelled}
    elif clinical is not None:
        normal = clinical.without_findings[1]
        groups = {"normal by text": normal, "abnormal by text": ~normal}
    else:
        groups = {}
    return {group: mask for group, mask in groups.items() if mask.any()}


def _missing_protocols(file: PredictionFile) -> tuple[str, ...]:
    """Notes on protocols without references, whose scores cannot be computed from those of the other protocol."""
    needs = {"r2gen": "the tokenizer of the model", "full": "the true report as it is"}
    notes = []
    for name in PROTOCOLS:
        missing = sum(name not in row.references for row in file.rows)
        if missing:
            notes.append(
                f"protocol {name} not computed: {missing} of {len(file.rows)} studies have no reference of it, which "
                f"takes {needs[name]}; crossray generate --data writes both, and --references takes both from its file"
            )
    return tuple(notes)


def _clinical_notes(clinical: ClinicalStatistics | None, labeler: Labeler | None) -> tuple[str, ...]:
    if clinical is None or labeler is None:
        return ()
    if not clinical.references_differ:
        return (f"clinical scores say nothing here: to {labeler.name} all true reports state the same observations",)
    return ()


def _system_name(file: PredictionFile) -> str:
    return file.provenance.model or (file.path.stem if file.path else "predictions")


def _companions(file: PredictionFile, references: Sequence[str], folder: Dataset | Path | str | None) -> _Companions:
    """Baselines and labels from the dataset. Only a dataset that the caller named must exist and match."""
    if folder is None and not file.provenance.data:
        return _Companions({}, None, ("trivial baselines not computed: no dataset is known; give one with --data",))
    try:
        dataset = Dataset.open(folder if folder is not None else str(file.provenance.data))
        rows = _rows_of(file, dataset)
    except UserError as error:
        if folder is not None:
            raise
        reason = str(error).rstrip(".")
        note = f"trivial baselines not computed: {reason}; if the dataset has moved, give its folder with --data"
        return _Companions({}, None, (note,))
    normal = normal_studies(dataset, rows)
    try:
        baselines = trivial_reports(dataset, rows, section=file.provenance.section, cleaner=file.provenance.cleaner)
    except UserError as error:  # no training reports, as in a dataset of another hospital that is only tested
        return _Companions({}, normal, (f"trivial baselines not computed: {error}",))
    # a file without a header does not state the cleaner of its references
    if differing := differences(baselines[NEAREST_IMAGE], references):
        reason = (
            f"trivial baselines not computed: references and reports of the dataset are written differently "
            f"({differing} on one side only); clean all alike with --cleaner"
        )
        return _Companions({}, normal, (reason,))
    return _Companions(baselines, normal, ())


def _rows_of(file: PredictionFile, dataset: Dataset) -> NDArray[np.int64]:
    expected, found = file.provenance.data_sha256, dataset.info.sha256
    if expected and expected != found:
        raise UserError(
            f"{dataset.path}: sha256 is {found[:12]}, but the predictions were made from {expected[:12]}; give their "
            f"dataset"
        )
    row_of = {study: row for row, study in enumerate(dataset.ids(np.arange(dataset.studies)))}
    for prediction in file.rows:
        if prediction.id not in row_of:
            raise UserError(
                f"{file.path}: id {prediction.id!r} is not a study of {dataset.path}; give the dataset of the "
                f"predictions"
            )
    return np.array([row_of[prediction.id] for prediction in file.rows], dtype=np.int64)
