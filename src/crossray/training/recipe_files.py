"""The recipes of this package as files."""

from pathlib import Path

__all__ = ["RECIPES", "own_recipes"]

#: Where they are: a folder a system.
RECIPES = Path(__file__).with_name("recipes")


def own_recipes() -> list[str]:
    """Their names, such as "baseline/phantom", sorted."""
    return sorted(f"{file.parent.name}/{file.stem}" for file in RECIPES.glob("*/*.yaml"))
