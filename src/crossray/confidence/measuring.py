"""Fits a calibration on the reports of one split, and measures it on held-out patients by cross-fitting."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from crossray.analysis.inputs import collator_of, tokenizer_of, transform_of
from crossray.confidence.calibration import UNITS, Calibration, Unit
from crossray.confidence.calibrators import Signals, cross_fitted, fit, fit_isotonic, scikit_learn
from crossray.confidence.measures import (
    area,
    brier_score,
    expected_calibration_error,
    reliability,
    risk_coverage,
)
from crossray.confidence.statements import (
    AGREEMENT,
    BASE_RATE,
    PROBABILITY,
    Statement,
    holds,
    observations,
    presence,
    sentences,
    signals,
)
from crossray.data.batches.loading import reported_rows
from crossray.data.batches.transform import transform_inputs
from crossray.data.store import Dataset
from crossray.decoding.config import DecodingConfig
from crossray.decoding.reports import WrittenReport, study_seed, with_samples, write_reports
from crossray.errors import UserError, counted
from crossray.evaluation.labelers import RuleLabeler
from crossray.evaluation.utilities import utility_of
from crossray.models.base import ReportModel
from crossray.text.observations import OBSERVATIONS
from crossray.text.tokenizer import Tokenizer

#: Number of reports sampled per study if the decoding does not sample any itself.
SAMPLES = 12

#: Signals of the stored calibrators: without sampled reports, and with them.
PLAIN, SAMPLED = (PROBABILITY, BASE_RATE), (PROBABILITY, BASE_RATE, AGREEMENT)

#: Shares of the statements at which the risk is stored.
COVERAGES = tuple(round(step / 20, 2) for step in range(1, 21))

#: Minimum number of studies for a calibration.
LEAST_STUDIES = 20


@dataclass
class Collected:
    """The statements of one unit in all reports of a split, as lists with one entry per statement.

    Attributes:
        signals: values of each signal, by name.
        correct: whether each statement is correct.
        patients: patient of each statement.
        there: whether a statement claims that any observation is present.
        silent: number of statements without claims, which are not in the lists.
    """

    signals: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SAMPLED})
    correct: list[bool] = field(default_factory=list)
    patients: list[str] = field(default_factory=list)
    there: list[bool] = field(default_factory=list)
    silent: int = 0

    def arrays(self) -> tuple[Signals, NDArray[np.bool_]]:
        """Return signals and correctness as arrays (N,)."""
        return {name: np.array(values) for name, values in self.signals.items()}, np.array(self.correct, np.bool_)


def calibrate(
    model: ReportModel,
    decoding: DecodingConfig,
    dataset: Dataset,
    *,
    split: str = "val",
    section: str = "findings",
    weights: str = "",
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Generate the reports of a split, compare their statements with the true reports, and fit a calibration.

    Args:
        model: model with tokenizer and transform, in eval mode on its device.
        decoding: decoding settings.
        dataset: dataset; the base rates are computed on its training reports.
        split: split to calibrate on, which the training must not have used.
        section: section of the reports; studies without it are left out.
        weights: SHA-256 of the model's weights.
        batch_size: number of studies per batch.
        progress: called with the number of finished and of all studies.

    Raises:
        UserError: the split has too few studies with the section, or scikit-learn is not installed.
    """
    scikit_learn("linear_model")  # fails before the slow part if scikit-learn is missing
    tokenizer = tokenizer_of(model)
    # a report without the section says nothing, which is not that nothing is there
    trained, rows = (reported_rows(dataset, part, section, tokenizer.cleaner) for part in ("train", split))
    if len(rows) < LEAST_STUDIES:
        raise UserError(
            f"{dataset.path}: split '{split}' has {counted(len(rows), 'study')}; calibration needs "
            f"{LEAST_STUDIES} or more."
        )
    rates = presence(_true(tokenizer, dataset, trained, section)).mean(axis=0)
    samples = decoding.samples if decoding.method == "mbr" else SAMPLES
    truth = presence(_true(tokenizer, dataset, rows, section))
    patients = dataset.patients(rows)
    found: dict[Unit, Collected] = {unit: Collected() for unit in UNITS}
    for place, report in enumerate(written_reports(model, decoding, dataset, rows, samples, batch_size, progress)):
        drawn = presence(report.samples)
        _collect(found["sentences"], sentences(report, tokenizer), rates, drawn, truth[place], patients[place])
        _collect(found["observations"], observations(report, tokenizer), rates, drawn, truth[place], patients[place])
    return Calibration(
        weights=weights,
        decoding=asdict(decoding),
        samples=samples,
        rates=dict(zip(OBSERVATIONS, rates.tolist(), strict=True)),
        plain={unit: fit(*found[unit].arrays(), PLAIN) for unit in UNITS},
        sampled={unit: fit(*found[unit].arrays(), SAMPLED) for unit in UNITS},
        about={
            "data_sha256": dataset.info.sha256,
            "source": dict(dataset.info.source),
            "split": split,
            "studies": len(rows),
            "labeler": RuleLabeler().name,
        },
        measured={unit: measure(found[unit]) for unit in UNITS},
    )


