"""The commands, one file each: they check options, call a function of the package, and print.

The signature of a command's function gives its options, its docstring their help. Nothing heavy is imported at the
top of these files: `crossray --help` answers within half a second. A new command is one file and one entry in
`COMMANDS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossray.commands.demo import demo
from crossray.commands.evaluate import evaluate
from crossray.commands.generate import generate
from crossray.commands.models import models
from crossray.commands.prepare import prepare_phantom, prepare_r2gen


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        function: what it calls; every parameter is an option.
        positional: options of argparse's `add_argument` for the parameter that is given without a name; `name` is
            that parameter's.
    """

    function: Callable[..., None]
    positional: Mapping[str, Any] | None = None

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (self.function.__doc__ or "").strip().splitlines()[0]


#: Sources of `crossray prepare`.
SOURCES: dict[str, Command] = {"phantom": Command(prepare_phantom), "r2gen": Command(prepare_r2gen)}

_PREDICTIONS = {
    "type": Path,
    "help": "JSON lines from `crossray generate`, or rows of your own with id, prediction and reference",
}

#: Every command but `prepare`, `train` and `pretrain`, which have a second name behind the first.
COMMANDS: dict[str, Command] = {
    "generate": Command(
        generate,
        {
            "name": "images",
            "nargs": "*",
            "type": str,
            "help": "one study an argument; the views of a study separated by commas (frontal.png,lateral.png)",
        },
    ),
    "evaluate": Command(evaluate, {"name": "predictions", **_PREDICTIONS}),
    "models": Command(models),
    "demo": Command(demo),
}
