"""The commands, one file each: check options, call a function of the package, and print the result.

The options of a command are the parameters of its function, and their help texts are its docstring. These files import
nothing slow at the top, so `crossray --help` takes less than half a second. A new command is one file and one entry in
`COMMANDS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crossray.commands.ablate import ablate
from crossray.commands.analyze import (
    analyze_alignment,
    analyze_grounding,
    analyze_liveness,
    analyze_long_tail,
    analyze_retrieval,
)
from crossray.commands.calibrate import calibrate
from crossray.commands.command import FOLDER, Command
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
from crossray.commands.prepare import SourceCommands
from crossray.commands.reconstruct import reconstruct
from crossray.commands.scorecard import scorecard
from crossray.commands.serve import keys, serve


@dataclass(frozen=True)
class Group:
    """Commands with subcommands, such as `prepare phantom`.

    Attributes:
        summary: one sentence for the help.
        commands: commands by subcommand name.
    """

    summary: str
    commands: Mapping[str, Command]


#: Published weights that `crossray convert` reads.
CONVERSIONS: dict[str, Command] = {
    "chexbert": Command(
        convert_chexbert,
        {
            "name": "weights",
            "type": Path,
            "help": "the published chexbert.pth; only its tensors are read, no code in it is run",
        },
        outputs=FOLDER,
    ),
}

_MODELS = {
    "type": str,
    "action": "append",
    "nargs": None,
    "required": True,
    "help": "model folder, or the folder of a training run (its best model is taken); repeat to compare several",
}

_RECIPES = {
    "type": str,
    "action": "append",
    "nargs": None,
    "help": "recipe to measure; repeat for several; by default the phantom and laptop recipes of every system",
}

_PREDICTIONS = {
    "type": Path,
    "help": "JSON lines from `crossray generate` or of your own (id, prediction, reference), or a ReXrank submission",
}

#: The analyses of `crossray analyze`.
ANALYSES: dict[str, Command] = {
    "alignment": Command(analyze_alignment, lists={"model": _MODELS}, outputs=FOLDER),
    "grounding": Command(analyze_grounding, lists={"model": _MODELS}),
    "retrieval": Command(analyze_retrieval, lists={"model": _MODELS}),
    "liveness": Command(analyze_liveness, lists={"recipe": _RECIPES, "model": {**_MODELS, "required": False}}),
    "long-tail": Command(
        analyze_long_tail,
        {
            "name": "predictions",
            "nargs": "+",
            "type": str,
            "help": "JSON lines files, one argument per system; separate the files of several seeds by commas",
        },
    ),
}

#: The commands of `crossray index`.
INDEX: dict[str, Command] = {
    "build": Command(index_build),
    "query": Command(
        index_query,
        {
            "name": "images",
            "nargs": "*",
            "type": str,
            "help": "one study per argument: its views separated by commas (frontal.png,lateral.png), or their folder",
        },
    ),
}

#: Groups of subcommands, by name.
GROUPS: dict[str, Group] = {
    "prepare": Group("Prepare a dataset on disk, once, for training and evaluation.", SourceCommands()),
    "convert": Group("Convert published weights to a folder without pickle files.", CONVERSIONS),
    "analyze": Group("Analyze what models have learned.", ANALYSES),
    "index": Group("Build and query the retrieval index of a model.", INDEX),
}

#: All other commands except `train` and `pretrain`, whose options depend on the recipe (`crossray.cli`).
COMMANDS: dict[str, Command] = {
    "generate": Command(
        generate,
        {
            "name": "images",
            "nargs": "*",
            "type": str,
            "help": "one study per argument: its views separated by commas (frontal.png,lateral.png), or their folder",
        },
        fields=("decoding",),
    ),
    "evaluate": Command(evaluate_predictions, {"name": "predictions", **_PREDICTIONS}),
    "calibrate": Command(calibrate),
    "export": Command(export, {"name": "predictions", **_PREDICTIONS}, outputs={}),  # `export` checks it itself
    "compare": Command(
        compare,
        {"name": "predictions", "nargs": "+", **_PREDICTIONS},
        lists={
            "metrics": {
                "type": str,
                "help": "metrics to test, such as cider ce_f1; fewer tests need less correction",
            }
        },
    ),
    "ablate": Command(
        ablate,
        {"name": "recipe", "help": "a recipe's name (cmn/phantom) or YAML file; or the folder of an ablation"},
        lists={
            "seeds": {"type": int, "default": [0, 1, 2], "help": "seeds of the runs of every row (default: 0 1 2)"},
            "rows": {"type": str, "help": "names of the rows to train now; all by default"},
        },
        outputs=FOLDER,
        takes_recipe=True,
    ),
    "scorecard": Command(
        scorecard,
        {
            "name": "runs",
            "nargs": "+",
            "type": Path,
            "help": "predictions files, or run folders that contain predictions.jsonl; all on the same studies",
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
    "serve": Command(
        serve,
        lists={
            "model": {**_MODELS, "help": "model folder, or NAME=FOLDER; repeat to serve several"},
            "dicom_callers": {
                "type": str,
                "help": "AE titles that may send by DICOM; required with another --host",
            },
            "dicomweb": {"type": str, "help": "root URLs of DICOMweb archives from which studies may be requested"},
        },
    ),
    "keys": Command(
        keys,
        lists={"scopes": {"type": str, "help": "rights of a new key: report, metrics, admin; report by default"}},
    ),
    "demo": Command(demo, outputs=FOLDER),
}

#: Old command names, which still work but print a notice (docs/project/deprecation.md).
RENAMED: dict[str, str] = {"report": "scorecard"}
