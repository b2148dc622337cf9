"""Generates pages from the code before Sphinx reads the folder: commands, recipes, fields, Python API.

They are in `reference/` and not in git. A page is rewritten only if its text changes, so that a second build is fast.
"""

import argparse
import dataclasses
import pkgutil
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from docstring_parser import parse
from docutils import nodes
from sphinx import addnodes

#: Packages whose modules have a page, with descriptions.
PACKAGES = {
    "models": "Contract of a system, the systems, and their common parts",
    "layers": "Building blocks of the papers",
    "data": "Images, the dataset on disk, batches, sources",
    "text": "Cleaners, tokenizers, observations and the rule-based labeler",
    "training": "Recipes, stages, checkpoints, rewards",
    "decoding": "Beam search, sampling and minimum Bayes risk decoding",
    "generation": "From a model folder and images to predictions",
    "evaluation": "Metrics, labelers, predictions, statistics",
    "confidence": "Calibrated confidence, and checks of the input images",
    "analysis": "Analyses of models: attention, alignment, retrieval, liveness",
    "ablation": "Rows of ablation tables, their runs and their comparison",
    "interop": "Reports as FHIR bundles and DICOM structured reports",
    "serving": "The service: HTTP, DICOM, journal, access",
    "phantom": "Synthetic radiographs with known findings",
    "retrieval": "Database and index of training reports",
    "pages": "Tables, charts and HTML pages",
    "files": "Atomic writes, locks, digests, model folders",
}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


#: Code in backquotes stays as it is; options outside of it become code, so that a line does not end within the hyphens.
_OPTION = re.compile(r"`[^`]*`|(?<![\w-])--[a-z][\w-]*")


def _with_options(text: str) -> str:
    return _OPTION.sub(lambda found: found[0] if found[0].startswith("`") else f"`{found[0]}`", text)


#: Files of the documents in the comments of recipes and docstrings of fields.
_PAGE = re.compile(r"docs/([\w/-]+)\.md")


def _with_links(text: str, up: str) -> str:
    return _PAGE.sub(lambda found: f"[{found[1].rpartition('/')[2]}]({up}/{found[1]}.md)", text)


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("$", "\\$")


def _table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# commands -------------------------------------------------------------------------------------------------------------


def _commands() -> str:
    from crossray.cli import _TRAINING, _build
    from crossray.commands import COMMANDS, GROUPS

    parts = [
        "# Commands\n\nGenerated from the parser; `crossray COMMAND --help` prints the same. Options can be written "
        "with hyphens or underscores. A user's mistake ends in a one-sentence error and exit code 2, Ctrl-C in 130.\n"
    ]
    named = {
        "train": [("`RECIPE`", "name of a recipe, or a YAML file: [all recipes](recipes.md)")],
        "pretrain": [
            ("`RECIPE`", "`vision`, `tokenizer` or `knowledge`, or a YAML file: [all recipes](recipes.md)"),
            ("`NAME`", "recipe of this kind, such as `iu_xray`; `phantom` by default"),
        ],
    }
    for name, text in _TRAINING.items():
        parts.append(
            f"## crossray {name}\n\n{_with_options(text)}\n\n" + _table(
                ("argument", "meaning"),
                [*named[name],
                 ("`--data`", "prepared dataset"),
                 ("`--out`", "folder of the run; must not exist yet"),
                 ("`--resume`", "folder of an interrupted run, which is continued exactly where it stopped; if its "
                                "dataset has moved, give `--data`"),
                 ("`--SECTION.FIELD`", "any field of [the recipe](recipes/training.md) or its system")],
            ) + "\n")  # fmt: skip
    parts += [_command(f"crossray {name}", _subparser(_build([name]), name)) for name in COMMANDS]
    for name, group in GROUPS.items():
        parts.append(f"## crossray {name}\n\n{group.summary}\n")
        for second in group.commands:
            parser = _subparser(_subparser(_build([name, second]), name), second)
            parts.append(_command(f"crossray {name} {second}", parser, level=3))
    return "\n".join(parts)


def _subparser(parser: Any, name: str) -> Any:
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return actions[0].choices[name]


def _command(title: str, parser: Any, level: int = 2) -> str:
    formatter = parser.formatter_class("crossray")
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction) or action.help == argparse.SUPPRESS:
            continue
        if any(option.startswith(("--print_", "--config")) for option in action.option_strings):
            continue
        name = f"--{action.dest.replace('_', '-')}" if action.option_strings else action.dest.upper()
        expanded = formatter._expand_help(action) if action.help else ""
        choices = f" One of {', '.join(map(str, action.choices))}." if getattr(action, "choices", None) else ""
        rows.append((f"`{name}`", _with_options(expanded + choices)))
    description = _with_options(" ".join((parser.description or "").split()))
    table = _table(("argument", "meaning"), rows) if rows else "It takes no arguments."
    return f"{'#' * level} {title}\n\n{description}\n\n{table}\n"


