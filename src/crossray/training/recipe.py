"""Reads recipes from YAML and the command line, and writes them as YAML.

The options of the parser are generated from the dataclasses in `config.py` and the system's configuration, so `crossray
train RECIPE --help` explains every field, and unknown fields and wrong types are rejected.
"""

import argparse
import copy
import dataclasses
import functools
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from crossray.decoding.config import DecodingConfig
from crossray.errors import UserError, choose, did_you_mean
from crossray.models.base import SYSTEMS, TrainableConfig, config_from_dict, system_class
from crossray.parser_messages import plain_message
from crossray.training.config import (
    DataConfig,
    OptimizerConfig,
    Recipe,
    RewardConfig,
    ScheduleConfig,
    Stage,
    TrainerConfig,
)
from crossray.training.recipe_files import RECIPES, own_recipes
from crossray.training.selection import check_modes, check_monitors
from crossray.training.stages import loss_weights

#: Fields of a system's configuration that are not in recipes, because training sets them from the dataset and `data`.
FILLED_FROM_DATA = frozenset({"vocabulary_size", "status_ids", "observations", "max_length", "views", "image_size"})

#: PyYAML's loader in C, if it is installed; it reads the packaged recipes in a tenth of the time.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "trainer": TrainerConfig,
    "decoding": DecodingConfig,
    "reward": RewardConfig,
}


def list_recipes() -> list[str]:
    """Return the sorted names of all recipes, such as "baseline/phantom", including those of plug-in packages."""
    others = [_plugin_recipes(system) for system in SYSTEMS.names() if system in SYSTEMS.plugins()]
    theirs = [f"{folder.name}/{file.stem}" for folder in others for file in folder.glob("*.yaml")]
    return sorted([*own_recipes(), *theirs])


def load(name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Load a recipe, optionally with some fields replaced.

    Args:
        name: name of a recipe (`list_recipes`), or the path of a YAML file.
        overrides: values by dotted field, such as `{"trainer.max_epochs": 3, "stages.0.epochs": 2}`; a number in the
            path is an index in a list, counted from 0.

    Raises:
        UserError: the recipe or a field does not exist, or a field has the wrong type.

    Example:
        >>> recipe = load("baseline/phantom", {"trainer.max_epochs": 3})
        >>> recipe.system, recipe.trainer.max_epochs
        ('baseline', 3)
    """
    values, source = read_values(name)
    for field, value in (overrides or {}).items():
        _override(values, field, copy.deepcopy(value), source)
    return _checked(from_dict(values, source))


def recipe_parser(name: str) -> ArgumentParser:
    """Build the parser of `crossray train NAME`: an option for every field, with the recipe's values as defaults.

    Raises:
        UserError: the recipe does not exist or has an invalid field.
    """
    values, source = read_values(name)
    parser = _new_parser(_config_class(values, source), f"crossray train {source.removeprefix('recipe ')}")
    parser.set_defaults(_flat(_parse(values, source)))
    return parser


def parse(name: str, arguments: Sequence[str]) -> Recipe:
    """Load a recipe with command-line overrides such as `["--trainer.max_epochs", "3", "--model.layers=2"]`.

    Raises:
        UserError: the recipe or an override is invalid.
        SystemExit: `arguments` contain `--help`, which prints all options.
    """
    values = _arguments(name, arguments, defaults=True)
    return _checked(_recipe(read_values(name)[0]["system"], values, "command line"))


def given_fields(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Convert command-line options such as `["--trainer.max_epochs", "3"]` to overrides for `load`.

    Raises:
        UserError: the recipe or an option is invalid.
    """
    return _flat(_arguments(name, arguments, defaults=False))


def from_dict(values: Mapping[str, Any], source: str) -> Recipe:
    """Restore a recipe from the result of `to_dict`; `source` is its name in error messages.

    Modes are not checked, so that runs from before that check can still be resumed.
    """
    parsed = _parse(values, source)
    return _recipe(values["system"], parsed, source)


def read_values(name: str) -> tuple[dict[str, Any], str]:
    """Read the content of a recipe, without checks; return it with the name of the recipe for error messages.

    Raises:
        UserError: the recipe does not exist or is not a YAML mapping.
    """
    packaged = RECIPES / f"{name}.yaml"
    system, _, file = name.partition("/")
    if file and not packaged.is_file() and system in SYSTEMS.plugins():
        packaged = _plugin_recipes(system) / f"{file}.yaml"
    if not name.startswith(("/", ".")) and packaged.is_file():
        source, path = f"recipe {name}", packaged
    elif Path(name).is_file():
        source, path = name, Path(name)
    else:
        known = list_recipes()
        raise UserError(f"recipe '{name}' does not exist{did_you_mean(name, known)}; name a YAML file or one of these: "
                        f"{', '.join(_of_system(known, system))}.")  # fmt: skip
    try:
        values = _yaml_values(path.read_text(encoding="utf-8"), source)
    except (yaml.YAMLError, ValueError) as error:  # not UTF-8, or a date such as 2030-99-99
        raise UserError(f"{source}: not valid YAML ({_sentence(error)}); correct the file.") from None
    if not isinstance(values, dict):
        raise UserError(f"{source}: not a mapping of fields; begin with 'system: NAME'.")
    return values, source


def _yaml_values(text: str, source: str) -> Any:
    """Parse YAML and refuse repeated keys, of which PyYAML would silently keep only the last.

    Raises:
        UserError: a key is repeated in one mapping.
    """
    loader = _LOADER(text)
    root = loader.get_single_node()
    nodes, seen = [root], set[int]()
    while nodes:
        node = nodes.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))  # aliases share a node
        if not isinstance(node, yaml.MappingNode):
            nodes += node.value
            continue
        names = set[str]()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise UserError(f"{source}: field '{key.value}' is given a second time in line "
                                    f"{key.start_mark.line + 1}; join the two.")  # fmt: skip
                names.add(key.value)
            nodes.append(value)
    return None if root is None else loader.construct_document(root)


