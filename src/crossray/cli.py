"""The command line: every command, no logic. Nothing heavy is imported before a command needs it."""

import argparse
import hashlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser, Namespace

from crossray import __version__
from crossray.errors import UserError

#: Exit code of a user's mistake, as argparse uses it.
MISTAKE = 2
#: Exit code of a demo whose own check fails.
FAILED = 1
#: Exit code after Ctrl-C, as shells use it.
INTERRUPTED = 130


#: The parser calls an option by its place among the commands (prepare.phantom.out); a user types --out.
_KEY = re.compile(r"\b(?:prepare\.\w+|generate|evaluate|models|demo)\.(\w+)")


class Parser(ArgumentParser):
    """Says a mistake in one sentence instead of the whole usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: D102
        sentence = _KEY.sub(r"--\1", " ".join(message.split()).rstrip("."))
        sys.stderr.write(f"{self.prog.replace(' [options]', '')}: {sentence}; --help explains every option.\n")
        raise SystemExit(MISTAKE)


# -- commands: the docstrings are the help texts ------------------------------------------------------------


def prepare_phantom(
    out: Path,
    studies: int = 600,
    size: int = 256,
    seed: int = 0,
    severity: Literal["easy", "realistic"] = "realistic",
    like: Path | None = None,
    tags: Path | None = None,
    workers: int | None = None,
) -> None:
    """Draw synthetic radiographs with known findings, masks and reports; or images for true reports (--like, --tags).

    Args:
        out: folder of the prepared dataset; an unfinished one is continued.
        studies: number of studies to draw (without --like).
        size: short side of the stored images in pixels.
        seed: the same seed draws the same studies, whatever the number of workers.
        severity: how clearly findings show: easy or realistic.
        like: R2Gen's annotation.json: keep its reports and splits, draw the images.
        tags: indiana_reports.csv with the MeSH tags that say what to draw for --like.
        workers: processes that draw; 0 draws in this one; default: one a core.
    """
    from crossray.data.dataset import write_dataset
    from crossray.data.phantom.source import like_studies, phantom_studies, tag_notes

    if (like is None) != (tags is None):
        raise UserError("--like and --tags belong together: give R2Gen's annotation.json and indiana_reports.csv.")
    source: dict[str, Any] = {"kind": "phantom", "seed": seed, "severity": severity, "synthetic_images": True}
    notes: dict[str, Any] = {}
    if like is not None and tags is not None:
        records = like_studies(like, tags, seed, severity)
        source |= {"like": _file(like), "tags": _file(tags)}
        notes = tag_notes(records)
    else:
        if studies < 1:
            raise UserError(f"--studies {studies}: draw at least 1.")
        records = phantom_studies(studies, seed, severity)
        source |= {"studies": studies}
    with _progress("drawing studies") as progress:
        dataset = write_dataset(out, records, size=size, source=source, workers=workers, notes=notes, progress=progress)
    _print_dataset(dataset)


def prepare_r2gen(
    annotation: Path,
    images: Path,
    out: Path,
    size: int = 256,
    cleaner: Literal["legacy", "legacy_mimic", "fixed", "none"] = "legacy",
    workers: int | None = None,
) -> None:
    """Prepare a dataset in R2Gen's layout: annotation.json and a folder of images.

    Args:
        annotation: R2Gen's annotation.json with the keys train, val and test.
        images: folder that the annotation's image paths are relative to.
        out: folder of the prepared dataset; an unfinished one is continued.
        size: short side of the stored images in pixels.
        cleaner: how report texts are cleaned for the statistics, and by default in training.
        workers: processes that read; 0 reads in this one; default: one a core.
    """
    from crossray.data.dataset import write_dataset
    from crossray.data.sources.r2gen import read_r2gen

    studies = read_r2gen(annotation, images)
    source = {"kind": "r2gen", "annotation": _file(annotation), "synthetic_images": False}
    with _progress("reading studies") as progress:
        dataset = write_dataset(
            out, studies, size=size, source=source, cleaner=cleaner, workers=workers,
            progress=progress,
        )  # fmt: skip
    _print_dataset(dataset)


def generate(
    images: list[str],
    model: Path,
    out: Path,
    data: Path | None = None,
    split: Literal["train", "val", "test"] = "test",
    batch_size: int = 16,
    device: str = "cpu",
) -> None:
    """Write the reports of some images, or of one split of a prepared dataset.

    Args:
        images: one study an argument; the views of a study separated by commas (frontal.png,lateral.png).
        model: model folder, or the folder of a training run (its best model is taken).
        out: predictions as JSON lines.
        data: prepared dataset, instead of images.
        split: which studies of --data.
        batch_size: studies at once; halved by itself when memory runs out.
        device: cpu or cuda.
    """
    from crossray.serving.generator import Generator

    if bool(images) == (data is not None):
        raise UserError("give either image files or --data FOLDER.")
    generator = Generator.from_pretrained(model, device=device)
    with _progress("writing reports") as progress:
        if data is not None:
            count = generator.generate_dataset(data, split, out, batch_size=batch_size, progress=progress)
        else:
            studies = [[Path(name) for name in study.split(",")] for study in images]
            count = generator.generate_files(studies, out, batch_size=batch_size, progress=progress)
    _console().print(f"{count} reports in {out}")


def evaluate(
    predictions: Path,
    data: Path | None = None,
    out: Path | None = None,
    meteor: Literal["auto", "yes", "no"] = "auto",
    resamples: int = 1000,
    seed: int = 0,
) -> None:
    """Score predictions under both protocols, beside the trivial baselines and the image-shuffle check.

    Args:
        predictions: JSON lines from `crossray generate`, or rows of your own with id, prediction and reference.
        data: prepared dataset for the trivial baselines; by default the one that the predictions name.
        out: also write the scores to this JSON file; default: beside the predictions.
        meteor: METEOR 1.5 needs Java and pycocoevalcap: auto computes it when both are there.
        resamples: bootstrap resamples behind every interval.
        seed: seed of the resampling.
    """
    from crossray.evaluation.evaluate import evaluate as score
    from crossray.evaluation.tables import print_evaluation

    with _console().status("scoring"):
        result = score(predictions, dataset=data, meteor=meteor, resamples=resamples, seed=seed)
    target = out or predictions.with_suffix(".scores.json")
    result.save(target)
    print_evaluation(result, _console())
    _console().print(f"scores in {target}")


def models() -> None:
    """List the systems: parameters at their default size, ablation switches, recipes and what each needs first."""
    from crossray.terminal import print_models

    print_models(_console())


def demo(out: Path = Path("demo"), studies: int = 700, seed: int = 0) -> None:
    """Go the whole way in minutes: draw a set, train, write the test reports, score them, and leave a page.

    Args:
        out: folder of everything that the demo makes; the page is index.html in it; delete it to start anew.
        studies: how many studies to draw; a fifth of them is the test split.
        seed: seed of drawing and training.
    """
    from crossray.demo import run_demo

    checks = run_demo(out, studies=studies, seed=seed, console=_console())
    if not all(check.holds for check in checks):
        raise SystemExit(FAILED)


# -- parsing ------------------------------------------------------------

_PREPARE: dict[str, Callable[..., None]] = {"phantom": prepare_phantom, "r2gen": prepare_r2gen}
_COMMANDS: dict[str, Callable[..., None]] = {
    "generate": generate, "evaluate": evaluate, "models": models, "demo": demo,
}  # fmt: skip
_POSITIONAL: dict[Callable[..., None], dict[str, Any]] = {
    generate: {
        "name": "images", "nargs": "*", "type": str,
        "help": "one study an argument; the views of a study separated by commas (frontal.png,lateral.png)",
    },
    evaluate: {
        "name": "predictions", "type": Path,
        "help": "JSON lines from `crossray generate`, or rows of your own with id, prediction and reference",
    },
}  # fmt: skip


def _summary(function: Callable[..., None]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0]


def _command_parser(function: Callable[..., None]) -> Parser:
    parser = Parser(description=_summary(function))
    positional = dict(_POSITIONAL.get(function, {}))
    skip = {positional["name"]} if positional else set()
    if positional:
        parser.add_argument(positional.pop("name"), **positional)
    parser.add_function_arguments(function, as_positional=False, as_group=False, skip=skip)
    return parser


def _build() -> Parser:
    parser = Parser(
        prog="crossray",
        description="Writes the radiology report of a chest X-ray. Research software: not for clinical use.",
        version=__version__,
    )
    commands = parser.add_subcommands(dest="command", required=True)
    prepare = Parser(description="Prepare a dataset on disk, once, for everything that follows.")
    commands.add_subcommand("prepare", prepare, help="Prepare a dataset: phantom, r2gen.")
    sources = prepare.add_subcommands(dest="source", required=True)
    for name, function in _PREPARE.items():
        sources.add_subcommand(name, _command_parser(function), help=_summary(function))
    for name, text in _TRAINING.items():
        commands.add_subcommand(name, Parser(), help=text)  # parsed by the recipe, see `main`
    for name, function in _COMMANDS.items():
        commands.add_subcommand(name, _command_parser(function), help=_summary(function))
    return parser


_TRAINING = {
    "train": "Train a system on a prepared dataset, or continue a run (--resume).",
    "pretrain": "Train what systems start from: `pretrain vision` trains an image encoder.",
}


def _run(arguments: list[str]) -> None:
    if arguments[:1] and arguments[0] in _TRAINING:
        _train(arguments[0], arguments[1:])
        return
    parsed: Namespace = _build().parse_args(arguments)
    chosen: Any = parsed[parsed.command]
    function = _COMMANDS.get(parsed.command)
    if function is None:
        function, chosen = _PREPARE[chosen.source], chosen[chosen.source]
    function(**chosen.clone(with_meta=False).as_dict())


def _train(command: str, arguments: list[str]) -> None:
    """`train` and `pretrain`: the recipe decides which further options there are."""
    own = argparse.ArgumentParser(prog=f"crossray {command}", description=_TRAINING[command], add_help=False)
    own.add_argument("recipe", nargs="?", help="a recipe's name (baseline/phantom) or a YAML file")
    own.add_argument("--data", type=Path, help="prepared dataset")
    own.add_argument("--out", type=Path, help="folder of the run; must not exist yet")
    own.add_argument("--resume", type=Path, help="folder of an interrupted run: continue it exactly where it stopped")
    own.add_argument("-h", "--help", action="store_true", help="with a recipe: also every option of the recipe")
    chosen, overrides = own.parse_known_args(arguments)
    if chosen.help:
        own.print_help()
        if chosen.recipe is None:
            print("\nEvery value of a recipe is an option too: crossray train RECIPE --help lists them.")  # noqa: T201
            return
    if chosen.resume is not None and not chosen.help:
        from crossray.training.run import resume

        if chosen.recipe or chosen.data or chosen.out or overrides:
            raise UserError("--resume continues a run with its own recipe and data: remove the other arguments.")
        resume(chosen.resume)
        return
    from crossray.training.recipe import parse, recipe_parser

    if chosen.recipe is None:
        raise UserError("name a recipe (`crossray models` lists them) or a run to continue (--resume FOLDER).")
    chosen.recipe = _full_name(command, chosen.recipe)
    if chosen.help:
        recipe_parser(chosen.recipe).print_help()
        return
    if chosen.data is None or chosen.out is None:
        raise UserError("--data and --out are needed: the prepared dataset and the folder of the new run.")
    recipe = parse(chosen.recipe, overrides)
    from crossray.training.run import train

    train(recipe, chosen.data, chosen.out)


def _full_name(command: str, recipe: str) -> str:
    """`pretrain vision` means the recipe vision/phantom."""
    return f"{recipe}/phantom" if command == "pretrain" and "/" not in recipe and "." not in recipe else recipe


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `crossray`: a mistake ends in one sentence and exit code 2."""
    _quiet()
    try:
        _run(sys.argv[1:] if arguments is None else arguments)
    except UserError as error:
        sys.stderr.write(f"crossray: {error}\n")
        raise SystemExit(MISTAKE) from None
    except KeyboardInterrupt as error:
        sys.stderr.write(f"crossray: {error or 'interrupted.'}\n")
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:  # `crossray ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _quiet() -> None:
    """Libraries talk about themselves on import; a user did not ask."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


# -- printing ------------------------------------------------------------


def _console() -> Any:
    from rich.console import Console

    return Console()


def _progress(title: str) -> Any:
    from rich.console import Console

    from crossray.terminal import Progress

    return Progress(title, Console(stderr=True))


def _file(path: Path) -> dict[str, str]:
    """Name and digest of a source file: another file of the same name is another source."""
    with path.open("rb") as file:
        return {"name": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _print_dataset(dataset: Any) -> None:
    from crossray.terminal import print_dataset

    print_dataset(dataset, _console())
