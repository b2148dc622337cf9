"""The ablation tables of recipes: they are well-formed, and every override changes what is trained."""

import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tests.models.tiny import SMALL, furnished, make_batch, small
from torch import Tensor

from crossray.ablation.rows import Ablation, AblationRow, ablations, find_ablation
from crossray.errors import UserError
from crossray.models.base import Event, ModelConfig, ReportModel, system_class
from crossray.training.config import Recipe
from crossray.training.recipe import given_fields, list_recipes, load, parse, to_dict
from crossray.training.stages import StageKeeper, loss_weights


def _marks(recipe: str) -> list[pytest.MarkDecorator]:
    """All recipes are a sweep; one of each system is not."""
    return [] if recipe.endswith("/phantom") else [pytest.mark.slow]


ROWS = [
    pytest.param(recipe, table.name, row.name, id=f"{recipe}-{table.name}-{row.slug}", marks=_marks(recipe))
    for recipe in list_recipes()
    for table in ablations(recipe).values()
    for row in table.rows
    if row.overrides
]

#: Which network is read: tiny ones stand in for all of them here.
NETWORKS = ("model.backbone.name", "model.image_tokenizer.name")

#: Sizes, which fit together only as a whole and are small here; they change the number of parameters.
SIZES = ("model.layers", "model.width", "model.heads", "model.feedforward")

#: What needs more than the four studies of this batch to matter; tests/models/test_coacl.py tests it.
LARGE_BATCHES = ("model.contrast_estimated",)

#: What a field must change, among other things: the loss that it is about, or the logits.
ABOUT = {
    "model.wcl": "weak_contrastive", "model.temperature": "contrastive", "model.contrast": "contrastive",
    "model.contrast_loss": "contrastive", "model.contrast_denominator": "contrastive",
    "model.contrast_augmentation": "contrastive", "model.align": "global", "model.negatives": "global",
    "model.mask_loss": "mask", "model.mask_reduction": "mask", "model.lre": "ranking", "model.ties": "ranking",
    "model.last_relu": "ranking", "model.entity_values": "ranking", "model.consistency": "consistency",
    "model.similarity": "consistency", "model.rve": "logits", "model.cgm": "logits", "model.gate_position": "logits",
    "model.cra": "logits", "model.mask": "logits", "model.basis": "logits", "model.fusion": "logits",
    "model.attention": "logits", "model.local_prompts": "logits", "model.memory": "logits",
}  # fmt: skip

#: Parts of a recipe that decide about training by themselves; what they do is tested where they are read.
SECTIONS = ("data", "optimizer", "schedule", "trainer", "decoding")


def tiny_config(recipe: Recipe, reference: Recipe) -> ModelConfig:
    """The recipe's system in a small size; a field in which it differs from `reference` keeps the recipe's value."""
    config = recipe.model
    names = {field.name for field in dataclasses.fields(config)}
    varied = {
        name for name in names
        if recipe.system == reference.system and getattr(config, name) != getattr(reference.model, name)
    }  # fmt: skip
    values = {name: value for name, value in small(names).items() if name not in varied}
    if "backbone" in names:  # of a varied backbone only the network is small
        kept = getattr(config, "backbone") if "backbone" in varied else SMALL["backbone"]  # noqa: B009
        values["backbone"] = dataclasses.replace(kept, name=SMALL["backbone"].name)
    found = dataclasses.replace(config, **values)
    assert isinstance(found, ModelConfig)
    return found


def fresh_model(system: str, config: ModelConfig) -> ReportModel:
    torch.manual_seed(1)
    model = furnished(system_class(system)(config))
    assert isinstance(model, ReportModel)
    return model


#: Fields that decide what parameters begin with: the compared models then keep their own fresh weights.
INITIAL = ("codebook", "memory_start", "recalibration_scale")

#: Least relative change (RMS) of an output, a hundred times what rounding leaves of float32.
CHANGE = 100 * torch.finfo(torch.float32).eps


