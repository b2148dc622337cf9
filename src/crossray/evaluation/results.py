"""Scores with their protocol, intervals and checks, and the file that stores them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from crossray.errors import UserError
from crossray.evaluation.alarms import Alarm
from crossray.evaluation.metrics.clinical import ClassScore
from crossray.evaluation.metrics.degeneracy import ShuffleCheck, Variety
from crossray.evaluation.predictions import Provenance
from crossray.evaluation.predictions.protocol import Protocol
from crossray.evaluation.statistics.significance import Interval
from crossray.files.write import write_whole

#: Version of the scores file, in its field `format`.
FORMAT = 2


@dataclass(frozen=True)
class Result:
    """The scores of one system under one protocol: a row of a table.

    Attributes:
        system: name of the system or baseline.
        protocol: protocol of the scores.
        studies: number of scored studies, which are those of the protocol's group.
        scores: score with its bootstrap interval for each metric.
        variety: variety of the generated reports.
        ignores_image: whether the scores are no better than with shuffled images; None if this was not checked.
        classes: scores of the 14 observations by the name of the convention; empty without a labeler.
    """

    system: str
    protocol: Protocol
    studies: int
    scores: Mapping[str, Interval]
    variety: Variety
    ignores_image: bool | None = None
    classes: Mapping[str, tuple[ClassScore, ...]] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Result":
        """The inverse of `dataclasses.asdict`.

        Raises:
            KeyError: a field is missing; TypeError: a field is unknown.
        """
        return cls(
            system=values["system"],
            protocol=Protocol.from_dict(values["protocol"]),
            studies=values["studies"],
            scores=_intervals(values["scores"]),
            variety=Variety(**values["variety"]),
            ignores_image=values["ignores_image"],
            classes={
                convention: tuple(ClassScore(**{**score, "f1": Interval(**score["f1"])}) for score in scores)
                for convention, scores in values["classes"].items()
            },
        )


@dataclass(frozen=True)
class ProtocolEvaluation:
    """The evaluation of one system under one protocol.

    Attributes:
        result: the system's scores.
        true_reports: variety of the references, to compare with the `variety` of the result.
        baselines: scores of the trivial baselines and of the tag oracle; empty without training reports.
        differences: for each baseline and metric, the system's score minus the baseline's (paired bootstrap).
        shuffle: scores with images shuffled between studies; None for a single study.
        groups: the system's scores on the normal and on the abnormal studies; empty if they cannot be distinguished.
        alarms: the rules of `crossray.evaluation.alarms` that the result breaks.
    """

    result: Result
    true_reports: Variety
    baselines: tuple[Result, ...] = ()
    differences: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    shuffle: ShuffleCheck | None = None
    groups: tuple[Result, ...] = ()
    alarms: tuple[Alarm, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ProtocolEvaluation":
        """The inverse of `dataclasses.asdict`; raises as `Result.from_dict`."""
        shuffle = values["shuffle"]
        return cls(
            result=Result.from_dict(values["result"]),
            true_reports=Variety(**values["true_reports"]),
            baselines=tuple(map(Result.from_dict, values["baselines"])),
            differences={baseline: _intervals(by_metric) for baseline, by_metric in values["differences"].items()},
            shuffle=shuffle and ShuffleCheck(**{**shuffle, "differences": _intervals(shuffle["differences"])}),
            groups=tuple(map(Result.from_dict, values["groups"])),
            alarms=tuple(Alarm(**alarm) for alarm in values["alarms"]),
        )


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of a predictions file.

    Attributes:
        predictions: name of the file.
        provenance: provenance of the predictions.
        protocols: evaluation under each protocol name.
        resamples: number of bootstrap resamples for every interval; `seed`: their seed.
        meteor_jar_sha256: digest of the jar that computed METEOR; None if METEOR was not computed.
        seconds: mean time per report, from the predictions; None if they do not record it.
        notes: notes on scores that were not computed.
        implementations: package and version behind each metric from another package.
    """

    predictions: str
    provenance: Provenance
    protocols: Mapping[str, ProtocolEvaluation]
    resamples: int
    seed: int
    meteor_jar_sha256: str | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    implementations: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values, for JSON."""
        values = {"format": FORMAT, **asdict(self)}
        if not self.implementations:  # the form of files from before other packages could add metrics
            del values["implementations"]
        return values

    def save(self, path: Path | str) -> None:
        """Write a JSON file; a failed write leaves no partial file."""
        write_whole(path, json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path | str) -> "Evaluation":
        """Read a file written by `save`.

        Raises:
            UserError: the file is missing, from elsewhere, or of another format.
        """
        path = Path(path)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            protocols = values["protocols"].items()
            if values.get("format", 1) != FORMAT:
                raise UserError(
                    f"{path}: field 'format' is {values.get('format', 1)}, but this version reads {FORMAT}; "
                    "run crossray evaluate on the predictions again"
                )
            return cls(
                predictions=values["predictions"],
                provenance=Provenance(**values["provenance"]),
                protocols={name: ProtocolEvaluation.from_dict(part) for name, part in protocols},
                resamples=values["resamples"],
                seed=values["seed"],
                meteor_jar_sha256=values["meteor_jar_sha256"],
                seconds=values.get("seconds"),
                notes=tuple(values["notes"]),
                implementations=values.get("implementations", {}),
            )
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror}); give a file that crossray evaluate wrote"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path}: it contains no scores; give a file that crossray evaluate wrote") from None


def read_results(path: Path | str) -> dict[str, tuple[Result, ...]]:
    """Read scores written by `Evaluation.save`, to compare several systems in one table.

    Returns:
        For each protocol name, the result of the system followed by those of its baselines.

    Raises:
        UserError: the file is missing, from elsewhere, or of another format.
    """
    evaluation = Evaluation.load(path)
    return {name: (part.result, *part.baselines) for name, part in evaluation.protocols.items()}


def _intervals(values: Mapping[str, Any]) -> dict[str, Interval]:
    return {name: Interval(**interval) for name, interval in values.items()}
