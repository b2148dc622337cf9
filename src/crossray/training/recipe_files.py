"""Finds the recipe files of this package."""

from pathlib import Path

__all__ = ["RECIPES", "own_recipes"]

#: Folder of the recipes, with one subfolder per system.
RECIPES = Path(__file__).with_name("recipes")


def own_recipes() -> list[str]:
    """Return the sorted names of the recipes, such as "baseline/phantom"."""
    return sorted(f"{file.parent.name}/{file.stem}" for file in RECIPES.glob("*/*.yaml"))
