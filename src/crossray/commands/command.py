"""What a command of the command line is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        function: what it calls; every parameter is an option.
        positional: options of argparse's `add_argument` for the parameter that is given without a name; `name` is
            that parameter's.
        lists: the same for options that take several values (--seeds 0 1 2), by their name; with "action": "append"
            and no "nargs" the option is repeated instead (--model A --model B), so that it can stand before what has no
            name.
        takes_recipe: every field of a recipe is an option too, as for `train`; the function gets what was given of
            them as its parameter `recipe_options`.
    """

    function: Callable[..., None]
    positional: Mapping[str, Any] | None = None
    lists: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    takes_recipe: bool = False

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]
