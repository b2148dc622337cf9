"""The commands, one file each: they check options, call a function of the package, and print.

The signature of a command's function gives its options, its docstring their help. Nothing heavy is imported at the
top of these files: `crossray --help` answers within half a second. A new command is one file and one entry in
`COMMANDS`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossray.commands.ablate import ablate
from crossray.commands.analyze import (
    analyze_alignment,
    analyze_grounding,
    analyze_liveness,
    analyze_long_tail,
    analyze_retrieval,
)
from crossray.commands.compare import compare
from crossray.commands.convert import convert_chexbert
from crossray.commands.demo import demo
from crossray.commands.evaluate import evaluate_predictions
from crossray.commands.explain import explain
from crossray.commands.export import export
from crossray.commands.generate import generate
from crossray.commands.index import index_build, index_query
from crossray.commands.inspect import inspect
from crossray.commands.label import label
from crossray.commands.models import models
from crossray.commands.prepare import (
    prepare_iu_xray,
    prepare_manifest,
    prepare_mimic_cxr,
    prepare_phantom,
    prepare_r2gen,
)
from crossray.commands.reconstruct import reconstruct
from crossray.commands.report import report
from crossray.errors import UserError
from crossray.files.guard import Kind, check_outputs


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
        alone: options that may stand without a value, and the value that this means.
        fields: parameters that are a group of options: `--decoding.method greedy` for the parameter `decoding`.
        outputs: parameters that name what the command writes, and whether that is a file or a folder.
        takes_recipe: every field of a recipe is an option too, as for `train`; the function gets what was given of
            them as its parameter `recipe_options`.
    """

    function: Callable[..., None]
    positional: Mapping[str, Any] | None = None
    lists: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fields: Sequence[str] = ()
    outputs: Mapping[str, Kind] = field(default_factory=lambda: {"out": "file", "markdown": "file", "evidence": "file"})
    takes_recipe: bool = False
    alone: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, **values: Any) -> None:
        """Check numbers and outputs, then do it.

        Raises:
            UserError: a number is too small, or an output would destroy an input or cannot be written.
        """
        for name, value in values.items():
            least = _AT_LEAST.get(name)
            if least is not None and isinstance(value, int) and value < least:
                raise UserError(f"--{name.replace('_', '-')} {value}: give {least} or more.")
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


def _paths(value: Any) -> list[Path]:
    """The existing files and folders that an argument names: a path, or a text with commas, or several of them."""
    if isinstance(value, Path):
        return [value]
    if isinstance(value, str):
        return [Path(part) for part in value.split(",") if part and len(part) < _LONGEST and Path(part).exists()]
    return [path for part in value for path in _paths(part)] if isinstance(value, list | tuple) else []


#: Longest text that may be a path.
_LONGEST = 4000

