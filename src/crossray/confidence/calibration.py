"""The calibration of one model, stored in its folder as `calibration.json`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crossray.confidence.calibrators import Calibrator
from crossray.confidence.statements import AGREEMENT, Statement, presence, signals
from crossray.decoding.config import DecodingConfig
from crossray.errors import UserError
from crossray.files.write import write_whole
from crossray.text.observations import OBSERVATIONS

FILE = "calibration.json"
FORMAT = 1

_REMEDY = "remove it, or run `crossray calibrate` again"

#: Units with a confidence.
Unit = Literal["sentences", "observations"]
UNITS: tuple[Unit, ...] = ("sentences", "observations")

#: Decoding fields that do not change the reports, or only select among equally distributed ones.
_SAME_REPORTS = ("seed", "early_stop")


@dataclass(frozen=True)
class Calibration:
    """Maps the signals of a statement to the probability that it is correct.

    Attributes:
        weights: SHA-256 of the model's weights, to which the calibration belongs.
        decoding: decoding settings of the reports it was fitted on; reports of other settings are not calibrated.
        samples: number of reports sampled per study to measure their agreement.
        rates: share of the training reports that state each observation, by name.
        plain: calibrator of each unit for reports without samples; `sampled`: for reports with them.
        about: dataset, split, number of studies and labeler of the measurement.
        measured: results of `crossray.confidence.measuring` as JSON values, for pages.
    """

    weights: str
    decoding: Mapping[str, Any]
    samples: int
    rates: Mapping[str, float]
    plain: Mapping[str, Calibrator]
    sampled: Mapping[str, Calibrator]
    about: Mapping[str, Any]
    measured: Mapping[str, Any]

    def fits(self, decoding: DecodingConfig) -> bool:
        """Whether reports with these decoding settings are calibrated."""
        return comparable(asdict(decoding)) == comparable(self.decoding)

    def confidence(
        self, unit: Unit, statements: Sequence[Statement], samples: Sequence[str] = ()
    ) -> list[float | None]:
        """Probability that each statement agrees with a radiologist's report; None for statements without claims.

        Args:
            unit: unit of the statements.
            statements: statements of one report.
            samples: texts of the reports sampled for the same study, as many as `self.samples`; empty without samples.
        """
        claiming = [statement for statement in statements if statement.claims]
        if not claiming:
            return [None] * len(statements)
        drawn: NDArray[np.bool_] | None = presence(samples) if samples else None
        found = signals(claiming, rates_of(self.rates), drawn)
        calibrator = (self.sampled if AGREEMENT in found else self.plain)[unit]
        values = iter(calibrator(found).tolist())
        return [next(values) if statement.claims else None for statement in statements]

    def save(self, folder: Path) -> None:
        """Write `calibration.json` to a model folder."""
        write_whole(folder / FILE, json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path, weights: str) -> "Calibration | None":
        """Read `calibration.json`; None if the folder has none.

        Args:
            folder: a model folder.
            weights: SHA-256 of its weights.

        Raises:
            UserError: the file is damaged or belongs to other weights.
        """
        path = folder / FILE
        if not path.exists():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.pop("format") != FORMAT:
                raise ValueError
            for name in ("plain", "sampled"):
                values[name] = {
                    unit: Calibrator(_numbers(values[name][unit]["weights"]), float(values[name][unit]["intercept"]))
                    for unit in UNITS
                }
            values["rates"] = _numbers(values["rates"])
            found = cls(**values)
            if not isinstance(found.decoding, dict) or not isinstance(found.samples, int):
                raise TypeError
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path}: cannot be read; remove the file, or run `crossray calibrate` again.") from None
        if found.weights != weights:
            raise UserError(
                f"{path}: field 'weights' belongs to another model; remove the file, or run `crossray calibrate` again."
            )
        return found


def comparable(decoding: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the decoding fields that affect the reports, in the form in which JSON stores them.

    A file of an earlier version lacks fields that have been added since; it was made with their defaults.
    """
    decoding = {**asdict(DecodingConfig()), **decoding}
    kept: Mapping[str, Any] = json.loads(json.dumps({k: v for k, v in decoding.items() if k not in _SAME_REPORTS}))
    return kept


def rates_of(rates: Mapping[str, float]) -> NDArray[np.float64]:
    """Return rates as an array (K,) in the order of `OBSERVATIONS`, with 0.5 for missing ones."""
    return np.array([rates.get(name, 0.5) for name in OBSERVATIONS], np.float64)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in values.items()}
