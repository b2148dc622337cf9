"""The ablation tables that a recipe lists: every row is the recipe with some fields replaced (docs/architecture.md).

ablations:
  table4:
    title: "Ablation of the modules"
    published: rcan/table4-iu-xray
    rows:
      - {name: "RVE", published: "RVE", overrides: {model.cgm: false, "stages.0.loss_weights.weak_contrastive": 0.0}}
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossray.errors import UserError, choose, did_you_mean
from crossray.training.config import Recipe
from crossray.training.recipe import load, read_values

_TEXTS = ("name", "title", "published")


@dataclass(frozen=True, kw_only=True)
class AblationRow:
    """A row of an ablation table: a recipe with some fields replaced.

    Attributes:
        name: name of the row in the table.
        overrides: values by dotted field, as for `recipe.load`; empty for the unchanged recipe.
        published: name of the row in the published table; None if there is no such row.
    """

    name: str
    overrides: Mapping[str, Any]
    published: str | None = None

    @property
    def slug(self) -> str:
        """The name as a folder name: lower-case letters, digits, dots and hyphens."""
        return re.sub(r"[^\w.]+", "-", self.name.lower()).strip("-.")


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """An ablation table of a recipe.

    Attributes:
        recipe: name of the recipe, or its YAML file.
        name: name of the table and its folder.
        title: heading of the table.
        rows: rows in the order of the table.
        published: identifier of the published table (`crossray.evaluation.published`); None if there is none.
    """

    recipe: str
    name: str
    title: str
    rows: tuple[AblationRow, ...]
    published: str | None = None

    def recipe_of(self, row: AblationRow, common: Mapping[str, Any] | None = None) -> Recipe:
        """The recipe of a row.

        Args:
            row: a row of this table.
            common: overrides of all rows, applied before those of the row.

        Raises:
            UserError: a field is unknown or of the wrong type.
        """
        try:
            return load(self.recipe, {**(common or {}), **row.overrides})
        except UserError as error:
            raise UserError(f"ablation {self.name}, row '{row.name}': {error}") from None

    def select(self, names: Sequence[str] | None) -> tuple[AblationRow, ...]:
        """The rows with these names, in the order of the table; all rows for None.

        Raises:
            UserError: a row does not exist.
        """
        known = [row.name for row in self.rows]
        for name in names or ():
            if name not in known:
                raise UserError(
                    f"ablation {self.name} has no row '{name}'{did_you_mean(name, known)}; its rows are "
                    f"{'; '.join(known)}."
                )
        return tuple(row for row in self.rows if names is None or row.name in names)


def find_ablation(recipe: str, name: str | None = None) -> Ablation:
    """An ablation table of a recipe; without a name, its only one.

    Raises:
        UserError: the recipe has no such table, or several to choose from.
    """
    tables = ablations(recipe)
    if not tables:
        raise UserError(f"recipe {recipe}: field 'ablations' is missing; add a table of rows and their overrides.")
    if name is None and len(tables) == 1:
        return next(iter(tables.values()))
    if name not in tables:
        said = "has several ablations" if name is None else f"has no ablation '{name}'"
        raise UserError(f"recipe {recipe} {said}; with --table, {choose(name, tables)}.")
    return tables[name]


def ablations(recipe: str) -> dict[str, Ablation]:
    """The ablation tables of a recipe by name; empty when it lists none. The fields of overrides are not yet checked.

    Args:
        recipe: name of a recipe in the package, or the path of a YAML file.

    Raises:
        UserError: there is no such recipe, or its field `ablations` is not as described above.
    """
    values, source = read_values(recipe)
    tables = _mapping(values.get("ablations", {}), f"{source}: field 'ablations'")
    return {name: _table(recipe, name, description, source) for name, description in tables.items()}


def _table(recipe: str, name: str, description: Any, source: str) -> Ablation:
    where = f"{source}: field 'ablations.{name}'"
    if not re.fullmatch(r"[\w-]+", name):
        raise UserError(f"{where}: the name of a table is the name of a folder too; use letters, digits and hyphens.")
    given = _record(description, where, required=("rows",), optional=("title", "published"))
    if not isinstance(given["rows"], list) or not given["rows"]:
        raise UserError(f"{where}: 'rows' is not a list; give at least one row.")
    rows = tuple(_row(row, f"{where}, row {place}") for place, row in enumerate(given["rows"], start=1))
    slugs = [row.slug for row in rows]
    for row in rows:
        if not row.slug or slugs.count(row.slug) > 1:
            raise UserError(
                f"{where}: the row name '{row.name}' gives the same folder as another row, or none; choose another."
            )
    title = given.get("title", f"Ablation {name} of {recipe}")
    return Ablation(recipe=recipe, name=name, title=title, rows=rows, published=given.get("published"))


def _row(values: Any, where: str) -> AblationRow:
    given = _record(values, where, required=("name",), optional=("published", "overrides"))
    overrides = _mapping(given.get("overrides", {}), f"{where}: 'overrides'")
    if "trainer.seed" in overrides:
        raise UserError(f"{where}: 'trainer.seed' cannot be set, because the runs of a row differ in it; remove it.")
    return AblationRow(name=given["name"], overrides=overrides, published=given.get("published"))


def _mapping(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise UserError(f"{where} is not a mapping; indent its fields below it.")
    return values


def _record(values: Any, where: str, *, required: Sequence[str], optional: Sequence[str]) -> dict[str, Any]:
    """A mapping with all of `required` and no other fields than `optional`."""
    given = _mapping(values, where)
    for name in required:
        if name not in given:
            raise UserError(f"{where}: field '{name}' is missing; add it.")
    for name, value in given.items():
        if name not in (*required, *optional):
            raise UserError(f"{where}: field '{name}' does not exist; {choose(name, (*required, *optional))}.")
        if name in _TEXTS and not isinstance(value, str):
            raise UserError(f"{where}: field '{name}' is not text; put it in quotation marks.")
    return given
