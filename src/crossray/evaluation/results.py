"""Scores with everything that gives them a meaning, and their file."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crossray.errors import UserError
from crossray.evaluation.degeneracy import ShuffleCheck, Variety
from crossray.evaluation.predictions import Provenance
from crossray.evaluation.protocol import Protocol
from crossray.evaluation.significance import Interval


@dataclass(frozen=True)
class Result:
    """The scores of one system under one protocol: a line of a table.

    Attributes:
        system: name of the system or baseline.
        protocol: what the scores mean.
        studies: number of studies in the scores: those of the protocol's group.
        scores: metric name to score with its bootstrap interval.
        variety: how different the generated reports are.
        ignores_image: whether the scores are no better than with shuffled images; None when that was not checked.
    """

    system: str
    protocol: Protocol
    studies: int
    scores: Mapping[str, Interval]
    variety: Variety
    ignores_image: bool | None = None

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
            scores={name: Interval(**interval) for name, interval in values["scores"].items()},
            variety=Variety(**values["variety"]),
            ignores_image=values["ignores_image"],
        )


@dataclass(frozen=True)
class ProtocolEvaluation:
    """Everything about one system under one protocol.

    Attributes:
        result: the system's scores.
        baselines: scores of the trivial baselines and of the tag oracle; empty without a dataset.
        differences: baseline name to metric name to the system's score minus the baseline's (paired bootstrap).
        shuffle: scores with images shuffled between studies; None for a single study.
        groups: the system's scores on the normal and the abnormal studies; empty without labels.
    """

    result: Result
    baselines: tuple[Result, ...] = ()
    differences: Mapping[str, Mapping[str, Interval]] | None = None
    shuffle: ShuffleCheck | None = None
    groups: tuple[Result, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of a predictions file.

    Attributes:
        predictions: name of the file.
        provenance: where the predictions come from.
        protocols: protocol name to its evaluation.
        resamples: bootstrap resamples behind every interval; `seed`: their seed.
        meteor_jar_sha256: digest of the jar that METEOR was computed with; None when METEOR was not computed.
        notes: what was not computed, and why.
    """

    predictions: str
    provenance: Provenance
    protocols: Mapping[str, ProtocolEvaluation]
    resamples: int
    seed: int
    meteor_jar_sha256: str | None = None
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return asdict(self)

    def save(self, path: Path | str) -> None:
        """Write JSON; the file appears whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            temporary.write_text(json.dumps(self.as_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def read_results(path: Path | str) -> dict[str, tuple[Result, ...]]:
    """Read the scores that `Evaluation.save` wrote, to put several systems into one table.

    Returns:
        Protocol name to the system's result followed by those of its baselines.

    Raises:
        UserError: the file is missing or from elsewhere.
    """
    path = Path(path)
    try:
        protocols = json.loads(path.read_text(encoding="utf-8"))["protocols"]
        return {
            name: tuple(Result.from_dict(result) for result in (values["result"], *values["baselines"]))
            for name, values in protocols.items()
        }
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give a file that crossray evaluate wrote"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: no scores in it; give a file that crossray evaluate wrote") from None