def _of_system(recipes: Sequence[str], system: str) -> list[str]:
    """Return the recipes of one system, to keep error messages short; all recipes if it has none."""
    return [name for name in recipes if name.startswith(f"{system}/")] or list(recipes)


def _plugin_recipes(system: str) -> Path:
    """Return the folder of the recipes of a plug-in system: recipes/SYSTEM next to the module of the system.

    Raises:
        UserError: that package cannot be imported.
    """
    return Path(inspect.getfile(system_class(system))).parent / "recipes" / system


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Convert a recipe to dicts and lists for YAML, without the fields that depend on the dataset."""
    values = _plain(dataclasses.asdict(recipe))
    values["model"] = {name: value for name, value in values["model"].items() if name not in FILLED_FROM_DATA}
    return dict(values)


def to_yaml(recipe: Recipe) -> str:
    """Convert a recipe to YAML text, which `load` can read."""
    return str(yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True))


def _arguments(name: str, arguments: Sequence[str], *, defaults: bool) -> dict[str, Any]:
    parser = recipe_parser(name)
    try:
        return dict(parser.parse_args(list(arguments), defaults=defaults).as_dict())
    except argparse.ArgumentError as error:
        raise UserError(
            _said("command line", parser, error, f"`crossray train {name} --help` lists all options")
        ) from None


def _override(values: dict[str, Any], field: str, value: Any, source: str) -> None:
    """Replace one dotted field; add sections that the recipe lacks."""
    *path, last = field.split(".")
    target: Any = values
    for depth, part in enumerate([*path, last]):
        if isinstance(target, list):
            if not part.isdecimal() or int(part) >= len(target):
                raise UserError(f"{source}: field '{field}': '{'.'.join(path[:depth])}' has the entries 0 to "
                                f"{len(target) - 1}, not '{part}'; choose one of them.")  # fmt: skip
        elif not isinstance(target, dict):
            raise UserError(f"{source}: field '{field}': '{'.'.join(path[:depth])}' has no fields; "
                            "shorten the name.")  # fmt: skip
        place = int(part) if isinstance(target, list) else part
        if depth == len(path):
            target[place] = value
        else:
            target = target.setdefault(place, {}) if isinstance(target, dict) else target[place]


def _config_class(values: Mapping[str, Any], source: str) -> type:
    system = values.get("system")
    if not isinstance(system, str):
        raise UserError(f"{source}: field 'system' is missing; choose one that `crossray models` lists.")
    try:
        return system_class(system).config_class
    except UserError as error:
        raise UserError(f"{source}: field 'system': {error}") from None


def _new_parser(config_class: type, prog: str) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, prog=prog)
    parser.add_class_arguments(config_class, "model", skip=set(FILLED_FROM_DATA), instantiate=False)
    for name, section in _SECTIONS.items():
        parser.add_class_arguments(section, name, instantiate=False)
    parser.add_argument(
        "--stages", type=list[Stage], default=[Stage()],
        help="stages of training, a JSON list of objects with the fields of crossray.training.config.Stage: "
        + ", ".join(field.name for field in dataclasses.fields(Stage)),
    )  # fmt: skip
    return parser


@functools.cache
def _reader(config_class: type) -> ArgumentParser:
    """Return the parser of recipe files. It is cached because building it takes about as long as parsing a recipe."""
    return _new_parser(config_class, "crossray train")


def _parse(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    parser = _reader(_config_class(values, source))
    known = {"system", "model", "stages", "ablations", *_SECTIONS}
    for name, value in values.items():
        if name not in known:
            raise UserError(f"{source}: field '{name}' does not exist; {choose(name, sorted(known))}.")
        if name not in ("system", "stages") and not isinstance(value, dict):
            raise UserError(f"{source}: field '{name}' is not a mapping; indent its fields below it.")
    try:
        parsed = parser.parse_object({name: values[name] for name in values if name not in ("system", "ablations")})
    except argparse.ArgumentError as error:
        raise UserError(_said(source, parser, error, "`crossray train RECIPE --help` lists all fields")) from None
    return dict(parsed.as_dict())


def _checked(recipe: Recipe) -> Recipe:
    check_modes(recipe)
    return recipe


def _recipe(system: str, values: Mapping[str, Any], source: str) -> Recipe:
    model = config_from_dict(system_class(system).config_class, values["model"], source)
    sections: dict[str, Any] = {name: config_from_dict(kind, values[name], source) for name, kind in _SECTIONS.items()}
    stages = tuple(
        stage if isinstance(stage, Stage) else config_from_dict(Stage, stage, source) for stage in values["stages"]
    )
    if not stages:
        raise UserError(f"{source}: field 'stages' is empty; give at least one stage.")
    recipe = Recipe(system=system, model=model, stages=stages, **sections)
    check_sizes(model, source)
    check_names(recipe)
    return recipe


def check_sizes(model: TrainableConfig, source: str) -> None:
    """Check before training that the sizes of a network fit together.

    Raises:
        UserError: a number of layers or heads or a width is below 1, a number of heads does not divide its width, or a
            dropout or label smoothing is not from 0 to below 1; the message names the field.
    """
    numbers = {
        field.name: value
        for field in dataclasses.fields(model)
        if isinstance(value := getattr(model, field.name), int | float) and not isinstance(value, bool)
    }
    for name, value in numbers.items():
        place = f"{source}: field 'model.{name}' is {value}"
        if name.endswith(("dropout", "smoothing")) and not 0 <= value < 1:
            raise UserError(f"{place}; give a number from 0 to below 1.")
        # 0 is the default of some widths, which then follow from others
        least = 1 if name.endswith(("layers", "heads")) or getattr(type(model), name, None) != 0 else 0
        if name.endswith(("layers", "heads", "width", "feedforward")) and value < least:
            raise UserError(f"{place}; give a whole number of at least {least}.")
        if name.endswith("heads"):
            width = name.replace("heads", "width") if name.replace("heads", "width") in numbers else "width"
            if width in numbers and numbers[width] % value:
                raise UserError(f"{place}, which does not divide model.{width} ({numbers[width]}); change one.")
    # position codes are sinusoids, unless `positions` says how many are learned
    if "heads" in numbers and "positions" not in numbers and numbers.get("width", 0) % 2:
        raise UserError(f"{source}: field 'model.width' is {numbers['width']}; the position codes need an even number.")


def check_names(recipe: Recipe) -> None:
    """Check before training that all losses and metrics of a recipe exist.

    Raises:
        UserError: a loss or metric does not exist; the message lists the available ones.
    """
    system = system_class(recipe.system)
    for stage in recipe.stages:
        loss_weights(system, stage)
    check_monitors(system, recipe)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    # A field of type dict (such as parameter groups) is a value; only nested dataclasses are flattened.
    flat: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, dict) and name not in ("groups",)
        flat.update(_flat(value, f"{prefix}{name}.") if nested else {prefix + name: value})
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _said(source: str, parser: ArgumentParser, error: Exception, remedy: str) -> str:
    stages = [f"stages.{field.name}" for field in dataclasses.fields(Stage)]
    options = [name.removeprefix("--") for name in parser._option_string_actions if name.startswith("--")]
    return f"{source}: {plain_message(str(error), [*options, *stages], remedy)}."


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
