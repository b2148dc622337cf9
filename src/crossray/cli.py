"""The command line: parses arguments, runs a function of `crossray.commands`, and prints errors as one sentence."""

import argparse
import errno
import inspect
import io
import itertools
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from crossray import __version__
from crossray.commands import COMMANDS, GROUPS, RENAMED
from crossray.commands.command import Command
from crossray.errors import UserError
from crossray.files.guard import check_outputs
from crossray.files.names import printable
from crossray.parser_messages import plain_message

#: Exit code after a user's mistake, as in argparse.
MISTAKE = 2
#: Exit code after Ctrl-C, as in shells.
INTERRUPTED = 130


#: Errors of files and disks that any command can meet anywhere, and what helps.
_REMEDIES = {
    errno.EACCES: "change its permissions or name another place",
    errno.EPERM: "change its permissions or name another place",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EROFS: "name another place",
    errno.ENOSPC: "free some space, and repeat the command",
    errno.EDQUOT: "free some space, and repeat the command",
}

#: The parser's name of an option contains the command (prepare.phantom.out); the user typed --out.
_KEY = re.compile(rf"\b((?:{'|'.join(GROUPS)})\.[\w-]+|{'|'.join(COMMANDS)})\.(\w+)")


def _option(key: re.Match[str]) -> str:
    """Return an option as the user types it: with --, unless it is positional."""
    group, _, second = key[1].partition(".")
    command = GROUPS[group].commands[second] if second else COMMANDS[group]
    return key[2] if (command.positional or {}).get("name") == key[2] else f"--{key[2]}"


#: jsonargparse's message for a name that is not UTF-8.
_NO_UTF8 = re.compile(r"'utf-8' codec can't encode character.*surrogates not allowed")


class Formatter(DefaultHelpFormatter):
    """Formats help for readers: options with hyphens, defaults, and no names of Python types."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = _TYPE.sub("", super()._get_help_string(action))
        if not _SECOND.search(text):  # as in argparse's own help, a single phrase has no period at its end
            text = text.removesuffix(".")
        if action.option_strings and action.required:
            return f"{text} (required)"
        if action.default in (None, [], (), "", argparse.SUPPRESS) or isinstance(action, argparse._HelpAction):
            return text
        return text if "(default" in text else f"{text} (default: {_typed(action)})"

    def _format_usage(self, *args: Any, **kwargs: Any) -> str:
        return _hyphenated(super()._format_usage(*args, **kwargs))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return _hyphenated(super()._format_action_invocation(action))


#: The beginning of a second sentence, unlike "eq. 3".
_SECOND = re.compile(r"\. [^a-z0-9]")

#: The text that jsonargparse appends to the help of an option.
_TYPE = re.compile(r" \((?:required|(?:required, )?type: .*?|(?:type: .*, )?default: .*)\)$", re.DOTALL)


def _typed(action: argparse.Action) -> str:
    """Return a default as the user would type it: several values, or one in JSON."""
    value = action.default
    if isinstance(value, list | tuple) and action.nargs == "+":
        return " ".join(map(str, value))
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _hyphenated(text: str) -> str:
    return re.sub(r"--[a-z][\w.]*", lambda option: option[0].replace("_", "-"), text)


class Parser(ArgumentParser):
    """A parser that prints errors as one sentence, without the usage."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, formatter_class=Formatter, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: D102
        message = _NO_UTF8.sub("the name is not UTF-8, which options require; rename the file or folder", message)
        options = [name.removeprefix("--") for name in self._option_string_actions if name.startswith("--")]
        sentence = plain_message(_KEY.sub(_option, message), options, "--help explains every option", prefix="--")
        sys.stderr.write(f"{self.prog.replace(' [options]', '')}: {_hyphenated(sentence)}.\n")
        raise SystemExit(MISTAKE)


def _further(command: Command) -> str | None:
    """Return the note below a command's help about options that are not listed."""
    if command.takes_recipe:
        return "Every field of the recipe is also an option, such as --trainer.max-epochs 3."
    groups = ", ".join(f"--{group}.FIELD VALUE" for group in command.fields)
    return f"Further options: {groups}, such as --decoding.method greedy." if groups else None


def _command_parser(command: Command) -> Parser:
    parser = Parser(description=command.summary, epilog=_further(command))
    positional = dict(command.positional or {})
    skip = {
        *command.lists,
        *command.fields,
        *([positional["name"]] if positional else []),
        *(["recipe_options"] * command.takes_recipe),
    }
    if positional:
        parser.add_argument(positional.pop("name"), **positional)
    for name, options in command.lists.items():
        parser.add_argument(f"--{name}", **{"nargs": "+", **options})
    parser.add_function_arguments(command.function, as_positional=False, as_group=False, skip=skip)
    return parser