def measure(collected: Collected, seed: int = 0) -> dict[str, Any]:
    """Measure reliability and risk by coverage before and after calibration; return them as JSON values.

    Calibrators are measured on patients on which they were not fitted (`cross_fitted`).

    Args:
        collected: statements of one unit.
        seed: random seed of the folds of patients.
    """
    given, correct = collected.arrays()
    if not len(correct):
        return {"statements": 0, "silent": collected.silent, "ways": {}}
    loss = 1.0 - correct
    ways: dict[str, NDArray[np.float64]] = {
        "as the model gives it": given[PROBABILITY],
        "isotonic": cross_fitted(given, correct, collected.patients, (PROBABILITY,), seed=seed, learn=fit_isotonic),
    }
    for name, used in (("Platt", (PROBABILITY,)), ("with base rates", PLAIN), ("with drawn reports", SAMPLED)):
        ways[name] = cross_fitted(given, correct, collected.patients, used, seed=seed)
    return {
        "statements": len(correct),
        "silent": collected.silent,
        "right": float(correct.mean()),
        "area_oracle": area(risk_coverage(-loss, loss)),
        "area_random": float(loss.mean()),
        "coverages": list(COVERAGES),
        "ways": {name: _scores(confidence, correct) for name, confidence in ways.items()},
        "parts": {
            name: _part(ways, correct, np.array(collected.there) == there)
            for name, there in (("something is there", True), ("nothing is there", False))
        },
    }


def _part(ways: Mapping[str, NDArray[np.float64]], correct: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> Any:
    """Return the number of the chosen statements, the share of correct ones, and their mean confidence by method."""
    if not chosen.any():
        return {"statements": 0}
    means = {name: float(confidence[chosen].mean()) for name, confidence in ways.items()}
    return {"statements": int(chosen.sum()), "right": float(correct[chosen].mean()), "confidence": means}


def _scores(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> Mapping[str, Any]:
    bins = reliability(confidence, correct)
    curve = risk_coverage(confidence, 1.0 - correct)
    places = [max(1, round(share * len(curve))) - 1 for share in COVERAGES]
    return {
        "ece": expected_calibration_error(bins),
        "brier": brier_score(confidence, correct),
        "area": area(curve),
        "risks": curve[places].tolist(),
        "bins": [asdict(one) for one in bins],
    }


def _collect(
    found: Collected,
    statements: Sequence[Statement],
    rates: NDArray[np.float64],
    drawn: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    patient: str,
) -> None:
    claiming = [statement for statement in statements if statement.claims]
    found.silent += len(statements) - len(claiming)
    if not claiming:
        return
    for name, values in signals(claiming, rates, drawn).items():
        found.signals[name] += values.tolist()
    found.correct += [bool(holds(statement.claims, truth[None])[0]) for statement in claiming]
    found.patients += [patient] * len(claiming)
    found.there += [any(statement.claims.values()) for statement in claiming]


def written_reports(
    model: ReportModel,
    decoding: DecodingConfig,
    dataset: Dataset,
    rows: NDArray[np.int64],
    samples: int,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[WrittenReport]:
    """Generate a report of every study, together with sampled reports.

    Args:
        model: model with tokenizer and transform, in eval mode on its device.
        decoding: decoding settings.
        dataset: dataset with the studies.
        rows: rows of the studies.
        samples: number of reports to sample per study if the decoding does not sample any itself.
        batch_size: number of studies per batch.
        progress: called with the number of finished and of all studies.
    """
    collator, transform = collator_of(model, dataset), transform_of(model)
    device = next(model.parameters()).device
    utility = utility_of(decoding)
    for first in range(0, len(rows), batch_size):
        part = rows[first : first + batch_size]
        inputs = transform_inputs(collator.inputs(part).to(device), transform, train=False)
        seeds = [study_seed(decoding.seed, name) for name in dataset.ids(part)]
        with torch.inference_mode():
            encoded = model.encode(inputs)
        reports = write_reports(model, inputs, decoding, seeds=seeds, encoded=encoded, utility=utility)
        yield from with_samples(model, encoded, decoding, samples, seeds, reports)
        if progress is not None:
            progress(min(first + batch_size, len(rows)), len(rows))


def _true(tokenizer: Tokenizer, dataset: Dataset, rows: NDArray[np.int64], section: str) -> list[str]:
    return [tokenizer.clean(report) for report in dataset.reports(rows, section)]
