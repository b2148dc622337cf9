"""Recipes: all of them are valid, overrides reach their field, and mistakes are named."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from crossray.errors import UserError
from crossray.training.config import Recipe, Stage
from crossray.training.recipe import from_dict, list_recipes, load, parse, recipe_parser, to_yaml

RECIPES = list_recipes()
#: All recipes are a sweep; one of each system is not.
SWEEP = [pytest.param(name, marks=[] if name.endswith("/phantom") else pytest.mark.slow) for name in RECIPES]


def test_the_recipes_of_the_issue_exist() -> None:
    assert {"baseline/phantom", "baseline/iu_xray", "baseline/mimic_cxr", "baseline/demo", "cmn/phantom",
            "cmn/iu_xray", "cmn/mimic_cxr", "vision/phantom"} <= set(RECIPES)  # fmt: skip


@pytest.mark.parametrize("name", SWEEP)
def test_a_recipe_survives_yaml_and_the_command_line(name: str) -> None:
    recipe = load(name)
    assert from_dict(yaml.safe_load(to_yaml(recipe)), "text") == recipe
    assert parse(name, []) == recipe


@pytest.mark.parametrize("name", SWEEP)
def test_overrides_reach_their_field(name: str) -> None:
    # an image tokenizer has no backbone, but a size of its own
    field, value = ("model.width", 8) if name.startswith("tokenizer/") else ("model.backbone.trainable", False)
    options = [f"--{field}={str(value).lower()}", "--trainer.max_epochs", "3", "--data.image.size", "96"]
    recipe = parse(name, options)
    found = recipe.model.width if "width" in field else recipe.model.backbone.trainable
    assert (recipe.trainer.max_epochs, found, recipe.data.image.size) == (3, value, 96)
    assert recipe.stages == load(name).stages
    assert load(name, {"trainer.max_epochs": 3, field: value, "data.image.size": 96}) == recipe


def test_a_mode_goes_with_its_monitor() -> None:
    losses = {"trainer.monitor": "loss", "trainer.mode": "min"}
    assert load("baseline/phantom", losses).trainer.mode == "min"
    load("baseline/phantom", {**losses, "stages": [{"mode": "min"}]})
    load("baseline/phantom", {"stages": [{"monitor": "loss_language", "mode": "min"}]})
    load("baseline/phantom", {"trainer.monitor": "cider+loss_language", "trainer.mode": "min"})  # nobody knows


def test_lists_and_mappings_are_overrides_too() -> None:
    recipe = parse(
        "baseline/iu_xray",
        ["--stages", '[{"epochs": 2, "freeze": ["backbone."]}, {"epochs": 1, "start_from": "best"}]',
         "--optimizer.groups", '{"encoder.": 0.001}'],
    )  # fmt: skip
    assert recipe.stages == (Stage(epochs=2, freeze=("backbone.",)), Stage(epochs=1, start_from="best"))
    assert recipe.optimizer.groups == {"encoder.": 1e-3}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"trainer.max_epoch": 3}, "baseline/phantom.*max_epoch"),
        ({"model.memory_slots": 3}, "baseline/phantom.*memory_slots"),
        ({"model.layers": "many"}, r"baseline/phantom.*model\.layers is 'many'; give a whole number"),
        ({"model.heads": 5}, r"model\.heads' is 5, which does not divide model\.width \(256\)"),
        ({"model.heads": 0}, r"model\.heads' is 0; give a whole number of at least 1"),
        ({"model.layers": 0}, r"model\.layers' is 0; give"),
        ({"model.width": -8}, r"model\.width' is -8; give"),
        ({"model.width": 33, "model.heads": 3}, r"model\.width' is 33; the position codes need an even number"),
        ({"model.dropout": 1.5}, r"model\.dropout' is 1\.5; give a number from 0 to below 1"),
        ({"model.label_smoothing": 2}, r"model\.label_smoothing' is 2"),
        ({"optimizer.name": "sgd"}, r"baseline/phantom.*optimizer\.name"),
        ({"stages": [{"epoch": 1}]}, "baseline/phantom.*stages.*epoch"),
        ({"stages": []}, "baseline/phantom.*stages"),
        ({"nonsense": 1}, "baseline/phantom.*nonsense"),
        ({"trainer": 1}, "baseline/phantom.*trainer"),
        ({"trainer.devices": 0}, r"trainer\.devices"),
        ({"data.image.size": 0}, "baseline/phantom.*size"),
        ({"system": "nothing"}, "baseline/phantom.*system.*nothing"),
        ({"system": "baselin"}, "did you mean 'baseline'"),
        ({"trainer.monitor": "ciderr"}, "did you mean 'cider'"),
        ({"trainer.mode": "min"}, r"trainer\.mode' is min, which selects the model with the worst .*; set it to max"),
        ({"trainer.monitor": "loss"}, r"trainer\.mode' is max, which selects the model with the worst loss; .* min"),
        ({"stages": [{"monitor": "loss_language"}]}, r"stages\.mode' is max, which selects .* worst loss_language"),
        ({"optimizer.groups": {"backbone.": -1e-4}}, r"optimizer\.groups\.backbone\.' is -0\.0001; give at least 0"),
        ({"optimizer.learning_rate": math.nan}, r"optimizer\.learning_rate' is nan"),
        ({"optimizer.betas": [0.9, 1.5]}, r"optimizer\.betas"),
        ({"optimizer.eps": -1e-8}, r"optimizer\.eps"),
        ({"stages": [{"learning_rates": {"": -1.0}}]}, r"stages\.learning_rates\.' is -1\.0"),
        ({"stages": [{"loss_weights": {"language": 0.0}}]}, r"stages\.loss_weights' is 0 for every loss"),
        ({"stages": [{"mode": "min"}]}, r"stages\.mode' is min, but a stage without 'stages\.monitor'"),
    ],
)
def test_a_wrong_field_is_named(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load("baseline/phantom", overrides)


@pytest.mark.parametrize("argument", ["--trainer.max_epoch=3", "--model.layers=many", "--model.vocabulary_size=5"])
def test_a_wrong_option_is_named(argument: str) -> None:
    with pytest.raises(UserError, match=argument.split("=")[0].removeprefix("--").replace(".", r"\.")):
        parse("baseline/phantom", [argument])


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="baseline/phantom"):
        load("baseline/none")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    with pytest.raises(UserError, match=r"broken\.yaml: not valid YAML"):
        load(str(broken))
    broken.write_text("- a")
    with pytest.raises(UserError, match="not a mapping"):
        load(str(broken))
    broken.write_text("model: {}")
    with pytest.raises(UserError, match="field 'system' is missing"):
        load(str(broken))
    broken.write_bytes(b"system: baseline  # \xe9")
    with pytest.raises(UserError, match=r"broken\.yaml: not valid YAML"):
        load(str(broken))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer: {seed: 7}\nsystem: baseline\ntrainer: {max_epochs: 3}", "field 'trainer' .* in line 3; join"),
        ("system: baseline\ntrainer:\n  seed: 7\n  seed: 8", "field 'seed' .* in line 4"),
        ("system: baseline\nstages: [{epochs: 1, epochs: 2}]", "field 'epochs' .* in line 2"),
    ],
)
def test_a_repeated_field_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"twice\.yaml: {message}"):
        load(str(tmp_path / "twice.yaml"))


def test_anchors_and_merged_fields_are_no_repetition(tmp_path: Path) -> None:
    (tmp_path / "merged.yaml").write_text(
        "system: baseline\noptimizer: &o {learning_rate: 0.1}\n"
        "ablations: {a: {rows: [{<<: [*o, &p {x: 1}], learning_rate: 1}, *o, *p]}}"
    )
    assert load(str(tmp_path / "merged.yaml")).optimizer.learning_rate == 0.1


@pytest.mark.parametrize("name", SWEEP)
def test_help_explains_every_option(name: str) -> None:
    unexplained = [
        action.dest for action in recipe_parser(name)._actions
        if not (action.help or "").strip() or (action.help or "").startswith("(type")
    ]  # fmt: skip
    assert unexplained == []


def test_published_settings() -> None:
    # docs/reference/r2gen-family.md, rows R2Gen and R2GenCMN
    expected = {
        "baseline/iu_xray": (5e-5, 1e-4, 50, 0.1, 100, 3, 60, (0.9, 0.999)),
        "baseline/mimic_cxr": (5e-5, 1e-4, 1, 0.8, 30, 10, 100, (0.9, 0.999)),
        "cmn/iu_xray": (1e-4, 5e-4, 10, 0.8, 100, 3, 60, (0.9, 0.98)),
        "cmn/mimic_cxr": (1e-4, 5e-4, 3, 0.8, 30, 10, 100, (0.9, 0.98)),
    }
    for name, values in expected.items():
        recipe = load(name)
        found = (
            recipe.optimizer.groups["backbone."], recipe.optimizer.learning_rate, recipe.schedule.step_epochs,
            recipe.schedule.gamma, recipe.stages[0].epochs, recipe.data.min_count, recipe.data.max_length,
            recipe.optimizer.betas,
        )  # fmt: skip
        assert found == values, name
        assert (recipe.optimizer.amsgrad, recipe.optimizer.weight_decay, recipe.data.batch_size) == (True, 5e-5, 16)


@pytest.mark.parametrize(("cap", "expected"), [(0, (3, 2)), (4, (3, 1)), (2, (2, 0))])
def test_epochs_are_capped_over_all_stages(cap: int, expected: tuple[int, ...], tiny: Any) -> None:
    recipe: Recipe = tiny(trainer__max_epochs=cap, stages=[{"epochs": 3}, {"epochs": 2}])
    assert recipe.stage_epochs() == expected