# recipes and fields ---------------------------------------------------------------------------------------------------


def _fields(config: type, prefix: str) -> str:
    described = {param.arg_name: param.description or "" for param in parse(config.__doc__ or "").params}
    for base in config.__mro__[1:]:
        if dataclasses.is_dataclass(base):
            for param in parse(base.__doc__ or "").params:
                described.setdefault(param.arg_name, param.description or "")
    types = get_type_hints(config)
    rows = [
        (
            f"`{prefix}{field.name}`",
            _type(types[field.name]),
            _default(field),
            _with_links(described.get(field.name, ""), "../.."),
        )
        for field in dataclasses.fields(config)
    ]
    return _table(("field", "type", "default", "meaning"), rows)


def _type(kind: Any) -> str:
    """The type as code; the values of a choice one by one, so that a line can end between them."""
    if isinstance(kind, type) and not getattr(kind, "__args__", None):
        return f"`{kind.__name__}`"
    text = re.sub(r"\b(?:[a-z_]+\.)+", "", str(kind))
    choice = re.fullmatch(r"Literal\[(.*)\]", text)
    return re.sub(r"'?([^', ]+)'?", r"`\1`", choice[1]) if choice else f"`{text}`"


_LONGEST_CODE = 30


def _default(field: Any) -> str:
    value = field.default
    if value is dataclasses.MISSING:
        if field.default_factory is dataclasses.MISSING:
            return "*"
        value = field.default_factory()
    if dataclasses.is_dataclass(value):
        return "see there"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if len(text) > _LONGEST_CODE:  # code does not break
        return f'"{text}"'
    return f"`{text}`" if text else "empty"


def _recipes(folder: Path) -> None:
    from crossray.models.base import ReportModel, system_class
    from crossray.models.registry import list_trainables
    from crossray.training import recipe
    from crossray.training.config import Stage

    root = Path(recipe.__file__).parent / "recipes"
    systems = [name for name in list_trainables() if (root / name).is_dir()]
    listed = []
    for name in systems:
        cls = system_class(name)
        command = f"train {name}/phantom" if issubclass(cls, ReportModel) else f"pretrain {name}"
        parts = [f"# {name}: fields and recipes\n\nFields of section `model` of its recipes, which are also options of "
                 f"`crossray {command}`. A field with `*` has no default: the dataset or the recipe "
                 "determines it.\n", _fields(cls.config_class, "model."), ""]  # fmt: skip
        for path in sorted((root / name).glob("*.yaml")):
            text = path.read_text(encoding="utf-8")
            comment = " ".join(line.lstrip("# ").rstrip() for line in _leading_comment(text))
            comment = _with_links(comment, "..")
            listed.append((f"[{name}/{path.stem}](recipes/{name}.md#{name}-{path.stem.replace('_', '-')})", comment))
            parts.append(f"({name}-{path.stem.replace('_', '-')})=\n## {name}/{path.stem}\n\n```yaml\n{text}```\n")
            yaml.safe_load(text)
        _write(folder / "recipes" / f"{name}.md", "\n".join(parts))
    sections = [f"## {name}\n\n" + _fields(kind, f"{name}.") for name, kind in recipe._SECTIONS.items()]
    sections.append("## Image transform: data.image\n\n" + _fields(_image_transform(), "data.image."))
    sections.append("## Stages\n\nEntries of the list `stages`.\n\n" + _fields(Stage, ""))
    _write(
        folder / "recipes" / "training.md",
        "# Fields of every recipe\n\nThese sections are the same for every system. `crossray train RECIPE --help` "
        "shows them with the values of a recipe.\n\n" + "\n\n".join(sections) + "\n",
    )
    contents = "\n".join(["recipes/training", *(f"recipes/{name}" for name in systems)])
    _write(
        folder / "recipes.md",
        "# Recipes\n\nA recipe is a YAML file that determines how a model is trained. `crossray train` and `crossray "
        "pretrain` take its name, and each of its fields is an option.\n\n"
        f"```{{toctree}}\n:maxdepth: 1\n\n{contents}\n```\n\n" + _table(("recipe", "purpose"), listed) + "\n",
    )


def _image_transform() -> type:
    from crossray.data.batches.transform import ImageTransform

    return ImageTransform