def _build(arguments: Sequence[str] = ()) -> Parser:
    """Build the parser; to start fast, only the subcommands of the group in `arguments` get their options."""
    first, second, *_ = *arguments, "", ""
    parser = Parser(
        prog="crossray",
        description="Generates radiology reports of chest X-rays. Research software, not for clinical use.",
        version=__version__,
    )
    commands = parser.add_subcommands(dest="command", required=True)
    for name, group in GROUPS.items():
        parent = Parser(description=group.summary)
        commands.add_subcommand(name, parent, help=f"{group.summary[:-1]}; see `crossray {name} --help`.")
        if name == first:
            seconds = parent.add_subcommands(dest="source", required=True)
            for chosen in [second] if second in group.commands else group.commands:
                command = group.commands[chosen]
                seconds.add_subcommand(chosen, _command_parser(command), help=command.summary)
    for name, text in _TRAINING.items():
        commands.add_subcommand(name, Parser(), help=text)  # parsed by the recipe, see `main`
    for name, command in COMMANDS.items():
        commands.add_subcommand(name, _command_parser(command), help=command.summary)
    return parser


_TRUTHS = ("true", "false", "yes", "no")

_TRAINING = {
    "train": "Train a system on a prepared dataset, or continue a run (--resume).",
    "pretrain": "Pretrain a part of a system: `pretrain vision` (image encoder), `tokenizer`, `knowledge`.",
}


def _renamed(arguments: list[str]) -> list[str]:
    """Replace an old command name by the current one, with a notice on standard error."""
    if not arguments or arguments[0] not in RENAMED:
        return arguments
    old, new = arguments[0], RENAMED[arguments[0]]
    sys.stderr.write(f"crossray: {old} is now called {new}; the old name will be removed in version 0.4.\n")
    return [new, *arguments[1:]]


def _run(arguments: list[str]) -> None:
    arguments = _renamed(arguments)
    if arguments[:1] and arguments[0] in _TRAINING:
        _train(arguments[0], arguments[1:])
        return
    more: dict[str, Any] = {}
    if arguments[:1] and arguments[0] in COMMANDS and COMMANDS[arguments[0]].takes_recipe:
        arguments, more["recipe_options"] = _split_recipe_options(arguments)
    if arguments[:1] and arguments[0] in COMMANDS and COMMANDS[arguments[0]].fields:
        arguments, fields = _split_fields(arguments, COMMANDS[arguments[0]].fields)
        more |= fields
    _check_repeated(arguments)
    parsed: Namespace = _build(arguments).parse_args(_spelled_out(arguments))
    chosen: Any = parsed[parsed.command]
    if parsed.command in GROUPS:
        command, chosen = GROUPS[parsed.command].commands[chosen.source], chosen[chosen.source]
    else:
        command = COMMANDS[parsed.command]
    command(**chosen.clone(with_meta=False).as_dict(), **more)


def _named(arguments: list[str]) -> Command | None:
    """The command that the arguments begin with."""
    first, second, *_ = *arguments, "", ""
    return GROUPS[first].commands.get(second) if first in GROUPS else COMMANDS.get(first)


def _check_repeated(arguments: list[str]) -> None:
    """Refuse an option that is given twice, of which the parser would silently use the last value.

    Raises:
        UserError: an option is repeated that does not collect its values.
    """
    lists = {} if (command := _named(arguments)) is None else command.lists
    options = Counter(argument.partition("=")[0] for argument in arguments if argument.startswith("--"))
    for option, count in options.items():
        listed = lists.get(option[2:].replace("-", "_"))
        if count > 1 and (listed is None or listed.get("action") != "append"):
            raise UserError(f"{option} is given {count} times; give it once{', with all values' if listed else ''}.")


def _spelled_out(arguments: list[str]) -> list[str]:
    """Add the implied value to each option without one: `--common` means `--common true`."""
    command = _named(arguments)
    if command is None:
        return arguments
    parameters = inspect.signature(command.function).parameters.values()
    switches = {f"--{parameter.name}" for parameter in parameters if parameter.annotation is bool}
    alone = {f"--{name}": value for name, value in command.alone.items()}
    whole = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        whole.append(argument)
        if argument in switches and following.lower() not in _TRUTHS:
            whole.append("true")
        elif argument in alone and (not following or following.startswith("--")):
            whole[-1] = f"{argument}={alone[argument]}"
    return whole