def outputs(model: ReportModel) -> dict[str, Tensor]:
    """Logits in eval mode and every loss in train mode, of the same batch: at first, and after two optimizer steps.

    What starts closed opens with the first step; what a model keeps of its batches changes when it is told of a step.
    """
    batch = make_batch()
    found: dict[str, Tensor] = {}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for step in range(3):
        torch.manual_seed(3)
        losses = model.train().losses(batch)
        if step != 1:
            time = " after two steps" if step else ""
            with torch.no_grad():
                found["logits" + time] = model.eval().step(batch.targets.tokens, model.encode(batch.inputs)).logits
            found.update({name + time: loss.detach() for name, loss in losses.items()})
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        model.advance(Event("step", step=step + 1, steps=10))
        model.advance(Event("epoch", step=step + 1, epoch=1, steps=10))
    return found


def trained(model: ReportModel) -> dict[str, Tensor]:
    """Weights, which show what outputs may hide: a loss of turned sign, over a mask whose mean no softmax sees.

    Without vectors: of biases that a softmax takes away Adam makes steps out of rounding.
    """
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad and p.dim() > 1}


def dropouts(model: ReportModel) -> list[float]:
    """Every dropout of a model, which `without_dropout` takes away."""
    return [
        float(module.p) if isinstance(module, torch.nn.Dropout) else float(module.dropout)
        for module in model.modules()
        if isinstance(module, torch.nn.Dropout) or isinstance(getattr(module, "dropout", None), float)
    ]


