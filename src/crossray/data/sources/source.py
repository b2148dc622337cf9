"""What a source is: one file with a function that reads studies. Its parameters are the options of `crossray prepare`.

    @source("my-hospital")
    def my_hospital(folder: Path, seed: int = 0) -> Collection:
        \"\"\"Prepare what our archive exports.

Args:
            folder: of the export.
            seed: of the split.
        \"\"\"

A file in this folder is found by itself; another package names its module in an entry point of the group
`crossray.sources`. Writing, `--out`, `--size`, `--cleaner`, `--workers`, `--shard` and `--engine` are the same for all.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from crossray.data.study import Study
from crossray.registry import Registry


@dataclass(frozen=True)
class Collection:
    """The studies of a source, and what is written down about them.

    Attributes:
        studies: in an order that is the same at every run, with a length where that is known; their `ImageRef`s must be
            picklable. `PreviewedStudies` are measured first, and the user is told how long writing will take.
        source: JSON-ready description of where they come from: "kind" (of source), files with their digests, seeds,
            whether the images are synthetic ("synthetic_images"), and what made the labels ("labels"). It identifies
            the dataset: the same folder with another description is refused.
        notes: JSON-ready remarks that are kept in `dataset.json`; "filter_steps" and "paper_statistics" are printed.
        rejected: "study", "step" and "reason" of what could not even be made a study.
        files: the image files, in an order that is the same at every run, so that a changed one is noticed when the
            dataset exists already; None where there are none, or they lie in an archive.
    """

    studies: Iterable[Study]
    source: Mapping[str, Any]
    notes: Mapping[str, Any] = field(default_factory=dict)
    rejected: Sequence[Mapping[str, str]] = ()
    files: Iterable[Path] | None = None


@runtime_checkable
class PreviewedStudies(Protocol):
    """Studies so many that their writing is estimated beforehand."""

    def __len__(self) -> int:
        """Number of studies."""

    def images(self) -> int:
        """Number of images, at most."""

    def stored_bytes(self, size: int) -> int:
        """Bytes of these images with a short side of `size` pixels."""


@dataclass(frozen=True)
class Source:
    """A registered source.

    Attributes:
        name: second word of `crossray prepare NAME`.
        read: gives the studies; or says in a sentence what it did instead, such as writing a template. A
            parameter `scratch` is no option: it gets a folder for what has to be unpacked, deleted with the unfinished
            dataset.
        cleaner: report cleaner that is used when none is chosen.
        positional: parameter of `read` that is given without an option's name; "" for none.
        alone: options that may stand without a value, and the value that this means.
        always_writes: False where `read` may return a sentence, so that --out can be left out.
    """

    name: str
    read: Callable[..., Collection | str]
    cleaner: str = "legacy"
    positional: str = ""
    alone: Mapping[str, str] = field(default_factory=dict)
    always_writes: bool = True

    @property
    def definition(self) -> Callable[..., Collection | str]:
        """What the registry names in a message about two sources of one name."""
        return self.read


#: All sources by name.
SOURCES: Registry[Source] = Registry(
    "source",
    "crossray.sources",
    ["crossray.data.sources", "crossray.phantom.source"],
    "`crossray prepare --help` lists those that do",
)

_R = TypeVar("_R", bound=Callable[..., Collection | str])


def source(
    name: str,
    *,
    cleaner: str = "legacy",
    positional: str = "",
    alone: Mapping[str, str] | None = None,
    always_writes: bool = True,
) -> Callable[[_R], _R]:
    """Decorator of the function that reads a source; see `Source` for the arguments."""

    def decorate(read: _R) -> _R:
        SOURCES.add(name, Source(name, read, cleaner, positional, alone or {}, always_writes))
        return read

    return decorate
