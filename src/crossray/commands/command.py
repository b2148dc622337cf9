"""The description of a command of the command line."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossray.errors import UserError
from crossray.files.guard import Kind, check_outputs

#: `Command.outputs` of commands that write a folder.
FOLDER: Mapping[str, Kind] = {"out": "folder"}


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        function: function to call; each parameter is an option.
        positional: arguments of argparse's `add_argument` for the positional parameter, and its `name`.
        lists: the same for options with several values (--seeds 0 1 2), by name; with "action": "append" and without
            "nargs", the option is repeated instead (--model A --model B), so it can come before a positional argument.
        alone: options that may be given without a value, and the value that this implies.
        fields: parameters that are groups of options: `--decoding.method greedy` for the parameter `decoding`.
        outputs: parameters that name an output of the command, and whether it is a file or a folder.
        takes_recipe: whether every field of a recipe is also an option, as for `train`; the function receives
            them in its parameter `recipe_options`.
    """

    function: Callable[..., None]
    positional: Mapping[str, Any] | None = None
    lists: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fields: Sequence[str] = ()
    outputs: Mapping[str, Kind] = field(default_factory=lambda: {"out": "file", "markdown": "file", "evidence": "file"})
    takes_recipe: bool = False
    alone: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, **values: Any) -> None:
        """Check numbers and outputs, then run the command.

        Raises:
            UserError: a number is too small, or an output would destroy an input or cannot be written.
        """
        for name, value in values.items():
            for number in value if isinstance(value, list) else [value]:
                _check_number(name, number)
        outputs = {
            f"--{name}": (Path(values[name]), kind)
            for name, kind in self.outputs.items()
            if values.get(name) is not None
        }
        inputs = {name: _paths(value) for name, value in values.items() if name not in self.outputs}
        check_outputs(outputs, {name: paths for name, paths in inputs.items() if paths})
        self.function(**values)

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]


def _check_number(name: str, value: Any) -> None:
    least, most = _LIMITS.get(name, (None, None))
    if least is None or most is None or not isinstance(value, int) or isinstance(value, bool):
        return
    if value < least:
        raise UserError(f"--{name.replace('_', '-')} {value}: give {least} or more.")
    if value > most:
        raise UserError(f"--{name.replace('_', '-')} {value}: give {most} or less.")


def _paths(value: Any) -> list[Path]:
    """Return the existing files and folders named by an argument: a path, several separated by "," or ";", or lists."""
    if isinstance(value, Path):
        return [value]
    if isinstance(value, str):
        parts = [part.strip() for part in (value, *re.split("[,;]", value))]
        # `Path.exists` raises an error for a name that is too long
        return [Path(part) for part in parts if part and os.path.exists(part)]  # noqa: PTH110
    return [path for part in value for path in _paths(part)] if isinstance(value, list | tuple) else []


_SEED = (0, 2**63 - 1)

#: Smallest and largest value of numbers with the same meaning in every command. Larger values would take days or run
#: out of memory.
_LIMITS: Mapping[str, tuple[int, int]] = {
    "seed": _SEED, "seeds": _SEED, "shuffle_images": _SEED, "sample": (1, 10**9), "resamples": (1, 10**6),
    "batch_size": (1, 2**16), "size": (1, 2**13), "workers": (0, 2**10), "k": (1, 10**6), "jobs": (1, 2**10),
    "devices": (1, 2**16),
    "examples": (0, 10**6), "studies": (0, 10**8), "images": (0, 10**6),
}  # fmt: skip
