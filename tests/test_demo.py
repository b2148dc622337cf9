"""The demo's own check: it must be able to fail."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from crossray.demo import make_checks, run_demo
from crossray.errors import UserError
from crossray.evaluation.evaluate import evaluate
from crossray.evaluation.predictions import Prediction, Provenance, write_predictions
from crossray.models.registry import list_models
from crossray.training.recipe import list_recipes

REPORTS = [
    f"the heart is {size} . the lungs are {lungs} . no {absent} ."
    for size in ("normal", "enlarged", "large", "small")
    for lungs in ("clear", "hazy", "low in volume", "hyperinflated")
    for absent in ("effusion", "pneumothorax", "fracture", "edema")
]


def checks_of(predictions: list[str], path: Path) -> list[bool]:
    rows = [
        Prediction(str(number), text, {"full": reference, "r2gen": reference})
        for number, (text, reference) in enumerate(zip(predictions, REPORTS, strict=True))
    ]
    write_predictions(path, Provenance(), rows)
    return [check.holds for check in make_checks(evaluate(path, meteor="no", resamples=200))]


def test_a_model_that_sees_passes(tmp_path: Path) -> None:
    assert checks_of(REPORTS, tmp_path / "good.jsonl") == [True]


def test_a_model_that_always_writes_the_same_fails(tmp_path: Path) -> None:
    assert checks_of([REPORTS[0]] * len(REPORTS), tmp_path / "same.jsonl") == [False]


def test_a_model_that_writes_about_other_images_fails(tmp_path: Path) -> None:
    others = [REPORTS[place] for place in np.random.default_rng(0).permutation(len(REPORTS))]
    assert checks_of(others, tmp_path / "others.jsonl") == [False]


def test_too_few_test_studies_are_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="draw more"):
        run_demo(tmp_path / "demo", studies=20, seed=0, console=Console(quiet=True))
    assert not (tmp_path / "demo" / "baseline").exists()


def test_every_system_has_a_demo() -> None:
    assert {f"{system}/demo" for system in list_models()} <= set(list_recipes())


def test_a_system_without_demo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="recipe 'nothing/demo' does not exist"):
        run_demo(tmp_path / "demo", system="nothing", studies=700, seed=0, console=Console(quiet=True))
