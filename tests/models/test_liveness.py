"""Every module that a paper names does something: at the true weights of its recipe, at first and after 50 steps.

A system declares its modules in `paper_modules`; a module that is declared is measured here without more.
"""

import functools
import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from crossray.ablation.liveness import RECIPES, STEPS, Newborn, draw_studies, newborn
from crossray.analysis.liveness import Liveness, Measured
from crossray.data.store import Dataset
from crossray.models.registry import list_models

pytestmark = pytest.mark.slow

#: Least share of an output's norm that depends on the input.
DEPENDENT = 0.05
#: Least change when an output is replaced by its mean, in multiples of what rounding changes.
OVER_ROUNDING = 100
#: Least relative gradient of a parameter, in multiples of the median parameter's that the same loss reaches.
GRADIENT = 1e-3
#: Largest perplexity of an attention after training, as a share of its slots.
PERPLEXITY = 0.5

#: The modules that the papers name.
NAMED = {
    "union": {"CRA", "CRA, attention to the basis", "diagnosis", "diagnosis prompts"},
    "baseline": {"encoder", "attention to the image"},
    "cmn": {"memory"},
    "coacl": {"denoising attention", "knowledge memory", "memory update", "MOM", "GFM", "ACLM"},
    "rcan": {"RVE", "CGM", "CGM memory", "CGM scores", "CGM information gate", "WCL"},
    "revtaf": {
        "LRE",
        "GRP",
        "LRP",
        "FVTAF",
        "MPSA",
        "FCC",
        "diagnosis",
        "diagnosis, attention to reports",
        "diagnosis prompts",
        "ALA",
    },
    "uar": {"LSU", "CRA", "CRA, attention to the basis (eq. 7)", "CRA, report vectors (eq. 10)", "TIR"},
}

#: What misses a limit; docs/liveness.md has the measurements and what is known of them.
KNOWN = {
    "revtaf/phantom": {"LRP, fresh", "LRP, trained"},
    "union/phantom": {"diagnosis, trained"},
}

#: What a recipe leaves out: over the common encoder UAR has no discrete tokens.
LEFT_OUT = {"uar/iu_xray-laptop": {"LSU"}}


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """64 drawn training studies."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return draw_studies(tmp_path_factory.mktemp("liveness") / "data")


@dataclass(frozen=True)
class Lives:
    """A system, and what is measured of it at first and after training."""

    recipe: str
    subject: Newborn
    fresh: Measured
    trained: Measured

    def modules(self) -> dict[str, Liveness]:
        """Both times, without the fresh modules that start closed."""
        declared = self.subject.model.paper_modules()
        fresh = {f"{n}, fresh": m for n, m in self.fresh.modules.items() if not declared[n].starts_closed}
        return fresh | {f"{n}, trained": m for n, m in self.trained.modules.items()}


@functools.cache
def _lives(recipe: str, folder: Path) -> Lives:
    subject = newborn(recipe, Dataset.open(folder))
    fresh = subject.measure()
    subject.train(STEPS)
    return Lives(recipe, subject, fresh, subject.measure())


@pytest.fixture(params=RECIPES)
def lives(request: pytest.FixtureRequest, studies: Dataset) -> Lives:
    return _lives(request.param, studies.path)


def test_all_systems_are_looked_at() -> None:
    assert set(list_models()) == set(NAMED)


def test_the_papers_modules_are_declared(lives: Lives) -> None:
    model = lives.subject.model
    assert set(model.paper_modules()) == NAMED[model.system] - LEFT_OUT.get(lives.recipe, set())


def test_outputs_depend_on_the_input(lives: Lives) -> None:
    known = KNOWN.get(lives.recipe, set())
    found = {n: m.dependent for n, m in lives.modules().items() if m.dependent is not None and n not in known}
    assert {name: share for name, share in found.items() if share < DEPENDENT} == {}


def test_a_mean_in_place_of_the_output_changes_the_result(lives: Lives) -> None:
    known = KNOWN.get(lives.recipe, set())
    found = {name: m.over_rounding for name, m in lives.modules().items() if name not in known}
    assert {name: change for name, change in found.items() if change < OVER_ROUNDING} == {}


def test_gradients_reach_every_parameter(lives: Lives) -> None:
    declared = lives.subject.model.paper_modules().values()
    closed = tuple(f"{module.path}." for module in declared if module.starts_closed)
    fresh = {name: ratio for name, ratio in lives.fresh.gradients.items() if not name.startswith(closed)}
    for gradients in (fresh, lives.trained.gradients):
        assert {name: ratio for name, ratio in gradients.items() if ratio < GRADIENT} == {}


def test_attention_is_no_plain_mean_after_training(lives: Lives) -> None:
    found = {n: (m.perplexity, m.slots) for n, m in lives.trained.modules.items() if m.perplexity is not None}
    assert {name: pair for name, pair in found.items() if not pair[0] < PERPLEXITY * pair[1]} == {}
