"""The recipes of this package as files."""

from pathlib import Path

__all__ = ["RECIPES", "own_recipes"]

#: Their folder, with one folder per system.
RECIPES = Path(__file__).with_name("recipes")


def own_recipes() -> list[str]:
    """Their sorted names, such as "baseline/phantom"."""
    return sorted(f"{file.parent.name}/{file.stem}" for file in RECIPES.glob("*/*.yaml"))
