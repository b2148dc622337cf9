"""Runs the commands behind the result tables, each once: what is there is kept, what was interrupted goes on."""

import dataclasses
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crossray.evaluation.predictions import scores_path
from crossray.training.recipe import load

#: Written into the folder of a run when its training has ended.
_FINISHED = "finished"


@dataclass(frozen=True)
class Bench:
    """What all tables have in common.

    Attributes:
        data: prepared dataset.
        runs: folder of the runs.
        split: split that is scored: val, or test once it is there.
        seeds: seeds of every system.
        systems: systems of the tables, each with a recipe SYSTEM/RECIPE.
        recipe: second part of the recipes' names.
        external: folder of other hospitals' images, if there is one.
        share: of the epochs of every stage that is trained, for a first look.
        finished_only: tables `main` and `ablation` show the runs that are scored already and train none.
        most: most images of each hospital, evenly spread over its files; 0: all.
    """

    data: Path
    runs: Path
    split: str
    seeds: tuple[int, ...]
    systems: tuple[str, ...]
    recipe: str = "iu_xray-laptop"
    external: Path | None = None
    share: float = 1.0
    finished_only: bool = False
    most: int = 0

    def run(self, system: str, seed: int) -> Path:
        """Folder of a training run."""
        return self.runs / f"{system}-seed{seed}"

    def model(self, system: str, seed: int, before_reward: bool = False) -> Path:
        """Folder of the best model of a run, or of the best one before its reward stage."""
        run = self.run(system, seed)
        return next(run.glob("best-stage*")) if before_reward else run / "best"

    def best(self, system: str, seed: int, before_reward: bool = False) -> Path:
        """What is known of that model, its validation metrics among it."""
        return self.model(system, seed, before_reward) / "provenance.json"

    def predictions(self, system: str, seed: int, before_reward: bool = False) -> Path:
        """Predictions of that model."""
        return self.run(system, seed) / f"{'before-reward.' if before_reward else ''}{self.split}.jsonl"

    def scores(self, system: str, seed: int, before_reward: bool = False) -> Path:
        """Scores of those predictions."""
        return scores_path(self.predictions(system, seed, before_reward))

    def done(self) -> list[tuple[str, int]]:
        """Systems and seeds that are scored."""
        pairs = [(system, seed) for system in self.systems for seed in self.seeds]
        return [pair for pair in pairs if self.scores(*pair).exists()]


def crossray(*arguments: object) -> None:
    """Run `crossray ARGUMENTS` in a process of its own and say so.

    Raises:
        SystemExit: it failed; its own message has been printed.
    """
    words = [str(argument) for argument in arguments]
    print("crossray", shlex.join(words), flush=True)
    code = subprocess.run(
        [sys.executable, "-c", "from crossray.cli import main; main()", *words], check=False
    ).returncode
    if code:
        raise SystemExit(code)


def trained(bench: Bench, system: str, seed: int, overrides: Sequence[object] = ()) -> Path:
    """The folder of a finished training run: trained now, continued, or kept."""
    run = bench.run(system, seed)
    if not (run / _FINISHED).exists():
        if (run / "recipe.yaml").exists():
            crossray("train", "--resume", run)
        else:
            name = f"{system}/{bench.recipe}"
            options = [*_shorter(name, bench.share), *overrides]  # what is given last counts
            crossray("train", name, "--data", bench.data, "--out", run, "--trainer.seed", seed, *options)
        (run / _FINISHED).touch()
    return run


def _shorter(name: str, share: float) -> list[str]:
    """The options that train only a share of a recipe's epochs."""
    if share == 1:
        return []
    stages = [dataclasses.asdict(stage) for stage in load(name).stages]
    return ["--stages", json.dumps([{**stage, "epochs": max(1, round(share * stage["epochs"]))} for stage in stages])]


def scored(bench: Bench, system: str, seed: int, before_reward: bool = False) -> Path:
    """The scores of a run on the bench's split, with predictions beside them."""
    trained(bench, system, seed)
    target, scores = bench.predictions(system, seed, before_reward), bench.scores(system, seed, before_reward)
    if not target.exists():
        model = bench.model(system, seed, before_reward)
        # sampled reports differ from drawing to drawing; with a drawing for each training, deviations include that
        seeded = ("--decoding.seed", seed)
        crossray("generate", "--model", model, "--data", bench.data, "--split", bench.split, "--out", target, *seeded)
    if not scores.exists():
        crossray("evaluate", target, "--data", bench.data, "--out", scores)
    return scores