def _leading_comment(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if not line.startswith("#"):
            return
        yield line


# Python interface -----------------------------------------------------------------------------------------------------


def _api(folder: Path) -> None:
    import crossray

    for name, summary in PACKAGES.items():
        parts = [f"# crossray.{name}\n\n{summary}.\n"]
        for module in _modules(f"crossray.{name}"):
            members = "" if module == f"crossray.{name}" else ":members:\n:show-inheritance:\n:ignore-module-all:\n"
            parts.append(f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n{_indented(members)}```\n")
        _write(folder / "api" / f"{name}.md", "\n".join(parts))
    _write(
        folder / "api" / "shared.md",
        "# crossray.registry and crossray.errors\n\nRegistries of systems, sources, metrics, labelers and backbones, "
        "and the errors for users.\n\n"
        + "\n".join(
            f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```\n"
            for module in ("crossray.registry", "crossray.errors")
        ),
    )
    names = [name for name in crossray.__all__ if not name.startswith("__")]
    order = sorted(names, key=lambda name: (not name.islower(), name))
    bodies = []
    for name in order:
        value = getattr(crossray, name)
        kind = "autoclass" if isinstance(value, type) else "autofunction"
        options = "   :members:\n" if kind == "autoclass" else ""
        bodies.append(f"```{{eval-rst}}\n.. {kind}:: crossray.{name}\n{options}```\n")
    _write(folder / "api" / "crossray.md", "# crossray\n\nThe public API: `import crossray`.\n\n" + "\n".join(bodies))
    pages = "\n".join(f"api/{name}" for name in ("crossray", *PACKAGES, "shared"))
    rows = [("[`crossray`](api/crossray.md)", "Load a model, generate reports, score them"),
            *((f"[`crossray.{name}`](api/{name}.md)", text) for name, text in PACKAGES.items()),
            ("[`crossray.registry`, `crossray.errors`](api/shared.md)", "Registries; errors for users")]  # fmt: skip
    _write(
        folder / "api.md",
        "# Python API\n\nGenerated from the docstrings. The names of `crossray` itself follow the "
        "[deprecation policy](../project/deprecation.md); those of the packages below may change with a minor "
        f"version.\n\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n\n" + _table(("package", "content"), rows) + "\n",
    )


def _modules(package: str) -> Iterator[str]:
    import importlib

    found = importlib.import_module(package)
    if found.__doc__:
        yield package
    for module in sorted(pkgutil.walk_packages(found.__path__, f"{package}."), key=lambda one: one.name):
        if not any(part.startswith("_") for part in module.name.split(".")):
            yield module.name


def _indented(options: str) -> str:
    return "".join(f"   {line}\n" for line in options.splitlines())


_CODE = re.compile(r"(``.+?``|`[^`]+`)")
_SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises|Example|Examples|Note|Notes|Warns):$")


def _as_rst(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Convert docstrings, plain text with lists and names in backquotes, to reST; other indented text is literal."""
    result: list[str] = []
    section = literal = item = False
    for line in lines:
        if line.startswith("* "):
            if not item:
                result.append("")
            result.append("* " + _plain(line[2:]))
            section, literal, item = False, False, True
            continue
        if item and line.startswith("  "):
            result.append("  " + _plain(line.strip()))
            continue
        if line.strip() and not line.startswith(" "):
            if literal or item:
                result.append("")
            section, literal = bool(_SECTION.match(line)), False
        elif line.strip() and not section and not literal and (result or what != "module"):
            result += ["", "::", ""]
            literal = True
        item = item and not line.strip()
        result.append(line if literal or ">>>" in line else _plain(line))
    lines[:] = result


def _plain(text: str) -> str:
    """Escape stars and bars except in bold words; backquoted text that is not a name becomes code."""
    parts = _CODE.split(text)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            bold = re.split(r"(\*\*[\w ]+\*\*)", part)
            bold[::2] = [re.sub(r"(?<!\\)([*|])", r"\\\1", text) for text in bold[::2]]
            parts[i] = "".join(bold)
        elif not part.startswith("``") and not re.fullmatch(r"`[\w.]+`", part):
            parts[i] = f"`{part}`"
        if i % 2 and i + 1 < len(parts) and re.match(r"\w", parts[i + 1]):
            parts[i] += "\\ "
    return "".join(parts)


#: Characters of a value that the API pages show.
_LONGEST_VALUE = 80


def _without_long_values(app: Any, doctree: nodes.document) -> None:
    """Leave out the values of constants that fill lines or screens, such as word lists; name and text stay."""
    for value in list(doctree.findall(addnodes.desc_annotation)):
        text = value.astext()
        if text.startswith(" = ") and len(text) > _LONGEST_VALUE:
            value.parent.remove(value)


def _generate(app: Any) -> None:
    folder = Path(app.srcdir) / "reference"
    _write(folder / "commands.md", _commands())
    _recipes(folder)
    _api(folder)


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", _generate)
    app.connect("autodoc-process-docstring", _as_rst, priority=400)
    app.connect("doctree-read", _without_long_values)
    return {"parallel_read_safe": True}