def without_dropout(model: ReportModel) -> ReportModel:
    """Dropout would draw other numbers in a network with other layers."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model


@dataclass(frozen=True)
class Observed:
    """A small model: what it has at first, and what it gives and becomes in two steps without dropout."""

    dropouts: list[float]
    state: set[str]
    initial: dict[str, Tensor]
    outputs: dict[str, Tensor]
    trained: dict[str, Tensor]


def observe(model: ReportModel, given: dict[str, Tensor] | None = None) -> Observed:
    """Train a model, which begins with the weights in `given` of the same name and shape."""
    dropped, state = dropouts(model), set(model.state_dict())
    model = without_dropout(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if given and name in given and given[name].shape == parameter.shape:
                parameter.copy_(given[name])
    initial = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    return Observed(dropped, state, initial, outputs(model), trained(model))


@functools.lru_cache(maxsize=8)
def reference_of(system: str, config: ModelConfig) -> Observed:
    """What rows are compared with: mostly the same model, that of the recipe without the row."""
    return observe(fresh_model(system, config))


@functools.cache
def what_changes_in(
    system: str, config: ModelConfig, other_system: str, reference: ModelConfig
) -> tuple[list[str], list[str]]:
    """What differs between two small fresh models, whose weights are otherwise the same; the losses that both have.

    Recipes of one system differ in sizes, which are small here: most of their rows are the same two models again.
    """
    before = reference_of(other_system, reference)
    begins_alike = all(getattr(config, name, None) == getattr(reference, name, None) for name in INITIAL)
    found = observe(fresh_model(system, config), before.initial if begins_alike else None)
    changes = ["dropout"] if found.dropouts != before.dropouts else []
    # such as the statistics of features, which only training images fill
    changes += ["state"] if found.state != before.state else []
    changes += [
        name for name in sorted(found.outputs.keys() | before.outputs.keys())
        if name not in found.outputs or name not in before.outputs
        or changed(found.outputs[name], before.outputs[name])
    ]  # fmt: skip
    changes += [
        name for name in sorted(found.trained.keys() & before.trained.keys())
        if found.trained[name].shape == before.trained[name].shape
        and changed(found.trained[name], before.trained[name])
    ]  # fmt: skip
    losses = [n for n in found.outputs if n in before.outputs and "logits" not in n and "after" not in n]
    return changes, losses


def what_changes(recipe: Recipe, reference: Recipe) -> list[str]:
    """What a row does to the outputs and the training of a small model, and to the stages and other parts."""
    config, other_config = tiny_config(recipe, reference), tiny_config(reference, recipe)
    found, losses = what_changes_in(recipe.system, config, reference.system, other_config)
    changes = list(found)
    if len(recipe.stages) != len(reference.stages):
        changes.append("stages")
    keeper = StageKeeper(fresh_model(recipe.system, config))
    for stage, other in zip(recipe.stages, reference.stages, strict=False):
        keeper.enter(stage)  # refuses what it cannot freeze or switch
        weights = loss_weights(system_class(recipe.system), stage), loss_weights(system_class(reference.system), other)
        weighed = {name for name in losses if weights[0][name] != weights[1][name]}
        changes += [f"weight of {name}" for name in sorted(weighed)]
        same_weights = dataclasses.replace(other, loss_weights=stage.loss_weights)
        changes += ["stages"] if stage != same_weights else []
    return changes + [name for name in SECTIONS if getattr(recipe, name) != getattr(reference, name)]


_RECIPES: dict[tuple[str, str], Recipe] = {}


def recipe_of(ablation: Ablation, row: AblationRow) -> Recipe:
    """`ablation.recipe_of`, once for the same overrides: to read a recipe takes longer than a small model."""
    key = ablation.recipe, json.dumps(row.overrides, sort_keys=True)
    if key not in _RECIPES:
        _RECIPES[key] = ablation.recipe_of(row)
    return _RECIPES[key]


def changed(found: Tensor, before: Tensor) -> bool:
    return found.shape != before.shape or bool((found - before).norm() > CHANGE * before.norm())


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "table", "row"), ROWS)
def test_every_override_changes_what_is_trained(recipe: str, table: str, row: str) -> None:
    ablation = find_ablation(recipe, table)
    (chosen,) = ablation.select([row])
    whole = recipe_of(ablation, chosen)
    for field in chosen.overrides:  # each by itself: a second one must not hide that the first does nothing
        if field in (*NETWORKS, *SIZES, *LARGE_BATCHES):
            continue
        rest = {name: value for name, value in chosen.overrides.items() if name != field}
        try:
            without = recipe_of(ablation, dataclasses.replace(chosen, overrides=rest))
        except UserError:  # the others make no recipe without it
            continue
        changes = what_changes(whole, without)
        assert changes, f"{field} changes nothing"
        assert any(ABOUT.get(field, "") in name for name in changes), f"{field} changes only {', '.join(changes)}"


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=_marks(name)) for name in list_recipes() if ablations(name)]
)
def test_the_first_row_is_the_recipe_or_every_row_differs(recipe: str) -> None:
    for table in ablations(recipe).values():
        unchanged = [row.name for row in table.rows if not row.overrides]
        assert len(unchanged) <= 1
        recipes = [to_dict(recipe_of(table, row)) for row in table.rows]
        assert all(one not in recipes[:place] for place, one in enumerate(recipes)), "two rows are the same recipe"


def test_an_override_without_effect_is_found() -> None:
    """The test above can fail: `memory_top` beyond the rows of the memory keeps them all, as `memory_slots` does."""
    reference = load("cmn/phantom", {"model.memory_slots": 48, "model.memory_top": 48})
    assert what_changes(load("cmn/phantom", {"model.memory_slots": 48, "model.memory_top": 64}), reference) == []


def test_a_loss_weight_is_that_of_the_stage_or_of_the_system() -> None:
    reference = load("rcan/phantom")
    weight = {"stages.0.loss_weights.weak_contrastive": 0.5}
    assert what_changes(load("rcan/phantom", weight), reference) == ["weight of weak_contrastive"]
    assert loss_weights(system_class("rcan"), load("rcan/phantom", weight).stages[0])["language"] == 0.7
    # stages that are given anew keep the weights that the system declares
    (stage,) = load("rcan/phantom", {"stages": [{"epochs": 5}]}).stages
    assert loss_weights(system_class("rcan"), stage) == {"language": 0.7, "weak_contrastive": 0.3, "supervision": 0.0}
    with pytest.raises(UserError, match=r"rcan has no loss 'weak_constrastive'.*; choose one of language, weak_contr"):
        load("rcan/phantom", {"stages.0.loss_weights.weak_constrastive": 0.5})


def test_overrides_reach_entries_of_lists() -> None:
    recipe = load("baseline/phantom", {"stages.0.epochs": 2, "stages.0.loss_weights.language": 0.5})
    (stage,) = recipe.stages
    assert (stage.epochs, dict(stage.loss_weights)) == (2, {"language": 0.5})
    stages = [{"epochs": 3}, {"epochs": 4}]
    recipe = load("baseline/phantom", {"stages": stages, "stages.1.epochs": 5})
    assert [stage.epochs for stage in recipe.stages] == [3, 5]
    assert stages == [{"epochs": 3}, {"epochs": 4}]  # the caller's list is not written into


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("stages.1.epochs", r"baseline/phantom.*stages\.1\.epochs.*entries 0 to 0"),
        ("stages.first.epochs", r"stages\.first\.epochs.*not 'first'"),
        ("stages.0.epochs.more", r"'stages\.0\.epochs' has no fields"),
        ("stages.0.epoch", r"baseline/phantom.*epoch"),
        ("system.name", r"'system' has no fields"),
    ],
)
def test_a_wrong_path_is_a_sentence(field: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load("baseline/phantom", {field: 1})


def test_options_of_the_command_line_are_overrides() -> None:
    arguments = [
        "--trainer.max_epochs",
        "3",
        "--optimizer.groups",
        '{"backbone.": 0.001}',
        "--stages",
        '[{"epochs": 2}]',
    ]
    fields = given_fields("baseline/phantom", arguments)
    assert fields == {
        "trainer.max_epochs": 3, "optimizer.groups": {"backbone.": 1e-3}, "stages": [{"epochs": 2}],
    }  # fmt: skip
    assert load("baseline/phantom", fields) == parse("baseline/phantom", arguments)


BASE = "system: baseline\nablations:\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("system: baseline\nablations: [1]", "'ablations' is not a mapping"),
        (BASE + "  t: {}", r"'ablations\.t'.*'rows' is missing"),
        (BASE + "  t: {rows: []}", r"'ablations\.t'.*'rows'"),
        (BASE + "  a/b: {rows: [{name: x}]}", "letters, digits"),
        (BASE + "  t: {rows: [{name: x}], titel: y}", "'titel' does not exist"),
        (BASE + "  t: {rows: [{name: 1}]}", "row 1.*'name' is not text"),
        (BASE + "  t: {rows: [{name: x, overrides: [1]}]}", "row 1.*'overrides' is not a mapping"),
        (BASE + "  t: {rows: [{name: x, overrides: {trainer.seed: 1}}]}", r"row 1.*trainer\.seed"),
        (BASE + "  t: {rows: [{name: A b}, {name: a-b}]}", "row name 'A b'"),
    ],
)
def test_a_wrong_table_is_a_sentence(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"wrong\.yaml.*{message}"):
        ablations(str(tmp_path / "wrong.yaml"))


def test_a_wrong_field_of_a_row_names_the_row(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(BASE + "  t: {rows: [{name: x, overrides: {model.colour: 1}}]}")
    ablation = find_ablation(str(tmp_path / "r.yaml"))
    with pytest.raises(UserError, match=r"ablation t, row 'x'.*colour"):
        ablation.recipe_of(ablation.rows[0])


def test_tables_and_rows_are_found_by_name(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(BASE + "  a: {rows: [{name: x}, {name: y}]}\n  b: {rows: [{name: z}]}")
    recipe = str(tmp_path / "two.yaml")
    assert [row.name for row in find_ablation(recipe, "a").select(["y"])] == ["y"]
    assert [row.name for row in find_ablation(recipe, "a").select(None)] == ["x", "y"]
    with pytest.raises(UserError, match=r"--table, choose one of a, b"):
        find_ablation(recipe)
    with pytest.raises(UserError, match=r"no row 'z'.*x; y"):
        find_ablation(recipe, "a").select(["z"])
    with pytest.raises(UserError, match="'ablations' is missing"):
        find_ablation("vision/phantom")


def test_options_of_all_rows_come_before_those_of_the_row() -> None:
    ablation = find_ablation("cmn/phantom")
    row = AblationRow(name="x", overrides={"model.memory_top": 2})
    recipe = ablation.recipe_of(row, {"model.memory_top": 4, "model.memory_heads": 1})
    assert (recipe.model.memory_top, recipe.model.memory_heads) == (2, 1)  # type: ignore[attr-defined]


def test_a_run_keeps_its_row_alone() -> None:
    assert "ablations" not in to_dict(load("cmn/phantom"))
