"""`crossray prepare SOURCE`: writes a dataset to disk once, for training and evaluation.

A source (`crossray.data.sources.source`) reads the studies; all sources share the writing and its options.
"""

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from crossray.commands.command import FOLDER, Command
from crossray.errors import UserError, counted
from crossray.pages.terminal import console, print_dataset, print_estimate, print_source_statistics, progress_bar

if TYPE_CHECKING:
    from crossray.data.sources.source import Source


def write(
    collection: Any,
    out: Path,
    size: int = 256,
    cleaner: Literal["legacy", "legacy_mimic", "fixed", "none"] = "legacy",
    shard: str | None = None,
    engine: Literal["processes", "ray"] = "processes",
    workers: int | None = None,
    identity: Literal["size_time", "digest"] = "size_time",
) -> None:
    """Write a dataset, or one machine's part of it, and print a summary.

    Args:
        collection: studies of a source (`crossray.data.sources.source.Collection`).
        out: folder of the prepared dataset; an unfinished one is continued.
        size: short side of the stored images in pixels.
        cleaner: how report texts are cleaned for the statistics, and by default in training.
        shard: write only this machine's part, such as 1/4; afterwards, the same command without --shard merges all
            parts.
        engine: processes on this machine, or ray for a cluster whose machines share a disk (pip install ray).
        workers: number of reading processes; 0 reads in the main process; by default, one per core.
        identity: how a repeated command detects changed images: by size and modification time, or by digest, which
            reads every image again. Choose it when the dataset is first prepared.
    """
    from crossray.data.sources.source import PreviewedStudies
    from crossray.data.store import write_dataset
    from crossray.data.store.identity import identify
    from crossray.data.store.writer import Part, write_part

    part = Part.parse(shard) if shard is not None else None
    if part is not None and engine == "ray":
        raise UserError("--shard and --engine ray are alternative ways to use several machines; give only one.")
    files = None if collection.files is None or part is not None else identify(collection.files, identity)
    if isinstance(collection.studies, PreviewedStudies):
        print_estimate(collection.studies, size, workers, console(), parts=part.of if part is not None else 1)
    with progress_bar("preparing studies") as progress:
        if part is not None:
            count = write_part(
                out, collection.studies, part, size=size, source=collection.source, cleaner=cleaner, workers=workers,
                progress=progress,
            )  # fmt: skip
        else:
            dataset = write_dataset(
                out, collection.studies, size=size, source=collection.source, cleaner=cleaner, workers=workers,
                notes=collection.notes, rejected=collection.rejected, progress=progress, engine=engine, images=files,
            )  # fmt: skip
    if part is not None:
        console().print(f"part {shard}: {counted(count, 'shard')} written; after all parts, run the same command "
                        "without --shard to merge them", highlight=False)  # fmt: skip
        return
    print_dataset(dataset, console())
    if "filter_steps" in dataset.info.notes:
        print_source_statistics(dataset, console())


class SourceCommands(Mapping[str, Command]):
    """Commands by source name; a source is imported only when its command is looked up."""

    def __getitem__(self, name: str) -> Command:
        from crossray.data.sources.source import SOURCES

        try:
            return source_command(SOURCES.get(name))
        except UserError as error:
            raise KeyError(name) from error

    def __iter__(self) -> Iterator[str]:
        from crossray.data.sources.source import SOURCES

        return iter(SOURCES.names())

    def __len__(self) -> int:
        return sum(1 for _ in self)


def source_command(source: "Source") -> Command:
    """Build `crossray prepare SOURCE` from the options of the source and those of `write`."""
    own, common = _options(source.read, {"scratch"}), _options(write, {"collection"})
    common["cleaner"] = common["cleaner"].replace(default=source.cleaner)
    if not source.always_writes:
        common["out"] = common["out"].replace(default=None, annotation=Path | None)
    texts = _texts(source.read) | {name: text for name, text in _texts(write).items() if name in common}
    options = {**own, **common}

    def prepare(**given: Any) -> None:
        mine = {name: value for name, value in given.items() if name in own}
        rest = {name: value for name, value in given.items() if name in common}
        if "scratch" in inspect.signature(source.read).parameters:
            from crossray.data.store.layout import UNFINISHED

            mine["scratch"] = rest["out"] / UNFINISHED / "images"
        collection = source.read(**mine)
        if isinstance(collection, str):
            console().print(collection, soft_wrap=True, highlight=False)
            return
        if rest["out"] is None:
            raise UserError("--out is needed: the folder of the prepared dataset.")
        write(collection, **rest)

    summary = (source.read.__doc__ or "").strip().splitlines()[0]
    explained = "".join(f"    {name}: {texts.get(name, '')}\n" for name in options)
    prepare.__doc__ = f"{summary}\n\nArgs:\n{explained}"
    prepare.__signature__ = inspect.Signature(list(options.values()))  # type: ignore[attr-defined]
    prepare.__annotations__ = {name: option.annotation for name, option in options.items()}
    if not source.positional:
        return Command(prepare, outputs=FOLDER, alone=source.alone)
    given = own[source.positional]
    optional = given.default is not inspect.Parameter.empty
    kinds = [kind for kind in (typing.get_args(given.annotation) or (given.annotation,)) if kind is not type(None)]
    place = {"name": source.positional, "type": kinds[0], "help": texts.get(source.positional, "")}
    return Command(prepare, place | ({"nargs": "?"} if optional else {}), outputs=FOLDER, alone=source.alone)


def _options(function: Callable[..., Any], without: set[str]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function, each with its resolved type."""
    types = typing.get_type_hints(function)
    return {
        name: parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=types.get(name, Any))
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in without
    }


def _texts(function: Callable[..., Any]) -> dict[str, str]:
    """Return the description of each parameter in the docstring."""
    from docstring_parser import parse

    found = parse(function.__doc__ or "").params
    return {one.arg_name: " ".join((one.description or "").split()) for one in found}