def _split_fields(arguments: list[str], names: Sequence[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Split arguments into the command's own and the fields of its groups, such as `--decoding.method greedy`."""
    own: list[str] = []
    fields: dict[str, dict[str, str]] = {name: {} for name in names}
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        group, dot, field = option.removeprefix("--").partition(".")
        if option.startswith("--") and dot and group in fields:
            if field in fields[group]:
                raise UserError(f"{option} is given twice; give it once.")
            fields[group][field] = value if equals else next(rest, "")
        else:
            own.append(argument)
    return own, fields


def _split_recipe_options(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split arguments into the command's own and the recipe's: --section.field and --stages, each with a value."""
    own, fields = [], []
    rest = iter(arguments)
    for argument in rest:
        name, equals, _ = argument.partition("=")
        if name == "--stages" or (name.startswith("--") and "." in name):
            fields += [argument] if equals else [argument, *itertools.islice(rest, 1)]
        else:
            own.append(argument)
    return own, fields


def _train(command: str, arguments: list[str]) -> None:
    """Run `train` or `pretrain`, whose remaining options depend on the recipe."""
    own = argparse.ArgumentParser(prog=f"crossray {command}", description=_TRAINING[command], add_help=False)
    recipes = {"train": "a recipe's name (baseline/phantom)", "pretrain": "vision, tokenizer or knowledge"}
    own.add_argument("recipe", nargs="?", help=f"{recipes[command]}, or a YAML file")
    if command == "pretrain":
        own.add_argument("name", nargs="?", help="recipe of this kind, such as iu_xray; default: phantom")
    own.add_argument("--data", type=Path, help="prepared dataset")
    own.add_argument("--out", type=Path, help="output folder of the run; must not exist yet")
    own.add_argument(
        "--resume",
        help="folder of an interrupted run to continue exactly where it stopped; if its dataset has moved, give "
        "--data. Or the trainer.mirror of a run, such as s3://bucket/runs/a, which is first copied to --out",
    )
    own.add_argument("-h", "--help", action="store_true", help="show this help; with a recipe, list its options")
    chosen, overrides = own.parse_known_args(arguments)
    if chosen.help:
        own.print_help()
        if chosen.recipe is None:
            print(f"\nEvery field of a recipe is also an option: crossray {command} RECIPE --help lists them.")  # noqa: T201
            return
    if chosen.resume is not None and not chosen.help:
        from crossray.training.run import resume

        mirror = "://" in chosen.resume
        if chosen.recipe or overrides or (chosen.out and not mirror):
            raise UserError("--resume continues a run with its own recipe: remove the arguments other than --data.")
        if mirror:
            from crossray.training.mirror import fetch

            if chosen.out is None:
                raise UserError(f"--out is needed: a new folder for the run that is copied from {chosen.resume}.")
            fetch(chosen.resume, chosen.out)
        resume(chosen.out if mirror else Path(chosen.resume), chosen.data)
        return
    from crossray.training.recipe import parse, recipe_parser

    if chosen.recipe is None:
        raise UserError("name a recipe (`crossray models` lists them) or a run to continue (--resume FOLDER).")
    if command == "pretrain":
        chosen.recipe = _full_name(chosen.recipe, chosen.name)
    if chosen.help:
        explained = recipe_parser(chosen.recipe)
        explained.formatter_class = Formatter
        explained.prog = f"crossray {command} {_short_name(chosen.recipe) if command == 'pretrain' else chosen.recipe}"
        explained.print_help()
        return
    if chosen.data is None or chosen.out is None:
        raise UserError("--data and --out are needed: the prepared dataset and the folder of the new run.")
    check_outputs({"--out": (chosen.out, "folder")}, {"--data": [chosen.data]})
    recipe = parse(chosen.recipe, overrides)
    from crossray.models.base import ReportModel, system_class

    if command == "pretrain" and issubclass(system_class(recipe.system), ReportModel):
        raise UserError(f"pretrain: {recipe.system} is a whole system; use `crossray train {chosen.recipe}`.")
    from crossray.training.run import train

    train(recipe, chosen.data, chosen.out)


def _full_name(recipe: str, name: str | None) -> str:
    """Complete a recipe's name: `vision` becomes vision/phantom, and `tokenizer iu_xray` tokenizer/iu_xray.

    Raises:
        UserError: `recipe` is complete, and a name follows.
    """
    whole = "/" in recipe or "." in recipe
    if whole and name is not None:
        raise UserError(f"pretrain: {recipe} is a whole recipe; leave out '{name}'.")
    if name is not None and ("/" in name or "." in name):
        return name
    return recipe if whole else f"{recipe}/{name or 'phantom'}"


def _short_name(recipe: str) -> str:
    """The inverse of `_full_name`: vision/phantom as `vision phantom`; a file stays as it is."""
    return recipe if "." in recipe else recipe.replace("/", " ", 1)


def _underscored(argument: str) -> str:
    """Replace the hyphens of an option by underscores, as in the parameter: `--batch-size 8` to `--batch_size 8`."""
    name, sign, value = argument.partition("=")
    return name[:2] + name[2:].replace("-", "_") + sign + value if name.startswith("--") else argument


def main(arguments: list[str] | None = None) -> None:
    """Entry point of `crossray`; on a user's mistake, print one sentence and exit with code 2."""
    _quiet()
    _say_anything()
    try:
        _run([_underscored(argument) for argument in (sys.argv[1:] if arguments is None else arguments)])
    except UserError as error:
        sys.stderr.write(f"crossray: {error}\n")
        raise SystemExit(MISTAKE) from None
    except KeyboardInterrupt as error:
        sys.stderr.write(f"crossray: {str(error) or 'interrupted.'}\n")
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:  # `crossray ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        place = f"{printable(error.filename)}: " if isinstance(error.filename, str | Path) else ""
        sys.stderr.write(f"crossray: {place}{error.strerror}; {remedy}.\n")
        raise SystemExit(MISTAKE) from None


def _say_anything() -> None:
    """Print characters that the terminal cannot encode as escapes instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _quiet() -> None:
    """Silence what libraries print when they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
