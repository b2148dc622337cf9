"""Compares predictions files of several systems on the same studies (docs/evaluation.md)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from crossray.errors import UserError, counted, did_you_mean
from crossray.evaluation.labelers import RULES, Labeler, open_labeler
from crossray.evaluation.metrics.degeneracy import variety
from crossray.evaluation.metrics.family import MeteorChoice, families
from crossray.evaluation.metrics.statistics import StudyStatistics, measure
from crossray.evaluation.predictions import SHUFFLED, PredictionFile, Provenance
from crossray.evaluation.predictions.exchange import choose
from crossray.evaluation.predictions.protocol import PROTOCOLS, Protocol
from crossray.evaluation.predictions.writing import clinical_notes
from crossray.evaluation.results import Result
from crossray.evaluation.statistics.randomization import PairedTest, corrected, paired_tests
from crossray.evaluation.statistics.significance import CIDER_NOTE, LEVEL, bootstrap, scores_of
from crossray.files.write import write_whole

#: Up to this many systems, every pair is tested; beyond it, every system is tested against the first.
ALL_PAIRS = 4

# Fields of a header that describe the protocol. The choice of studies is not one of them: studies are matched by id.
_HEADER_FIELDS = ("section", "cleaner", "views", "data", "split", "max_length", "min_count", "tokenizer")


@dataclass(frozen=True)
class PairComparison:
    """The tests of one system against another.

    Attributes:
        first: name of one system; `second`: name of the other. Differences are first minus second.
        tests: the test for each metric, with p-values corrected for all tests of the protocol.
    """

    first: str
    second: str
    tests: Mapping[str, PairedTest]


@dataclass(frozen=True)
class ProtocolComparison:
    """All systems under one protocol.

    Attributes:
        results: scores of every system, in the order of the files.
        pairs: the tested pairs.
    """

    results: tuple[Result, ...]
    pairs: tuple[PairComparison, ...]

    @property
    def comparisons(self) -> int:
        """Number of tests that the p-values are corrected for."""
        return sum(len(pair.tests) for pair in self.pairs)


@dataclass(frozen=True)
class Comparison:
    """Several systems compared.

    Attributes:
        predictions: file name for each system name.
        protocols: comparison for each protocol name.
        resamples: number of bootstrap resamples, and of exchanges in each test; `seed`: their seed.
        meteor_jar_sha256: digest of the jar that computed METEOR; None if METEOR was not computed.
        notes: notes on protocols that were not compared, and on the numbers.
    """

    predictions: Mapping[str, str]
    protocols: Mapping[str, ProtocolComparison]
    resamples: int
    seed: int
    meteor_jar_sha256: str | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, for JSON."""
        return asdict(self)

    def save(self, path: Path | str) -> None:
        """Write a JSON file; a failed write leaves no partial file."""
        write_whole(path, json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n")


def compare(
    predictions: Sequence[Path | str],
    *,
    common: bool = False,
    against: Literal["first", "all"] | None = None,
    metrics: Sequence[str] | None = None,
    meteor: MeteorChoice = "auto",
    labeler: Labeler | str | None = RULES,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Score several systems on the same studies, and test their differences.

    Args:
        predictions: files of JSON lines (`crossray.evaluation.predictions`), one per system.
        common: compare on the studies that all files share, instead of requiring the same studies in each.
        against: test every pair ("all") or every system against the first; by default all up to `ALL_PAIRS` systems.
        metrics: metrics to test; if None, those with a column of their own, because testing all variants of clinical
            efficacy would cost power. Fewer tests need less correction: choose the decisive ones before you see the
            results.
        meteor: "auto", "yes" or "no".
        labeler: labels all reports for clinical efficacy: a labeler, or the name of one for `open_labeler`; None skips
            the clinical scores.
        resamples: number of bootstrap resamples, and of exchanges in each test.
        seed: seed of both.

    Returns:
        Scores with intervals and tests, under each protocol that all files share.

    Raises:
        UserError: fewer than two files, different studies, protocols or references, or an unknown metric.
    """
    if len(predictions) < 2:
        raise UserError("compare: a single predictions file has nothing to be compared with; give two or more")
    files, notes = same_studies([PredictionFile.load(path) for path in predictions], common=common)
    protocols, protocol_notes = same_protocols(files)
    systems = dict(zip(system_names(files), files, strict=True))
    reader = open_labeler(labeler) if isinstance(labeler, str) else labeler
    readable, languages = clinical_notes(files[0].references(list(protocols)[-1]), reader) if reader else (True, [])
    measured = measure(
        {name: file.hypotheses() for name, file in systems.items()},
        {name: files[0].references(name) for name in protocols},
        meteor=meteor,
        labeler=reader if readable else None,
    )
    everyone = against == "all" or (against is None and len(systems) <= ALL_PAIRS)
    pairs = [pair for pair in combinations(systems, 2) if everyone or pair[0] == next(iter(systems))]
    compared = {
        name: _compare_protocol(
            replace(protocol, labeler=measured.labeler),
            {system: measured.statistics[name, system] for system in systems},
            {system: file.hypotheses() for system, file in systems.items()},
            pairs,
            metrics,
            resamples=resamples,
            seed=seed,
        )
        for name, protocol in protocols.items()
    }
    notes += tuple(f"{file.path}: {SHUFFLED}" for file in files if file.provenance.shuffled_images)
    notes += _power(max(protocol.comparisons for protocol in compared.values()), resamples)
    return Comparison(
        predictions={system: str(file.path) for system, file in systems.items()},
        protocols=compared,
        resamples=resamples,
        seed=seed,
        meteor_jar_sha256=measured.implementations.get("meteor"),
        notes=(*notes, *protocol_notes, *languages, *measured.notes, CIDER_NOTE),
    )


def same_studies(
    files: Sequence[PredictionFile], *, common: bool = False
) -> tuple[list[PredictionFile], tuple[str, ...]]:
    """Bring the studies of all files into the order of the first.

    Args:
        files: predictions of several systems.
        common: keep only the studies that all files share.

    Returns:
        The files with the same studies in the same order, and notes on omitted studies.

    Raises:
        UserError: the files contain different studies, or share none.
    """
    rows = [{row.id: row for row in file.rows} for file in files]
    shared = [study for study in rows[0] if all(study in others for others in rows[1:])]
    if not shared:
        raise UserError(f"{_names(files)}: the files have no study id in common; generate them from the same dataset")
    for file, others in zip(files[1:], rows[1:], strict=True):
        if others.keys() != rows[0].keys() and not common:
            raise UserError(
                f"{files[0].path} and {file.path}: {len(rows[0].keys() - others.keys())} studies are only in the first "
                f"and {len(others.keys() - rows[0].keys())} only in the second; predict the same studies, or compare "
                f"the {len(shared)} that all files share with --common"
            )
    notes = []
    if any(len(studies) != len(shared) for studies in rows):
        counts = ", ".join(f"{len(studies)} in {file.path}" for file, studies in zip(files, rows, strict=True))
        notes.append(f"compared on the {len(shared)} studies that all files share, of {counts}")
        files = [choose(file, shared) for file in files]
    aligned = [
        replace(file, rows=tuple(studies[study] for study in shared)) for file, studies in zip(files, rows, strict=True)
    ]
    return aligned, tuple(notes)


def same_protocols(files: Sequence[PredictionFile]) -> tuple[dict[str, Protocol], tuple[str, ...]]:
    """The protocols under which several systems can be compared.

    Fields of the protocol that a file does not state, for example because it has no header, are taken from the file
    that states most of them: equal references show that the protocol is the same.

    Args:
        files: predictions of several systems on the same studies in the same order.

    Returns:
        The protocols by name, and notes on protocols that cannot be compared. The `r2gen` references depend on the
        model's tokenizer; if they differ, only `full` remains.

    Raises:
        UserError: headers or full references differ, or no protocol has references for every study in every file.
    """
    model = max(files, key=lambda file: len(_stated(file, "full")))
    notes = [
        f"{file.path} does not say its {', '.join(unsaid)}: by its equal references it is taken for the protocol of "
        f"{model.path}"
        for file in files
        if (unsaid := [name for name in _stated(model, "full") if name not in _stated(file, "full")])
    ]
    protocols: dict[str, Protocol] = {}
    for name in PROTOCOLS:
        without = [file for file in files if name not in file.protocols()]
        if without:
            if len(without) < len(files):
                notes.append(f"{name} not compared: {_names(without)} lacks its references")
            continue
        if problem := _header_difference(files, name) or _reference_difference(files, name):
            if name == "full":
                raise UserError(f"{problem}; generate all files from the same dataset with the same cleaner")
            notes.append(f"{name} not compared: {problem}, as they do for different vocabularies or lengths")
            continue
        protocols[name] = model.provenance.protocol(name, len(model.rows))
    if not protocols:
        raise UserError(
            f"{_names(files)}: references: no protocol has one for every study in every file; generate with --data"
        )
    return protocols, tuple(notes)


def system_names(files: Sequence[PredictionFile]) -> list[str]:
    """A name for each system: its model, or its file if two have the same model; paths are reduced to the differences.

    Raises:
        UserError: a file is given twice.
    """
    paths = [str(file.path) for file in files]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"{path}: the file is given twice; give every file once")
    stems = [Path(path).stem for path in paths]
    models = [file.provenance.model or stem for file, stem in zip(files, stems, strict=True)]
    found = next(names for names in (models, stems, paths) if len(set(names)) == len(names))
    return _apart(found) if len(found) > 1 else found


def _apart(paths: Sequence[str]) -> list[str]:
    """Paths without their common beginning and end: runs/a/seed-0/x and runs/b/seed-0/x become a and b."""
    left = [Path(path).parts or (path,) for path in paths]
    while len({parts[0] for parts in left}) == 1 and min(map(len, left)) > 1:
        left = [parts[1:] for parts in left]
    while len({parts[-1] for parts in left}) == 1 and min(map(len, left)) > 1:
        left = [parts[:-1] for parts in left]
    return [str(Path(*parts)) for parts in left]


def _compare_protocol(
    protocol: Protocol,
    statistics: Mapping[str, StudyStatistics],
    reports: Mapping[str, Sequence[str]],
    pairs: Sequence[tuple[str, str]],
    metrics: Sequence[str] | None,
    *,
    resamples: int,
    seed: int,
) -> ProtocolComparison:
    known = scores_of(next(iter(statistics.values())))
    for metric in metrics or ():
        if metric not in known:
            raise UserError(
                f"metrics: {metric!r} is not computed; choose among {', '.join(known)}{did_you_mean(metric, known)}"
            )
    columns = [metric.name for family in families() for metric in family.metrics if metric.heading]
    chosen = [name for name in metrics or columns if name in known]
    tests = {
        pair: {name: metric_tests[name] for name in chosen}
        for pair, metric_tests in paired_tests(statistics, pairs, resamples=resamples, seed=seed).items()
    }
    return ProtocolComparison(
        results=tuple(
            Result(
                system=system,
                protocol=protocol,
                studies=len(statistics[system]),
                scores=bootstrap(statistics[system], resamples=resamples, seed=seed),
                variety=variety(reports[system]),
            )
            for system in statistics
        ),
        pairs=tuple(PairComparison(*pair, tests=corrected_tests) for pair, corrected_tests in corrected(tests).items()),
    )


def _power(tests: int, resamples: int) -> tuple[str, ...]:
    """A warning if the smallest possible p-value for this number of resamples is not small after correction."""
    smallest = tests / (1 + resamples)
    if smallest <= 1 - LEVEL:
        return ()
    return (
        f"with {resamples} resamples and {tests} tests no corrected p falls below {min(smallest, 1):.2f}; "
        "give more --resamples or fewer --metrics",
    )


def _stated(file: PredictionFile, protocol: str) -> dict[str, Any]:
    """The fields of the protocol that a file states; empty without a header."""
    if replace(file.provenance, subset="") == Provenance():
        return {}
    values = file.provenance.protocol(protocol, len(file.rows)).as_dict()
    return {name: values[name] for name in _HEADER_FIELDS if values[name] not in ("", None)}


def _header_difference(files: Sequence[PredictionFile], protocol: str) -> str | None:
    """The fields in which the headers of two files contradict each other."""
    for one, other in combinations(files, 2):
        ours, theirs = _stated(one, protocol), _stated(other, protocol)
        if differing := [name for name in theirs if name in ours and ours[name] != theirs[name]]:
            return f"{one.path} and {other.path}: header: {', '.join(differing)} differ"
    return None


def _reference_difference(files: Sequence[PredictionFile], protocol: str) -> str | None:
    """A description of how many references differ between a file and the first one."""
    ours = files[0].references(protocol)
    for file in files[1:]:
        theirs = file.references(protocol)
        if differing := sum(one != other for one, other in zip(ours, theirs, strict=True)):
            studies = counted(differing, "study differs", "studies differ")
            return f"{files[0].path} and {file.path}: the {protocol} references of {studies}"
    return None


def _names(files: Sequence[PredictionFile]) -> str:
    return ", ".join(str(file.path) for file in files)