#: Smallest value of numbers that mean the same in every command.
_AT_LEAST = {
    "seed": 0, "shuffle_images": 0, "sample": 1, "resamples": 1, "batch_size": 1, "size": 1, "workers": 0, "k": 1,
    "jobs": 1, "examples": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Commands with a second name behind the first, such as `prepare phantom`.

    Attributes:
        summary: what they are for.
        commands: second name to command.
    """

    summary: str
    commands: Mapping[str, Command]


#: Of commands that write a folder.
_FOLDER: Mapping[str, Kind] = {"out": "folder"}

#: Sources of `crossray prepare`.
SOURCES: dict[str, Command] = {
    "phantom": Command(prepare_phantom, outputs=_FOLDER),
    "r2gen": Command(prepare_r2gen, outputs=_FOLDER),
    "iu-xray": Command(prepare_iu_xray, outputs=_FOLDER),
    "mimic-cxr": Command(prepare_mimic_cxr, outputs=_FOLDER),
    "manifest": Command(
        prepare_manifest,
        {
            "name": "manifest",
            "nargs": "?",
            "type": Path,
            "help": "CSV or JSONL table, one study a row; image paths are relative to its folder",
        },
        alone={"template": "-"},
        outputs=_FOLDER,
    ),
}

#: Published weights that `crossray convert` reads.
CONVERSIONS: dict[str, Command] = {
    "chexbert": Command(
        convert_chexbert,
        {
            "name": "weights",
            "type": Path,
            "help": "the published chexbert.pth; only tensors are read from it, nothing in it is run",
        },
        outputs=_FOLDER,
    ),
}

_MODELS = {
    "type": str,
    "action": "append",
    "nargs": None,
    "required": True,
    "help": "model folder, or the folder of a training run (its best model is taken); repeat it to compare several",
}

_SYSTEMS = {
    "type": str,
    "action": "append",
    "nargs": None,
    "help": "system to measure; repeat it for several; all by default",
}

_PREDICTIONS = {
    "type": Path,
    "help": "JSON lines from `crossray generate` or of your own (id, prediction, reference), or a ReXrank submission",
}

#: What `crossray analyze` looks into.
ANALYSES: dict[str, Command] = {
    "alignment": Command(analyze_alignment, lists={"model": _MODELS}, outputs=_FOLDER),
    "grounding": Command(analyze_grounding, lists={"model": _MODELS}),
    "retrieval": Command(analyze_retrieval, lists={"model": _MODELS}),
    "liveness": Command(analyze_liveness, lists={"system": _SYSTEMS}),
    "long-tail": Command(
        analyze_long_tail,
        {
            "name": "predictions",
            "nargs": "+",
            "type": str,
            "help": "JSON lines, an argument a system; files of several seeds separated by commas",
        },
    ),
}

#: What `crossray index` does.
INDEX: dict[str, Command] = {
    "build": Command(index_build),
    "query": Command(
        index_query,
        {
            "name": "images",
            "nargs": "*",
            "type": str,
            "help": "one study an argument; the views of a study separated by commas (frontal.png,lateral.png)",
        },
    ),
}

#: First name to the commands behind it.
GROUPS: dict[str, Group] = {
    "prepare": Group("Prepare a dataset on disk, once, for everything that follows.", SOURCES),
    "convert": Group("Convert published weights into a folder that needs no pickle.", CONVERSIONS),
    "analyze": Group("Look into what models have learned.", ANALYSES),
    "index": Group("The training reports that a model retrieves from.", INDEX),
}

#: Every other command but `train` and `pretrain`, whose options depend on the recipe.
COMMANDS: dict[str, Command] = {
    "generate": Command(
        generate,
        {
            "name": "images",
            "nargs": "*",
            "type": str,
            "help": "one study an argument; the views of a study separated by commas (frontal.png,lateral.png)",
        },
        fields=("decoding",),
    ),
    "evaluate": Command(evaluate_predictions, {"name": "predictions", **_PREDICTIONS}),
    "export": Command(export, {"name": "predictions", **_PREDICTIONS}),
    "compare": Command(
        compare,
        {"name": "predictions", "nargs": "+", **_PREDICTIONS},
        lists={
            "metrics": {"type": str, "help": "metrics to test, such as cider ce_f1: fewer tests are corrected less"}
        },
    ),
    "ablate": Command(
        ablate,
        {"name": "recipe", "help": "a recipe's name (cmn/phantom) or YAML file; or the folder of an ablation"},
        lists={
            "seeds": {"type": int, "default": [0, 1, 2], "help": "seeds of the runs of every row (default: 0 1 2)"},
            "rows": {"type": str, "help": "names of the rows to train now; all of them when left out"},
        },
        outputs=_FOLDER,
        takes_recipe=True,
    ),
    "report": Command(
        report,
        {
            "name": "runs",
            "nargs": "+",
            "type": Path,
            "help": "predictions files, or folders of runs that hold predictions.jsonl; all of the same studies",
        },
    ),
    "explain": Command(
        explain,
        {
            "name": "images",
            "nargs": "?",
            "type": str,
            "help": "the views of one study, separated by commas (frontal.png,lateral.png)",
        },
        lists={"model": _MODELS},
    ),
    "inspect": Command(inspect, {"name": "data", "type": Path, "help": "folder that `crossray prepare` wrote"}),
    "label": Command(label, {"name": "reports", "type": Path, "help": "CSV file with the columns study_id and report"}),
    "reconstruct": Command(reconstruct),
    "models": Command(models),
    "demo": Command(demo, outputs=_FOLDER),
}
