"""Stages: what is frozen, switched and weighted, where each begins, and what the model hears about it."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
import torch
from torch import Tensor, nn

from crossray.data.batches.batch import Batch
from crossray.errors import UserError
from crossray.models.base import Event, Trainable, TrainableConfig, system_class
from crossray.training import run
from crossray.training.checkpoints import BestModel
from crossray.training.config import OptimizerConfig, Recipe, Stage, TrainerConfig
from crossray.training.module import TrainingModule
from crossray.training.run import resume, train
from crossray.training.stages import StageKeeper


@dataclass(frozen=True, kw_only=True)
class TwoPartsConfig(TrainableConfig):
    switchable: ClassVar[tuple[str, ...]] = ("second",)
    second: bool = False
    width: int = 3


class TwoParts(Trainable):
    """One scalar loss for each of two parts, and a diary."""

    system, config_class = "two_parts", TwoPartsConfig
    loss_weights: ClassVar = {"one": 1.0, "two": 1.0}

    def __init__(self, config: TwoPartsConfig) -> None:
        super().__init__()
        self.config = config
        self.one = nn.Sequential(nn.Linear(1, config.width), nn.BatchNorm1d(config.width))
        self.two = nn.Linear(config.width, 1)
        self.three = nn.Parameter(torch.zeros(1))
        self.events: list[Event] = []
        self.seconds: list[bool] = []

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        bright = batch.inputs.images.flatten(1).mean(1, keepdim=True)
        self.seconds.append(self.config.second)
        return {"one": self.one(bright).square().mean(), "two": (self.two(self.one(bright)) - 1).square().mean()}

    def frozen(self) -> list[str]:
        return ["three"]

    def advance(self, event: Event) -> None:
        self.events.append(event)


def recipe_of(stages: tuple[Stage, ...], tiny: Any, **trainer: Any) -> Recipe:
    plain = tiny("baseline/phantom")
    options = {"accelerator": "cpu", "monitor": "loss", "mode": "min", "log_every": 1, **trainer}
    return Recipe(
        system="two_parts", model=TwoPartsConfig(), data=plain.data, stages=stages, trainer=TrainerConfig(**options)
    )


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[TwoParts]:
    """The models that runs build, in order; the system is known to `run` and to recipes."""
    made: list[TwoParts] = []

    class Kept(TwoParts):
        def __init__(self, config: TwoPartsConfig) -> None:
            super().__init__(config)
            made.append(self)

    def find(name: str) -> type[Trainable]:
        return Kept if name == "two_parts" else system_class(name)

    for place in ("crossray.training.run", "crossray.training.recipe"):
        monkeypatch.setattr(f"{place}.system_class", find)
    return made


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


def test_freezing_covers_weights_and_statistics_and_ends_with_the_stage() -> None:
    model = TwoParts(TwoPartsConfig())
    keeper = StageKeeper(model)
    keeper.enter(Stage(freeze=("one.",)))
    keeper.train_mode()
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == {
        "two.weight",
        "two.bias",
    }
    assert not model.one[1].training and model.two.training
    keeper.enter(Stage(freeze=("two",)))
    keeper.train_mode()
    assert model.one[1].training and not model.two.training
    assert not model.three.requires_grad  # `frozen()` says that no stage trains it
    keeper.enter(Stage(freeze=("on",)))  # a prefix may end within a name
    keeper.train_mode()
    assert not model.one[0].weight.requires_grad and not model.one[1].training and model.two.training


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (Stage(freeze=("nothing",)), r"stages\.freeze.*'nothing'"),
        (Stage(learning_rates={"nothing": 1.0}), r"stages\.learning_rates.*'nothing'; they begin with one, three, two"),
        (Stage(freeze=("one", "t")), r"stages\.freeze' leaves no parameter to train"),
        (Stage(switches={"width": 4}), "'width'"),
        (Stage(switches={"second": "flase"}), "'second' is 'flase'; give true or false"),
    ],
)
def test_an_error_of_a_later_stage_is_found_before_training(
    later: Stage, message: str, tiny: Any, blobs: Path, tmp_path: Path, models: list[TwoParts]
) -> None:
    with pytest.raises(UserError, match=message):
        train(recipe_of((Stage(epochs=1), later), tiny), blobs, tmp_path / "run")
    assert not (tmp_path / "run" / "last.ckpt").exists()
    with pytest.raises(UserError, match=r"optimizer\.groups.*'tow\.'; they begin with one, three, two"):
        StageKeeper(models[0]).check((), OptimizerConfig(groups={"tow.": 1.0}))
    first = Stage(switches={"second": True})
    StageKeeper(models[0]).check((first,), OptimizerConfig())
    assert not models[0].config.second  # a check switches nothing


def test_what_no_stage_trains_may_depend_on_the_switches() -> None:
    class Switched(TwoParts):
        def frozen(self) -> list[str]:
            return [] if self.config.second else ["three"]

    model = Switched(TwoPartsConfig())
    keeper = StageKeeper(model)
    for second in (False, True, False):
        keeper.enter(Stage(switches={"second": second}))
        assert model.three.requires_grad == second


@pytest.mark.parametrize(
    ("values", "kept"), [((math.nan, math.nan), 2), ((math.nan, 0.5, math.nan, 0.4), 2), ((0.5, math.nan), 1)]
)
def test_a_monitor_without_a_value_does_not_keep_the_first_model(
    values: tuple[float, ...], kept: int, tiny: Any, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(values)
    monkeypatch.setattr("crossray.training.checkpoints.monitored", lambda *_: next(left))
    best = train(tiny("baseline/phantom", trainer__max_epochs=len(values)), blobs, tmp_path / "run")
    assert json.loads((best / "provenance.json").read_text())["epoch"] == kept


def test_a_metric_without_a_value_leaves_valid_json(tmp_path: Path) -> None:
    trainer = SimpleNamespace(is_global_zero=True, strategy=SimpleNamespace(barrier=lambda _: None))
    metrics = {"auroc": math.nan, "loss": 1.5}
    module = SimpleNamespace(
        step=1, epoch=0, stage_index=0, validation_metrics=metrics, model=TwoParts(TwoPartsConfig())
    )
    BestModel(tmp_path / "best", TrainerConfig(), {}).save(cast(Any, trainer), cast(Any, module))
    saved = json.loads((tmp_path / "best" / "provenance.json").read_text(), parse_constant=pytest.fail)
    assert saved["validation"] == {"auroc": None, "loss": 1.5}


def test_stages_freeze_switch_and_weigh(tiny: Any, blobs: Path, tmp_path: Path, models: list[TwoParts]) -> None:
    first = Stage(epochs=1, freeze=("two",), loss_weights={"two": 0.0})
    second = Stage(epochs=1, freeze=("one",), loss_weights={"two": 3.0}, switches={"second": True})
    states: list[dict[str, Tensor]] = []
    rates: list[float] = []
    plain = TrainingModule.on_train_start

    def on_train_start(self: TrainingModule) -> None:
        states.append(weights(self.model))
        rates.append(self.learning_rate())
        plain(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingModule, "on_train_start", on_train_start)
        train(recipe_of((first, second), tiny), blobs, tmp_path / "run")
    assert changed(states[0], states[1]) == {"one"}
    assert changed(states[1], weights(models[0])) == {"two"}
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows if row["split"] == "val"] == [0, 1]
    assert [row["step"] for row in rows if row["split"] == "train"] == list(range(1, 11))
    for row in rows:
        expected = row["loss_one"] if row["stage"] == 0 else row["loss_one"] + 3 * row["loss_two"]
        assert row["loss"] == pytest.approx(expected, rel=1e-5)
    # 5 training and 2 validation batches a stage
    assert models[0].seconds == [False] * 7 + [True] * 7


def test_the_model_hears_of_steps_validations_epochs_and_stages(
    tiny: Any, blobs: Path, tmp_path: Path, models: list[TwoParts]
) -> None:
    train(recipe_of((Stage(epochs=2), Stage(epochs=1)), tiny, accumulate=2), blobs, tmp_path / "run")
    found = [(event.kind, event.step, event.epoch, event.stage) for event in models[0].events]
    # 5 batches an epoch, two for each step and the last one alone
    assert found == [
        ("step", 1, 0, 0), ("step", 2, 0, 0), ("step", 3, 0, 0), ("validation", 3, 0, 0), ("epoch", 3, 1, 0),
        ("step", 4, 1, 0), ("step", 5, 1, 0), ("step", 6, 1, 0), ("validation", 6, 1, 0), ("epoch", 6, 2, 0),
        ("stage", 6, 2, 0),
        ("step", 7, 2, 1), ("step", 8, 2, 1), ("step", 9, 2, 1), ("validation", 9, 2, 1), ("epoch", 9, 3, 1),
        ("stage", 9, 3, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(("start", "expected"), [("last", 10), ("best", 5)])
def test_a_stage_begins_with_the_last_or_the_best_weights(
    start: Any, expected: int, tiny: Any, blobs: Path, tmp_path: Path, models: list[TwoParts],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    states: dict[int, dict[str, Tensor]] = {}
    values = iter([1.0, 2.0, 3.0])
    end, begin = TrainingModule.on_validation_epoch_end, TrainingModule.on_train_start

    def on_validation_epoch_end(self: TrainingModule) -> None:
        end(self)
        self.validation_metrics["loss"] = next(values)  # the first epoch is the best
        states[self.step] = weights(self.model)

    def on_train_start(self: TrainingModule) -> None:
        begin(self)
        if self.stage_index == 1:
            states[-1] = weights(self.model)
            assert not self.trainer.optimizers[0].state  # fresh

    monkeypatch.setattr(TrainingModule, "on_validation_epoch_end", on_validation_epoch_end)
    monkeypatch.setattr(TrainingModule, "on_train_start", on_train_start)
    train(recipe_of((Stage(epochs=2), Stage(epochs=1, start_from=start)), tiny), blobs, tmp_path / "run")
    assert changed(states[expected], states[-1]) == set()
    assert changed(states[15 - expected], states[-1]) != set()


@pytest.mark.parametrize("step", [7, 10, 12])
def test_a_run_continues_in_its_stage(
    step: int, tiny: Any, blobs: Path, tmp_path: Path, models: list[TwoParts], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(
        (Stage(epochs=2), Stage(epochs=2, freeze=("one",), switches={"second": True})), tiny, checkpoint_steps=1
    )
    train(recipe, blobs, tmp_path / "whole")
    plain = TrainingModule.training_step

    def training_step(self: TrainingModule, batch: Batch, batch_idx: int) -> Tensor:
        if self.step == step:
            raise RuntimeError("killed")
        return plain(self, batch, batch_idx)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(TrainingModule, "training_step", training_step)
        train(recipe, blobs, tmp_path / "run")
    resume(tmp_path / "run")
    assert changed(weights(models[0]), weights(models[2])) == set()
    assert models[2].config.second
    whole, continued = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "run"))
    assert (whole["step"], whole["stage"], whole["finished"]) == (20, 1, True)
    assert (continued["step"], continued["stage"], continued["finished"]) == (20, 1, True)


def test_every_stage_has_its_own_order(tiny: Any, blobs: Path, tmp_path: Path, models: list[TwoParts]) -> None:
    orders: dict[int, list[str]] = {0: [], 1: []}
    plain = TrainingModule.training_step

    def training_step(self: TrainingModule, batch: Batch, batch_idx: int) -> Tensor:
        orders[self.stage_index] += batch.guide.study
        return plain(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", training_step)
        train(recipe_of((Stage(epochs=1), Stage(epochs=1)), tiny), blobs, tmp_path / "run")
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    assert run.RECIPE in {path.name for path in (tmp_path / "run").iterdir()}
