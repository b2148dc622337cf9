"""Registry of sources: each is a function that reads studies, whose parameters are options of `crossray prepare`.

    @source("my-hospital")
    def my_hospital(folder: Path, seed: int = 0) -> Collection:
        \"\"\"Prepare what our archive exports.

        Args:
            folder: folder of the export.
            seed: seed of the split.
        \"\"\"

Files in this folder are found automatically; another package names its module in an entry point of the group
`crossray.sources`. Writing, `--out`, `--size`, `--cleaner`, `--workers`, `--shard` and `--engine` are the same for all.
"""  # noqa: D214 (the section is that of the example)

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from crossray.data.study import Study
from crossray.registry import Registry


@dataclass(frozen=True)
class Collection:
    """The studies of a source and their description.

    Attributes:
        studies: the studies, in the same order in every run and with a length if it is known; their `ImageRef`s must be
            picklable. For `PreviewedStudies`, an estimate of size and time is printed first.
        source: origin of the studies as JSON values: "kind" of source, files with their digests, seeds, whether the
            images are synthetic ("synthetic_images"), and the labeler ("labels"). It identifies the dataset: the same
            folder with another description is rejected.
        notes: remarks for `dataset.json`, as JSON values; "filter_steps" and "paper_statistics" are printed.
        rejected: "study", "step" and "reason" of entries that could not be read as studies.
        files: the image files, in the same order in every run, to notice changes if the dataset already exists; None if
            there are none or they are in an archive.
    """

    studies: Iterable[Study]
    source: Mapping[str, Any]
    notes: Mapping[str, Any] = field(default_factory=dict)
    rejected: Sequence[Mapping[str, str]] = ()
    files: Iterable[Path] | None = None


@runtime_checkable
class PreviewedStudies(Protocol):
    """A large collection of studies, for which size and time are estimated first."""

    def __len__(self) -> int:
        """Return the number of studies."""

    def images(self) -> int:
        """Return the maximum number of images."""

    def stored_bytes(self, size: int) -> int:
        """Return the size of the images in bytes, with a short side of `size` pixels."""


@dataclass(frozen=True)
class Source:
    """A registered source.

    Attributes:
        name: name of the source in `crossray prepare NAME`.
        read: function that returns the studies, or a sentence about what it did instead, such as writing a template. A
            parameter `scratch` is not an option: it receives a folder for unpacked files, which is deleted with the
            unfinished dataset.
        cleaner: default cleaner of the reports.
        positional: parameter of `read` that is a positional argument; "" for none.
        alone: options that can be given without a value, and the value that they then have.
        always_writes: False if `read` may return a sentence, so that `--out` is optional.
    """

    name: str
    read: Callable[..., Collection | str]
    cleaner: str = "legacy"
    positional: str = ""
    alone: Mapping[str, str] = field(default_factory=dict)
    always_writes: bool = True

    @property
    def definition(self) -> Callable[..., Collection | str]:
        """Function that the registry names in messages."""
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
    """Register the decorated function as a source; see `Source` for the arguments."""

    def decorate(read: _R) -> _R:
        SOURCES.add(name, Source(name, read, cleaner, positional, alone or {}, always_writes))
        return read

    return decorate
